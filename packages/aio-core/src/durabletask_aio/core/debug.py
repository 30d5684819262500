"""Looking into a workflow: where its tasks wait, and what it did so far."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import logging
import traceback
from collections.abc import Callable, Coroutine, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from durabletask_aio.core import _interpreter
from durabletask_aio.core.operations import Operation

if TYPE_CHECKING:
    from durabletask_aio.core.loop import WorkflowLoop

AWAITABLES: tuple[type[Any], ...] = (asyncio.Future, Coroutine)
"""What a forgotten ``await`` leaves behind, for :func:`isinstance`."""

logger = logging.getLogger("durabletask.aio")


def where(task: asyncio.Task[Any]) -> str:
    """``file:line in function`` of the innermost line of user code that ``task`` is at."""
    return place_of(task.get_coro())


def place_of(coroutine: Any) -> str:
    """``file:line in function`` of the innermost line of user code that ``coroutine`` is suspended at."""
    user: FrameType | None = None
    last: FrameType | None = None
    for awaitable in _interpreter.await_chain(coroutine):
        last = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        if last is not None and _is_user_code(last):
            user = last
    if user is not None:
        return f"{user.f_code.co_filename}:{user.f_lineno} in {user.f_code.co_name}"
    # A task made for an operation, as by TaskGroup.create_task(ctx.call_activity(...)), has no line of the user's own.
    future = None if last is None else last.f_locals.get("future")
    return future.describe() if isinstance(future, Operation) else "an unknown line"


def _is_user_code(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__", "")
    return not module.startswith("durabletask_aio.") and module != "asyncio" and not module.startswith("asyncio.")


def user_frames(error: BaseException) -> list[str]:
    """``file:line in function`` of the user's lines that ``error`` came through, outermost first."""
    return [
        f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _is_user_code(frame)
    ]


class _Innocent:
    """Stands for a value with which nothing seems to be wrong."""


INNOCENT = _Innocent()


class Culprit(NamedTuple):
    """What in a value cannot be serialised: the way there, as ``input['orders'][2].due``, and what it is."""

    path: str
    value: Any
    reason: str = ""
    right: str = ""

    @property
    def wrong(self) -> str:
        """It, as an expression."""
        return f"{type(self.value).__name__}(...)"


SERIALIZABLE = "dicts, lists, strings, numbers, dataclasses, or whatever the worker's data converter takes"
"""What can be serialised, for messages."""

_INSTEAD: dict[str, str] = {
    "datetime": "value.isoformat()",
    "date": "value.isoformat()",
    "time": "value.isoformat()",
    "timedelta": "value.total_seconds()",
    "set": "sorted(value)",
    "frozenset": "sorted(value)",
    "UUID": "str(value)",
    "Decimal": "str(value)",
    "bytes": "value.hex()",
    "generator": "list(value)",
}
"""By type, what people send in its place.  (A set in another order would be another input on each replay.)"""


def culprit(value: Any, path: str, serialize: Callable[[Any], object], around: tuple[Any, ...] = ()) -> Culprit:
    """What in ``value`` cannot be serialised; :data:`INNOCENT` if it can be."""
    try:
        serialize(value)
    except (TypeError, ValueError, RecursionError):
        pass
    else:
        return Culprit(path, INNOCENT)
    if any(value is outer for outer in around):
        return Culprit(path, value, "it contains itself")
    if len(around) < _DEPTH:
        for step, part in _parts(value):
            found = culprit(part, f"{path}{step}", serialize, (*around, value))
            if found.value is not INNOCENT:
                return found
    kind = type(value).__name__
    keys = list(cast("dict[object, object]", value)) if isinstance(value, dict) else []
    odd = next((key for key in keys if not isinstance(key, str | int | float | None)), INNOCENT)
    if odd is not INNOCENT:
        return Culprit(path, value, f"it has a key of type {type(odd).__name__!r}", "{str(key): ...}")
    return Culprit(path, value, f"its type is {kind!r}", _INSTEAD.get(kind, ""))


_DEPTH = 10


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    """The parts of a value, each with the step that leads to it."""
    if isinstance(value, dict):
        items = cast("dict[object, object]", value)
        return [(f"[{key!r}]", part) for key, part in items.items()]
    if isinstance(value, list | tuple):
        several = cast("list[Any]", value)
        return [(f"[{index}]", part) for index, part in enumerate(several)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return [(f".{name}", getattr(value, name)) for name in names if hasattr(value, name)]
    return ()


def discard(value: Any) -> None:
    """Close ``value`` if it is a coroutine: or Python complains, on top of our error, that it was never awaited."""
    if inspect.iscoroutine(value):
        value.close()


def call_of(value: Any) -> str:
    """The call that made an un-awaited value, as its author may have written it."""
    return value.call if isinstance(value, Operation) else "work()"


def describe_awaitable(value: Any) -> str:
    """An un-awaited value as its author knows it."""
    if isinstance(value, Operation):
        return value.describe()
    if inspect.iscoroutine(value):
        return f"a coroutine, {value.__qualname__}(...),"
    if isinstance(value, asyncio.Task):
        return f"task {value.get_name()!r}"
    return f"a {type(value).__name__}"


class OperationHistory:
    """Keeps, in debug mode, every operation of an execution in the order it was scheduled."""

    def __init__(self, loop: WorkflowLoop) -> None:
        self._loop = loop
        self._operations: list[Operation[Any]] = []

    def add(self, operation: Operation[Any]) -> None:
        self._operations.append(operation)
        self._loop.host.logger.debug("scheduled %s", operation.describe())

    def as_data(self) -> list[dict[str, Any]]:
        """One JSON-serialisable mapping an operation: replay-stable facts only."""
        return [_facts(number, operation) for number, operation in enumerate(self._operations, 1)]


def _facts(number: int, operation: Operation[Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "sequence": number,
        "step": operation.step,
        "kind": operation.kind,
        "name": operation.name,
        "state": "pending",
        "outcome": None,
    }
    if operation.cancelled():
        facts["state"] = "cancelled"
    elif operation.done():
        error = operation.exception()
        facts["state"] = "completed" if error is None else "failed"
        facts["outcome"] = None if error is None else str(getattr(error, "message", error))
    return facts
