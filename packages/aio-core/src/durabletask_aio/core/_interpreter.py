"""Every name of CPython's asyncio that the documentation does not promise, in one place.

Most are the hooks that event loops outside the standard library are built on (uvloop and trio's guest mode use the
same); the rest are the code objects by which the loop recognises a caller inside ``asyncio/tasks.py``.
"""

# ruff: noqa: SLF001 - the module exists to touch these names
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import asyncio.futures
import asyncio.queues
import asyncio.tasks
import contextvars
import inspect
import sys
from collections import deque
from collections.abc import Iterator
from types import CodeType, CoroutineType, FrameType
from typing import Any, cast

__all__ = [
    "abandon_async_generators",
    "await_chain",
    "called_from",
    "calling_frame",
    "close_unstarted",
    "close_unstarted_of",
    "context_of",
    "enter_task",
    "forget_pending",
    "get_running_loop",
    "innermost_unfinished",
    "keep_for_ever",
    "leave_task",
    "mute_exception",
    "restore_loop",
    "set_running_loop",
    "swap_loop",
    "told_by_finalizer",
]

get_running_loop = asyncio._get_running_loop
set_running_loop = asyncio._set_running_loop
enter_task = asyncio._enter_task
leave_task = asyncio._leave_task
calling_frame = sys._getframe
"""The frame so many calls up; ``inspect.currentframe().f_back`` costs several times as much."""

TASKS_GLOBALS: Any = vars(asyncio.tasks)
QUEUES_GLOBALS: Any = vars(asyncio.queues)
WRAP_FUTURE: CodeType = asyncio.wrap_future.__code__


def _codes(*names: str) -> dict[int, CodeType]:
    found: dict[int, CodeType] = {}
    for name in names:
        target: Any = asyncio.tasks
        for part in name.split("."):
            target = getattr(target, part, None)
        code = getattr(target, "__code__", None)
        if code is not None:
            found[id(code)] = code
    return found


# By identity: the hash of a code object goes through all of its instructions, each time.
ENSURE_FUTURE = _codes("ensure_future", "_ensure_future")
WAIT_INNER = _codes("_wait")
UNORDERED = _codes("wait", "as_completed", "_AsCompletedIterator.__init__")
"""Functions that pass what they are given through a set before starting it."""


def called_from(frame: FrameType | None, codes: dict[int, CodeType]) -> tuple[str | None, list[Any]]:
    """The innermost function of ``codes`` among the asyncio frames that called us, and what it was given."""
    while frame is not None and frame.f_globals is TASKS_GLOBALS:
        if id(frame.f_code) in codes:
            given: Any = frame.f_locals.get("aws", frame.f_locals.get("fs"))
            name = "as_completed" if "_AsCompleted" in _qualname(frame.f_code) else frame.f_code.co_name
            return name, [*given] if type(given) in (list, tuple, set) else []
        frame = frame.f_back
    return None, []


def starts_a_race(frame: FrameType) -> bool:
    """Whether ``frame`` is where ``asyncio.as_completed`` waits, in its queue, for the very first to be done."""
    waiting = frame.f_back
    return (
        waiting is not None
        and waiting.f_globals is TASKS_GLOBALS
        and waiting.f_code.co_name == "_wait_for_one"
        and not frame.f_locals["self"]._unfinished_tasks
    )


def finished_the_race(handle: asyncio.Handle) -> Any:
    """The future of which ``handle`` is about to tell ``asyncio.as_completed`` that it is done, if it is."""
    name = getattr(handle._callback, "__name__", "")  # type: ignore[attr-defined]
    tells = name in ("_on_completion", "_handle_completion")
    return handle._args[0] if tells and len(handle._args) == 1 else None


def starts_a_thread(frame: FrameType | None) -> bool:
    """Whether anyio, in ``frame``, looks at the clock because it is making a thread to run something in."""
    if frame is None or frame.f_code.co_name != "current_time" or frame.f_back is None:
        return False
    maker = frame.f_back.f_locals.get("self")
    return type(maker).__name__ == "WorkerThread" and type(maker).__module__.startswith("anyio.")


def goes_through_addresses(frame: FrameType) -> bool:
    """Whether ``frame`` is known to cancel tasks in the order of the addresses of some objects.

    anyio delivers a cancellation to the scopes nested in a scope, which it keeps in a set; each task of its groups has
    one of its own.
    """
    return frame.f_code.co_name == "_deliver_cancellation" and frame.f_globals.get("__name__", "").startswith("anyio.")


GET_LOOP: CodeType | None = getattr(getattr(asyncio.futures, "_get_loop", None), "__code__", None)
_ALL_TASKS: CodeType | None = getattr(asyncio.tasks.all_tasks, "__code__", None)


class _Ordered:
    """The end of a list of tasks that has been put in order; as a task, it is nobody's."""

    def get_loop(self) -> None:
        return None


def skipped_by_all_tasks(task: Any, frame: FrameType | None) -> bool:
    """Whether ``task``, asked for its loop from ``frame``, will be asked again, in its turn.

    Up to 3.13 ``asyncio.all_tasks`` makes its set from a list that iterates one weak set with the tasks of the whole
    process, in an order that depends on all of them.  The order of equal sets differs with the order in which they were
    filled wherever hashes collide; so the first workflow's task to be asked, of whichever loop, has all of them asked
    at the end of the list, and those of one loop in the order of their creation.
    """
    if frame is not None and frame.f_code.co_name == "<setcomp>":  # a function of its own up to 3.11
        frame = frame.f_back
    if frame is None or frame.f_code is not _ALL_TASKS:
        return False
    names = frame.f_locals
    asked: list[Any] = names["scheduled_tasks"] if "scheduled_tasks" in names else names["tasks"]
    if type(asked[-1]) is _Ordered:
        return False
    kind: Any = type(task)  # pyright: ignore[reportUnknownVariableType]
    place = asked.index(task)
    ours = sorted((each for each in asked[place:] if type(each) is kind), key=hash)
    asked[place + 1 :] = [*(each for each in asked[place:] if type(each) is not kind), *ours, _Ordered()]
    return True


def _qualname(code: CodeType) -> str:
    # co_qualname came with 3.11; the only method among UNORDERED came with 3.13.
    return getattr(code, "co_qualname", code.co_name)


def _abandoned(generator: Any) -> None:
    """Nothing."""


def abandon_async_generators() -> Any:
    """From now on, on this thread, asynchronous generators that are left half-way are freed as they are.

    With a finalizer of our own, CPython does so without running their ``finally`` blocks: which would otherwise happen
    whenever the garbage collector likes, on whichever thread.  Returns the hooks there were before, or ``None`` if
    they were these: a turn scope sets them for a whole turn, since each call costs as much as a callback.
    """
    hooks = sys.get_asyncgen_hooks()
    if hooks.finalizer is _abandoned and hooks.firstiter is None:
        return None
    sys.set_asyncgen_hooks(None, _abandoned)
    return hooks


def forget_pending(task: asyncio.Task[Any]) -> None:
    """Keep ``task`` from complaining that it was destroyed while pending: its coroutine has been closed."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def mute_exception(future: asyncio.Future[Any]) -> None:
    """Keep ``future`` from reporting, when it is collected, that nobody retrieved its exception."""
    # Only assignments of False are accepted, which is all that asyncio itself does.
    future._log_traceback = False


def told_by_finalizer(context: dict[str, Any]) -> bool:
    """Whether ``context``, for the exception handler of a loop, comes from a future or a task that is being freed."""
    message: object = context.get("message")
    return isinstance(message, str) and message.endswith(("exception was never retrieved", "but it is pending!"))


if sys.version_info >= (3, 14):
    # From 3.14 the current task belongs to the thread, not to the loop: a workflow that is stepped from within a task
    # of another loop (an in-process test environment, or a collection that closes one run inside another) has to set
    # that task aside, or entering our own is refused.
    _swap_current_task: Any = vars(asyncio.tasks)["_swap_current_task"]

    def swap_loop(loop: asyncio.AbstractEventLoop) -> tuple[Any, Any]:
        previous = get_running_loop()
        set_running_loop(loop)
        return previous, (_swap_current_task(loop, None) if previous is not None else None)

    def restore_loop(saved: tuple[Any, Any]) -> None:
        previous, task = saved
        set_running_loop(previous)
        if task is not None:
            _swap_current_task(previous, task)
else:

    def swap_loop(loop: asyncio.AbstractEventLoop) -> Any:
        """Make ``loop`` the running loop of this thread; returns what :func:`restore_loop` needs to undo it."""
        previous = get_running_loop()
        set_running_loop(loop)
        return previous

    restore_loop = set_running_loop


def close_unstarted(frame: FrameType | None) -> None:
    """Close the coroutines that asyncio and we were given, from ``frame`` outwards to the user's, and never started.

    Or each of them complains that it was never awaited, where it was the call that was refused.
    """
    while frame is not None and frame.f_globals.get("__name__", "").startswith(("asyncio.", "durabletask_aio.")):
        for value in list(frame.f_locals.values()):
            for each in value if type(value) in (list, tuple, set) else (value,):  # pyright: ignore[reportUnknownVariableType]
                if inspect.iscoroutine(each) and inspect.getcoroutinestate(each) == inspect.CORO_CREATED:
                    each.close()
        frame = frame.f_back


def close_unstarted_of(suspended: Any) -> None:
    """Close the coroutines that the code of ``suspended`` has made, and has not come to await.

    It would have; now its variables are freed, and each of them would complain that it was never awaited.
    """
    frame: FrameType | None = getattr(suspended, "cr_frame", None) or getattr(suspended, "gi_frame", None)
    if frame is None:
        return
    for value in list(frame.f_locals.values()):
        kind = type(cast(object, value))
        several: list[Any] = [*(value.values() if kind is dict else value)] if kind in _COLLECTIONS else [value]
        for each in several:
            if _is_unstarted(each):
                each.close()


def _is_unstarted(value: object) -> bool:
    kind: Any = type(value)
    return kind is CoroutineType and inspect.getcoroutinestate(cast(Any, value)) == inspect.CORO_CREATED


_COLLECTIONS = (list, tuple, set, deque, dict)


def await_chain(awaitable: Any) -> Iterator[Any]:
    """The coroutines and generators ``awaitable`` is suspended in, outermost first."""
    while awaitable is not None and (hasattr(awaitable, "cr_await") or hasattr(awaitable, "gi_yieldfrom")):
        yield awaitable
        awaitable = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)


def keep_for_ever(coroutine: Any) -> None:
    """See to it that ``coroutine`` is never freed: not even by the end of the interpreter, which clears every module.

    Freeing a suspended coroutine closes it once more; one that cannot be closed would keep the process from ending.
    """
    try:
        import ctypes
    except ImportError:  # a Python built without it
        return
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(coroutine))


def innermost_unfinished(awaitable: Any) -> Any:
    """The last of :func:`await_chain` that can still be closed; ``None`` if all are done."""
    innermost = None
    for link in await_chain(awaitable):
        if getattr(link, "cr_frame", None) is not None or getattr(link, "gi_frame", None) is not None:
            innermost = link
    return innermost


if sys.version_info >= (3, 12):

    def context_of(task: asyncio.Task[Any]) -> contextvars.Context | None:
        return task.get_context()
else:

    def context_of(task: asyncio.Task[Any]) -> contextvars.Context | None:
        """The context that a suspended ``task`` runs in; ``None`` if it cannot be told."""
        waiter: Any = getattr(task, "_fut_waiter", None)
        callbacks: list[Any] = getattr(waiter, "_callbacks", None) or []
        for callback, context in callbacks:
            if getattr(callback, "__self__", None) is task:
                found: contextvars.Context = context
                return found
        return None
