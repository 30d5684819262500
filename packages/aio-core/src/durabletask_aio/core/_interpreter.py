"""The adapter to CPython: names of asyncio and of the interpreter that its documentation does not promise.

Most are the hooks that event loops outside the standard library are built on (uvloop and trio's guest mode use the
same); the rest are frames, by which `asyncio_order` recognises a caller inside of asyncio.
"""

# ruff: noqa: SLF001 - the module exists to touch these names
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import asyncio.tasks
import contextvars
import inspect
import sys
from collections import deque
from collections.abc import Iterator
from types import CoroutineType, FrameType
from typing import Any, cast

get_running_loop = asyncio._get_running_loop
set_running_loop = asyncio._set_running_loop
enter_task = asyncio._enter_task
leave_task = asyncio._leave_task
calling_frame = sys._getframe
"""The frame so many calls up, without the intermediate frames of `inspect.currentframe().f_back`."""


def _generator_started(generator: Any) -> None:
    """Tell the running loop that an asynchronous generator is iterated over for the first time."""
    started = getattr(get_running_loop(), "asyncgen_started", None)
    if started is not None:
        started(generator)


def _leave_generator(generator: Any) -> None:
    """No-op async-generator finalizer: CPython frees the generator without running its `finally` blocks."""


def abandon_async_generators() -> Any:
    """From now on, on this thread, free suspended asynchronous generators without running their `finally` blocks.

    Otherwise these blocks would run at any time, on the thread on which the garbage collector happens to run.  The
    generators of a workflow are kept by its loop, and closed with the instance; see `async_generators`.  A turn scope
    sets the hooks for a whole turn; see `benchmarks/hot_path.py`, `asyncgen_hooks`.

    Returns:
        The previous hooks, for `sys.set_asyncgen_hooks`; `None` if they were these already.
    """
    hooks = sys.get_asyncgen_hooks()
    if hooks.finalizer is _leave_generator and hooks.firstiter is _generator_started:
        return None
    sys.set_asyncgen_hooks(_generator_started, _leave_generator)
    return hooks


def forget_pending(task: asyncio.Task[Any]) -> None:
    """Do not report that `task` was destroyed while pending: its coroutine has been closed."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def mute_exception(future: asyncio.Future[Any]) -> None:
    """Do not report, when `future` is collected, that its exception was never retrieved."""
    # asyncio accepts no other value than False.
    future._log_traceback = False


def has_callbacks(future: asyncio.Future[Any]) -> bool:
    """Whether something waits for `future`, which is not done yet."""
    return bool(future._callbacks)


def is_finalizer_report(context: dict[str, Any]) -> bool:
    """Whether `context`, for the exception handler of a loop, comes from a future or a task that is being freed."""
    message: object = context.get("message")
    return isinstance(message, str) and message.endswith(("exception was never retrieved", "but it is pending!"))


if sys.version_info >= (3, 14):
    # From 3.14 the current task belongs to the thread, not to the loop.  When a workflow is run from within a task of
    # another loop (an in-process test environment, or a garbage collection that closes one run inside another), that
    # task has to be unset first, or entering our own is refused.
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
        """Make `loop` the running loop of this thread; return what `restore_loop` needs to undo it."""
        previous = get_running_loop()
        set_running_loop(loop)
        return previous

    restore_loop = set_running_loop


def close_unstarted(frame: FrameType | None) -> None:
    """Close unstarted coroutines in the frames of asyncio and this package, from `frame` outwards to the user's.

    The call that was to start them was refused; unclosed, each of them warns that it was never awaited.
    """
    while frame is not None and frame.f_globals.get("__name__", "").startswith(("asyncio.", "durabletask_aio.")):
        for value in list(frame.f_locals.values()):
            for each in value if type(value) in (list, tuple, set) else (value,):  # pyright: ignore[reportUnknownVariableType]
                if inspect.iscoroutine(each) and inspect.getcoroutinestate(each) == inspect.CORO_CREATED:
                    each.close()
        frame = frame.f_back


def close_unstarted_of(suspended: Any) -> None:
    """Close the coroutines in the variables of `suspended` that it has not awaited yet.

    It will not await them any more; unclosed, each of them warns that it was never awaited.
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
    """Yield the coroutines and generators that `awaitable` is suspended in, outermost first."""
    while awaitable is not None and (hasattr(awaitable, "cr_await") or hasattr(awaitable, "gi_yieldfrom")):
        yield awaitable
        awaitable = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)


def awaited_future(task: asyncio.Task[Any]) -> Any:
    """Return the future that a suspended `task` waits for, `None` if it can continue."""
    return getattr(task, "_fut_waiter", None)


def gathered(future: Any) -> list[asyncio.Future[Any]]:
    """Return the futures that `asyncio.gather` has made `future` of, none for any other."""
    return list(getattr(future, "_children", ()))


def leak_reference(coroutine: Any) -> None:
    """Leak a reference, so that `coroutine` is never freed, not even when the interpreter ends and clears all modules.

    Freeing a suspended coroutine closes it once more; one that cannot be closed would keep the process from ending.
    """
    try:
        import ctypes
    except ImportError:  # A Python that was built without it.
        return
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(coroutine))


def is_executing(awaitable: Any) -> bool:
    """Whether a coroutine or generator is being executed, in any thread; it cannot be closed then."""
    return bool(getattr(awaitable, "cr_running", False) or getattr(awaitable, "gi_running", False))


def innermost_unfinished(awaitable: Any) -> Any:
    """Return the last of `await_chain` that can still be closed; `None` if all are done."""
    innermost = None
    for link in await_chain(awaitable):
        if getattr(link, "cr_frame", None) is not None or getattr(link, "gi_frame", None) is not None:
            innermost = link
    return innermost


if sys.version_info >= (3, 12):

    def context_of(task: asyncio.Task[Any]) -> contextvars.Context | None:
        """Return the context that `task` runs in."""
        return task.get_context()
else:

    def context_of(task: asyncio.Task[Any]) -> contextvars.Context | None:
        """Return the context that a suspended `task` runs in; `None` if it cannot be found."""
        waiter: Any = getattr(task, "_fut_waiter", None)
        callbacks: list[Any] = getattr(waiter, "_callbacks", None) or []
        for callback, context in callbacks:
            if getattr(callback, "__self__", None) is task:
                found: contextvars.Context = context
                return found
        return None
