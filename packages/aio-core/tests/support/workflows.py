"""Small helpers for tests that run one workflow and look at one thing."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from durabletask.aio import as_orchestrator
from durabletask.internal import orchestrator_service_pb2 as pb
from turns import Instance

HERE = "# <-"


def started(function: Callable[..., Any], input: Any = None, **options: Any) -> Instance:
    """An instance of the async workflow `function` after its first turn."""
    return Instance(as_orchestrator(function), input, **options).start()


def finished(
    function: Callable[..., Any],
    input: Any = None,
    activities: dict[str, Callable[[Any], Any]] | None = None,
    *,
    events: Any = (),
    **options: Any,
) -> Instance:
    """An instance of the async workflow `function` after its last turn; unknown activities return their input."""
    return Instance(as_orchestrator(function), input, **options).run(activities, events=events)


def result_of(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What the async workflow `function` returns."""
    return finished(function, *args, **options).result


def failure_of(function: Callable[..., Any], *args: Any, **options: Any) -> pb.TaskFailureDetails:
    """How the async workflow `function` fails."""
    return finished(function, *args, **options).failure


def line_in(function: Callable[..., Any], marker: str = HERE) -> str:
    """`file:line` of the line of `function` that carries `marker`."""
    lines, first = inspect.getsourcelines(function)
    numbers = [first + offset for offset, line in enumerate(lines) if marker in line]
    assert len(numbers) == 1, f"{len(numbers)} lines of {function.__name__} carry {marker!r}"
    return f"{inspect.getsourcefile(function)}:{numbers[0]}"


def boom(_: Any) -> Any:
    """An activity that fails."""
    raise ValueError("boom")
