"""Runs small workflows for the tests of asyncio's surface: to their end, and then again from their own history."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from durabletask.aio import AsyncWorkflowContext, as_orchestrator
from durabletask.internal import orchestrator_service_pb2 as pb
from turns import Instance, replay

Workflow = Callable[[AsyncWorkflowContext], Coroutine[Any, Any, Any]]
ACTIVITIES: dict[str, Callable[[Any], Any]] = {"double": lambda n: n * 2}


def fail(message: Any) -> Any:
    """The activity that fails."""
    raise ValueError(message)


ACTIVITIES["fail"] = fail


def complete(
    workflow: Workflow,
    *,
    events: Sequence[tuple[float, str, Any]] = (),
    seed: int | None = None,
    activities: dict[str, Callable[[Any], Any]] | None = None,
    batch: int = 1,
) -> Instance:
    """Run `workflow` until nothing is outstanding; then replay it, cut after every turn, and compare the actions."""
    instance = Instance(as_orchestrator(workflow))
    instance.run(activities or ACTIVITIES, events=events, seed=seed, batch=batch)
    replay(instance)
    return instance


def result_of(workflow: Workflow, **options: Any) -> Any:
    """What `workflow` returns, having been replayed as well."""
    return complete(workflow, **options).result


def failure_of(workflow: Workflow, **options: Any) -> pb.TaskFailureDetails:
    """How `workflow` fails, having been replayed as well."""
    return complete(workflow, **options).failure


def seconds() -> float:
    """Workflow time since the start, to the tenth of a second: what the turns take on top is milliseconds."""
    return round(asyncio.get_running_loop().time(), 1)


def kinds(actions: Sequence[pb.OrchestratorAction]) -> list[str]:
    """The types of some actions, by the names of the protocol."""
    return [str(action.WhichOneof("orchestratorActionType")) for action in actions]


@contextmanager
def records_of(logger: str) -> Iterator[list[str]]:
    """Collect the messages that `logger` receives at warning level or above, whatever its own level is."""
    messages: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Handler(logging.WARNING)
    found = logging.getLogger(logger)
    level = found.level
    found.setLevel(logging.WARNING)  # by its method, which clears what loggers have cached
    found.addHandler(handler)
    try:
        yield messages
    finally:
        found.removeHandler(handler)
        found.setLevel(level)
