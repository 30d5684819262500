"""A worker to be killed.  Arguments: the engine's address, a directory for marks; HANG names where to hang."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path

from durabletask.entities import EntityContext
from durabletask.task import ActivityContext, OrchestrationContext
from durabletask.worker import TaskHubGrpcWorker

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


def counter(context: EntityContext, amount: int) -> int:
    passing("entity")
    total = context.get_state(int, 0) + amount
    context.set_state(total)
    return total


if __name__ == "__main__":
    logging.getLogger("durabletask-worker").setLevel(logging.ERROR)
    worker = TaskHubGrpcWorker(host_address=ADDRESS)
    worker.add_orchestrator(orchestrator)
    worker.add_activity(prepare)
    worker.add_entity(counter)
    worker.start()
    threading.Event().wait()
