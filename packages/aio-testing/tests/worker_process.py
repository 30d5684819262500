"""A worker to be killed.  Arguments: the engine's address, a directory for marks; HANG names where to hang."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.worker import TaskHubGrpcWorker
from durabletask.entities import EntityContext
from durabletask.task import ActivityContext, OrchestrationContext

ADDRESS, SCRATCH = sys.argv[1], Path(sys.argv[2])
HANG = os.environ["HANG"]
_writing = threading.Lock()


def passing(place: str) -> None:
    with _writing, (SCRATCH / f"{place}.log").open("a") as log:
        log.write(f"{os.getpid()}\n")
    if place == HANG:
        (SCRATCH / place).touch()
        time.sleep(3600)


def prepare(context: ActivityContext, value: int) -> int:
    passing("activity")
    return value + 1


def orchestrator(context: OrchestrationContext, value: int):
    first = yield context.call_activity(prepare, input=value)
    if not context.is_replaying:
        passing("turn")
    second = yield context.call_activity(prepare, input=first)
    return [second, context.new_uuid()]


async def drawing(ctx: AsyncWorkflowContext, value: int):
    """Draws numbers before, between and after the steps, and hands them to activities, so that they are recorded."""
    drawn = [ctx.random().random(), str(ctx.uuid4())]
    first = await ctx.call_activity(note, input=[value, *drawn])
    if not ctx.is_replaying:
        passing("turn")
    drawn += [ctx.random().random(), str(ctx.uuid4())]
    second = await ctx.call_activity(note, input=[first, *drawn])
    return [second, *drawn]


def note(context: ActivityContext, values: list[Any]) -> int:
    passing("activity")
    return values[0] + 1


def counter(context: EntityContext, amount: int) -> int:
    passing("entity")
    total = context.get_state(int, 0) + amount
    context.set_state(total)
    return total


if __name__ == "__main__":
    logging.getLogger("durabletask-worker").setLevel(logging.ERROR)
    worker = TaskHubGrpcWorker(host_address=ADDRESS)
    worker.add_orchestrator(orchestrator)
    worker.add_orchestrator(drawing)
    worker.add_activity(prepare)
    worker.add_activity(note)
    worker.add_entity(counter)
    worker.start()
    threading.Event().wait()
