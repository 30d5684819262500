"""What the code of a suspended instance waits for, and where: for tools that show it to people.

The engine knows the operations that are outstanding.  Only the code knows which of them it waits for, at which line,
and the names of external events.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from durabletask_aio.core import _interpreter, _upstream
from durabletask_aio.core.call_sites import is_user_code
from durabletask_aio.core.cancellation import CANCEL_EVENT
from durabletask_aio.core.driver import WorkflowRun
from durabletask_aio.core.operations import EVENT, ScheduledOperation

_MAX_PARTS = 5
"""Awaitables that are named of those that a task gathers."""


@dataclass(frozen=True)
class Wait:
    """A place at which the code of an instance waits.

    Attributes:
        what: what it waits for, such as `external event 'approval'`.
        event: the name of the external event, empty for anything else.  Of a generator's it is in lower case.
        task: the name of the task, empty for a generator and for an event that no task awaits by itself.
        frames: the lines of user code that lead there, outermost first; empty if there are none.
    """

    what: str
    event: str
    task: str
    frames: Sequence[traceback.FrameSummary]


def waits(context: Any, runs: Sequence[WorkflowRun]) -> list[Wait]:
    """Describe what an instance waits for, between two turns.

    Args:
        context: upstream's context of the instance.
        runs: what its turns have started; empty for a generator.

    Returns:
        One for each task in the order of their creation, the main task first, and one for each further external event,
        such as those of a `gather`.
    """
    found: list[Wait] = []
    awaited: set[int] = set()
    for run in runs:
        for task in run.loop.tasks:
            future = _interpreter.awaited_future(task)
            awaited.add(id(future))
            found.append(Wait(_what(future), _event(future), task.get_name(), _frames(task.get_coro())))
    if not runs:
        found += _wait_of_generator(context)
    shown = {wait.event.casefold() for wait in found if wait.event}
    for name, listeners in _upstream.event_waits(context):
        if name == CANCEL_EVENT:
            continue  # every instance waits for it, and no code of a user does
        operations: list[Any] = [each for each in listeners if isinstance(each, ScheduledOperation)]
        if not operations and name not in shown:
            found.append(Wait(f"{EVENT} {name!r}", name, "", ()))
        found += [
            Wait(_what(each), _event(each), "", (each.frame_summary,)) for each in operations if id(each) not in awaited
        ]
    return found


def _wait_of_generator(context: Any) -> Iterator[Wait]:
    generator = _upstream.generator_of(context)
    frames = () if generator is None else _frames(generator)
    if frames:
        kind, event = _upstream.describe_yielded(context)
        yield Wait(f"{EVENT} {event!r}" if event else kind, event, "", frames)


def _frames(coroutine: Any) -> Sequence[traceback.FrameSummary]:
    frames: list[tuple[FrameType, int]] = []
    for awaitable in _interpreter.await_chain(coroutine):
        frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        if frame is not None and is_user_code(frame):
            frames.append((frame, frame.f_lineno))
    return tuple(traceback.StackSummary.extract(iter(frames)))


def _event(future: Any) -> str:
    return future.name if isinstance(future, ScheduledOperation) and future.kind == EVENT else ""


def _what(future: Any) -> str:
    if isinstance(future, ScheduledOperation):
        return f"{future.kind} {future.name!r}" if future.is_named else f"ctx.{future.kind} of {future.name}"
    if isinstance(future, asyncio.Task):
        return f"task {future.get_name()!r}"
    parts = [part for part in _interpreter.gathered(future) if not part.done()]
    if not parts:
        return "its other tasks, or a queue, lock or event of asyncio"
    more = len(parts) - _MAX_PARTS
    named = [_what(part) for part in parts[:_MAX_PARTS]]
    return f"gather of {', '.join(named)}{f' and {more} more' if more > 0 else ''}"
