"""Uses of asyncio whose order would depend on memory addresses, and so differ on replay: recognised and refused.

`asyncio.wait` and `asyncio.as_completed` put what they are given into a set.  Futures and tasks of a workflow's loop
hash deterministically, so the order of such a set is the same on replay; bare coroutines and foreign futures hash by
address.  Nothing but the frames of asyncio tells the loop that it is called from there, hence the look at the caller;
`benchmarks/hot_path.py`, `caller_checks`, measures it.
"""

# ruff: noqa: SLF001 - a handle keeps what it runs in private slots
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import asyncio.queues
import asyncio.tasks
import inspect
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from durabletask_aio.core.errors import NonDeterministicUseError

if TYPE_CHECKING:
    from durabletask_aio.core.execution import Execution

TASKS_GLOBALS: Any = vars(asyncio.tasks)
QUEUES_GLOBALS: Any = vars(asyncio.queues)


def _codes(*names: str) -> dict[int, CodeType]:
    """Return the code objects of these functions of `asyncio.tasks`, by `id`; names that are absent are left out.

    By `id`, because the hash of a code object is computed from all of its instructions each time.
    """
    found: dict[int, CodeType] = {}
    for name in names:
        target: Any = asyncio.tasks
        for part in name.split("."):
            target = getattr(target, part, None)
        code = getattr(target, "__code__", None)
        if code is not None:
            found[id(code)] = code
    return found


_ENSURE_FUTURE = _codes("ensure_future", "_ensure_future")
_WAIT_INNER = _codes("_wait")
_UNORDERED = _codes("wait", "as_completed", "_AsCompletedIterator.__init__")
"""Functions that pass what they are given through a set before they start it."""


def check_new_future(execution: Execution, frame: FrameType, ready: Iterable[asyncio.Handle]) -> None:
    """Refuse foreign futures in `wait` and `as_completed`; called with the frame that asks the loop for a future."""
    names = frame.f_globals
    if names is TASKS_GLOBALS:
        if id(frame.f_code) in _WAIT_INNER:
            _refuse_foreign_futures(execution, "wait", frame.f_locals.get("fs", ()))
    elif names is QUEUES_GLOBALS and _starts_as_completed(frame):
        # What was done when it was given comes in the order of a set; the rest in the order of completion.
        done = [future for future in map(_completed_future, ready) if future is not None]
        if len(done) > 1:
            _refuse_foreign_futures(execution, "as_completed", done)


def check_new_task(execution: Execution, frame: FrameType, coro: Any) -> None:
    """Refuse bare coroutines in `wait` and `as_completed`; called with the frame that asks the loop for a task."""
    if frame.f_globals is not TASKS_GLOBALS or id(frame.f_code) not in _ENSURE_FUTURE:
        return
    function, given = _unordered_caller(frame)
    if function is None:
        return
    shown = f"{coro.__name__}(...)" if inspect.iscoroutine(coro) else "work()"
    for each in (coro, *given):
        if inspect.iscoroutine(each):
            each.close()  # Unclosed, each of them warns that it was never awaited.
    msg = (
        f"asyncio.{function} starts bare coroutines in the order of their memory addresses, which is another one "
        f"on replay\n"
        f"  wrong: asyncio.{function}([{shown}, ...])\n"
        f"  right: asyncio.{function}([asyncio.create_task({shown}), ...])"
    )
    raise execution.error(NonDeterministicUseError, msg)


def _unordered_caller(frame: FrameType | None) -> tuple[str | None, list[Any]]:
    """Return the innermost function of `_UNORDERED` among the asyncio frames that called us, and what it was given."""
    while frame is not None and frame.f_globals is TASKS_GLOBALS:
        if id(frame.f_code) in _UNORDERED:
            given: Any = frame.f_locals.get("aws", frame.f_locals.get("fs"))
            name = "as_completed" if "_AsCompleted" in _qualname(frame.f_code) else frame.f_code.co_name
            return name, [*given] if type(given) in (list, tuple, set) else []
        frame = frame.f_back
    return None, []


def _qualname(code: CodeType) -> str:
    # co_qualname came with 3.11; the only method among _UNORDERED came with 3.13.
    return getattr(code, "co_qualname", code.co_name)


def _starts_as_completed(frame: FrameType) -> bool:
    """Whether `frame` is where `asyncio.as_completed` waits, in its queue, for the very first to be done."""
    waiting = frame.f_back
    return (
        waiting is not None
        and waiting.f_globals is TASKS_GLOBALS
        and waiting.f_code.co_name == "_wait_for_one"
        and not frame.f_locals["self"]._unfinished_tasks
    )


def _completed_future(handle: asyncio.Handle) -> Any:
    """Return the future that `handle` is about to pass to `asyncio.as_completed` as done, or `None`."""
    name = getattr(handle._callback, "__name__", "")  # type: ignore[attr-defined]
    tells = name in ("_on_completion", "_handle_completion")
    return handle._args[0] if tells and len(handle._args) == 1 else None


def _refuse_foreign_futures(execution: Execution, function: str, futures: Any) -> None:
    for future in futures:
        if _hash_of(type(future)) is not _hash_of(asyncio.Future):
            continue
        if type(future) is asyncio.Future:
            given, right = "asyncio.Future()", "asyncio.get_running_loop().create_future()"
        elif isinstance(future, asyncio.Task):
            given, right = "asyncio.Task(work())", "asyncio.create_task(work())"
        else:
            given, right = "asyncio.gather(a, b)", "ctx.gather(a, b)"
        msg = (
            f"asyncio.{function} was given an {given}, which hashes by memory address, so that its sets "
            f"iterate in another order on replay\n"
            f"  wrong: asyncio.{function}([{given}, ...])\n"
            f"  right: asyncio.{function}([{right}, ...])"
        )
        raise execution.error(NonDeterministicUseError, msg)


def _hash_of(kind: Any) -> Any:
    return kind.__hash__
