"""The adapter to CPython: the stack of another thread, and an exception that is raised in one.

Both are CPython's own, and documented there.  Where they do not exist, turns are not interrupted.
"""

# ruff: noqa: SLF001 - the module exists to touch these names
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import sys
from types import FrameType
from typing import Any

get_running_loop = asyncio._get_running_loop
set_running_loop = asyncio._set_running_loop


def frame_of(thread_id: int) -> FrameType | None:
    """Return the innermost Python frame of a thread; `None` if it has ended."""
    return sys._current_frames().get(thread_id)


def raise_in_thread(thread_id: int, error: type[BaseException]) -> bool:
    """Have an exception raised in a thread, as soon as it executes Python code.

    A call that is being executed in C, or that waits for a lock, ends first.

    Args:
        thread_id: The thread, which has at most one exception pending in this way.
        error: The class of the exception.

    Returns:
        Whether it will be raised; `False` if the thread has ended, or if the interpreter has no such function.
    """
    import ctypes

    return _set_async_exc(thread_id, ctypes.py_object(error))


def cancel_raise_in_thread(thread_id: int) -> None:
    """Undo `raise_in_thread`, if the exception has not been raised yet."""
    _set_async_exc(thread_id, None)


def _set_async_exc(thread_id: int, error: Any) -> bool:
    import ctypes

    function = getattr(getattr(ctypes, "pythonapi", None), "PyThreadState_SetAsyncExc", None)
    return function is not None and bool(function(ctypes.c_ulong(thread_id), error))
