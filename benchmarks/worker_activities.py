"""Async activities that wait, and sync ones at the same time, on one worker.

    python benchmarks/worker_activities.py       # about ten seconds

A workflow calls 1,000 async activities that await one second each, and 40 sync ones that sleep for a quarter of a
second in upstream's thread pool of ten.  The async ones take no thread while they wait; the sync ones are not held up
by them.  Upstream's limit of activities at a time (100 per CPU by default) holds for both kinds, and is raised here.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import threading
import time
from typing import Any

from durabletask.client import TaskHubGrpcClient
from durabletask.worker import ConcurrencyOptions

from durabletask_aio.testing.local import local_backend
from durabletask_aio.worker.worker import TaskHubGrpcWorker

SYNC, SYNC_SECONDS, THREADS = 40, 0.25, 10

ends: dict[str, list[float]] = {"async": [], "sync": []}
threads: set[str] = set()
running = {"now": 0, "most": 0}


async def wait(ctx: Any, seconds: float) -> None:
    running["now"] += 1
    running["most"] = max(running["most"], running["now"])
    threads.add(threading.current_thread().name)
    await asyncio.sleep(seconds)
    running["now"] -= 1
    ends["async"].append(time.monotonic())


def block(ctx: Any, seconds: float) -> None:
    time.sleep(seconds)
    ends["sync"].append(time.monotonic())


async def both(ctx: Any, counts: list[int]) -> int:
    waits = [ctx.call_activity("wait", input=1.0) for _ in range(counts[0])]
    blocks = [ctx.call_activity("block", input=SYNC_SECONDS) for _ in range(counts[1])]
    return len(await ctx.when_all([*waits, *blocks]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--activities", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logger = logging.Logger("quiet", level=logging.CRITICAL)  # noqa: LOG001 - not to be found by name
    limits = ConcurrencyOptions(
        maximum_concurrent_activity_work_items=options.activities + SYNC, maximum_thread_pool_workers=THREADS
    )
    alone, beside = [], []
    with local_backend() as backend:
        worker = TaskHubGrpcWorker(host_address=backend.address, logger=logger, concurrency_options=limits)
        worker.add_orchestrator(both)
        worker.add_activity(wait)
        worker.add_activity(block)
        client = TaskHubGrpcClient(host_address=backend.address, logger=logger)

        def run(counts: list[int]) -> tuple[float, float, float]:
            for each in ends.values():
                each.clear()
            began = time.monotonic()
            instance_id = client.schedule_new_orchestration("both", input=counts)
            state = client.wait_for_orchestration_completion(instance_id, timeout=600)
            total = time.monotonic() - began
            assert state is not None
            assert state.serialized_output == str(sum(counts)), state
            last = {kind: max(each) - began if each else 0.0 for kind, each in ends.items()}
            return total, last["async"], last["sync"]

        worker.start()
        run([1, 1])
        for _ in range(options.rounds):
            alone.append(run([options.activities, 0])[0])
            beside.append(run([options.activities, SYNC]))
        worker.stop()
        client.close()
    print(f"{options.activities} async activities that await one second, one worker, best of {options.rounds}")
    print(f"alone: {min(alone):.2f} s, at most {running['most']} at a time, on {len(threads)} thread")
    total, last_async, last_sync = min(beside)
    floor = SYNC * SYNC_SECONDS / THREADS
    print(
        f"beside {SYNC} sync ones of {SYNC_SECONDS} s on {THREADS} threads: all done after {total:.2f} s; "
        f"the last async one returned after {last_async:.2f} s, the last sync one after {last_sync:.2f} s "
        f"(alone: {floor:.2f} s)"
    )


if __name__ == "__main__":
    main()
