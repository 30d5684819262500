"""What a suspended instance costs in memory, with and without extended sessions.

    python benchmarks/worker_memory.py --instances 1000 10000

Each instance has done two activities, whose history is in its last request, and waits for an event.
"""

from __future__ import annotations

import argparse
import gc
import logging
import tracemalloc
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
from durabletask.internal import helpers

from durabletask_aio.worker.worker import TaskHubGrpcWorker


async def asynchronous(ctx: Any, _: Any) -> None:
    for index in range(2):
        await ctx.call_activity("any", input=index)
    await ctx.wait_for_external_event("go")


def generator(ctx: Any, _: Any) -> Any:
    for index in range(2):
        yield ctx.call_activity("any", input=index)
    yield ctx.wait_for_external_event("go")


class Stub:
    def CompleteOrchestratorTask(self, response: Any) -> None:  # noqa: N802 - the engine's name
        pass


def request(name: str, number: int) -> pb.OrchestratorRequest:
    from datetime import datetime, timezone

    now = datetime.now(timezone.utc)
    instance_id = f"instance-{number}"
    past = [
        helpers.new_orchestrator_started_event(now),
        helpers.new_execution_started_event(name, instance_id, None),
        helpers.new_task_scheduled_event(1, "any"),
        helpers.new_orchestrator_started_event(now),
        helpers.new_task_completed_event(1, "null"),
        helpers.new_task_scheduled_event(2, "any"),
    ]
    new = [helpers.new_orchestrator_started_event(now), helpers.new_task_completed_event(2, "null")]
    return pb.OrchestratorRequest(instanceId=instance_id, pastEvents=past, newEvents=new)


def measure(name: str, count: int, sessions: int) -> float:
    worker = TaskHubGrpcWorker(
        logger=logging.Logger("quiet", level=logging.CRITICAL),  # noqa: LOG001 - not to be found by name
        max_extended_sessions=sessions,
    )
    worker.add_orchestrator(asynchronous)
    worker.add_orchestrator(generator)
    execute: Any = worker._execute_orchestrator
    execute(request(name, -1), Stub(), "token")
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(count):
        execute(request(name, number), Stub(), "token")
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / count / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, nargs="+", default=[1000, 10_000])
    options = parser.parse_args()
    print("KiB of Python memory per suspended instance")
    for count in options.instances:
        for name in ("asynchronous", "generator"):
            kept, dropped = measure(name, count, count + 1), measure(name, count, 0)
            print(f"{count:>7} {name:>13}: {kept:6.2f} with sessions, {dropped:6.2f} without")


if __name__ == "__main__":
    main()
