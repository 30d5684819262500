"""What a suspended instance costs in memory: with extended sessions, without, and on upstream's worker.

    python benchmarks/worker_memory.py           # 1,000 and 10,000 instances; about a minute

Each instance has done two activities (`--activities`), whose history is in its last request, and waits for an event.
Each figure comes from a process of its own: the memory of Python objects, and (on Linux) what the process grew by.
Without sessions an instance is dropped after its turn, as upstream drops it, and should leave nothing behind.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import tracemalloc
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
from durabletask.internal import helpers
from durabletask.worker import TaskHubGrpcWorker as Upstream

from durabletask_aio.worker.worker import TaskHubGrpcWorker


async def asynchronous(ctx: Any, count: int) -> None:
    for index in range(count):
        await ctx.call_activity("any", input=index)
    await ctx.wait_for_external_event("go")


def generator(ctx: Any, count: int) -> Any:
    for index in range(count):
        yield ctx.call_activity("any", input=index)
    yield ctx.wait_for_external_event("go")


class Stub:
    def CompleteOrchestratorTask(self, response: Any) -> None:  # noqa: N802 - the engine's name
        pass


def request(name: str, number: int, activities: int) -> pb.OrchestratorRequest:
    """The last turn of an instance, whose last activity has just completed."""
    now = datetime.now(timezone.utc)
    instance_id = f"instance-{number}"
    events = [
        helpers.new_orchestrator_started_event(now),
        helpers.new_execution_started_event(name, instance_id, str(activities)),
    ]
    for step in range(1, activities + 1):
        events.append(helpers.new_task_scheduled_event(step, "any"))
        events.append(helpers.new_orchestrator_started_event(now))
        events.append(helpers.new_task_completed_event(step, "null"))
    return pb.OrchestratorRequest(instanceId=instance_id, pastEvents=events[:-2], newEvents=events[-2:])


def resident() -> int:
    """Bytes of this process that are in memory, or 0 where the platform does not report it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(connection: Any, kind: str, workflow: Any, count: int, activities: int, *, trace: bool) -> None:
    """In a process of its own: do the turns of `count` instances, and send the KiB that each has left behind."""
    logger = logging.Logger("quiet", level=logging.CRITICAL)  # noqa: LOG001 - not to be found by name
    if kind == "upstream":
        worker: Any = Upstream(logger=logger)
    else:
        worker = TaskHubGrpcWorker(logger=logger, max_extended_sessions=count + 1 if kind == "sessions" else 0)
    worker.add_orchestrator(workflow)
    execute = worker._execute_orchestrator
    for number in range(-20, 0):
        execute(request(workflow.__name__, number, activities), Stub(), "token")
    gc.collect()
    if trace:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if trace else resident()
    for number in range(count):
        execute(request(workflow.__name__, number, activities), Stub(), "token")
    gc.collect()
    after = tracemalloc.get_traced_memory()[0] if trace else resident()
    kept = count + 20 if kind == "sessions" else 0
    live = 0 if kind == "upstream" else worker.extended_session_stats.live
    assert live in (kept, count + 1), (live, kept)
    connection.send((after - before) / count / 1024)


def in_process(*arguments: Any, trace: bool) -> float:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(theirs, *arguments), kwargs={"trace": trace}, daemon=True)
    process.start()
    theirs.close()
    try:
        found: float = ours.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"the process ended with {process.exitcode}; what it said is above") from None
    process.join()
    return found


LINES = [
    ("async workflow, sessions", "sessions", asynchronous),
    ("generator, sessions", "sessions", generator),
    ("async workflow, no sessions", "none", asynchronous),
    ("generator, no sessions", "none", generator),
    ("generator on upstream's worker", "upstream", generator),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--activities", type=int, default=2)
    options = parser.parse_args()
    print("KiB per suspended instance, and MiB of all")
    print(f"{'instances':>9} {'':>31} {'objects':>9} {'process':>9} {'process':>13}")
    for count in options.instances:
        for title, kind, workflow in LINES:
            objects = in_process(kind, workflow, count, options.activities, trace=True)
            process = in_process(kind, workflow, count, options.activities, trace=False)
            total = process * count / 1024
            print(f"{count:>9} {title:>31} {objects:6.2f} KiB {process:6.2f} KiB {total:9.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
