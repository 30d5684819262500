"""The adapter to CPython: the stack of another thread, and an exception that is raised in one.

Both are CPython's own, and documented there.  Where they do not exist, turns are not interrupted.
"""

# ruff: noqa: SLF001 - the module exists to touch these names
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import sys
import threading
from _thread import LockType
from types import FrameType

get_running_loop = asyncio._get_running_loop
set_running_loop = asyncio._set_running_loop


def frame_of(thread_id: int) -> FrameType | None:
    """Return the innermost Python frame of a thread; `None` if it has ended."""
    return sys._current_frames().get(thread_id)


class _Cleared(BaseException):
    """Raised and caught in `raise_in_thread` only."""


def raise_in_thread(thread_id: int, error: type[BaseException], *, until: LockType, timeout: float) -> bool:
    """Raise an exception in a thread that executes Python code, and wait for it.

    A thread that executes a call in C, or waits for a lock, cannot be interrupted: then the exception is withdrawn.

    Up to CPython 3.12, all threads are told that an exception is pending for one of them, and remain so after it has
    been withdrawn, until one is raised in any thread.  That makes them slower.  In CPython 3.11, a thread with a trace
    function (that of a debugger or of coverage) cannot even call a Python function meanwhile.  Hence the timeout, the
    exception that clears this state at the end, and the rule that nothing in between calls a Python function.

    Args:
        thread_id: The thread.
        error: The class of the exception.
        until: A lock that is released when there is nothing left to interrupt, and taken here.
        timeout: Seconds to wait for the lock.

    Returns:
        Whether the exception may have been raised; `False` if the thread has ended, or if the interpreter cannot do it.
    """
    import ctypes

    set_exception = getattr(getattr(ctypes, "pythonapi", None), "PyThreadState_SetAsyncExc", None)
    if set_exception is None:
        return False
    thread, own = ctypes.c_ulong(thread_id), ctypes.c_ulong(threading.get_ident())
    raised, cleared = ctypes.py_object(error), ctypes.py_object(_Cleared)
    if not set_exception(thread, raised):
        return False
    until.acquire(True, timeout)
    set_exception(thread, None)
    try:
        while set_exception(own, cleared):  # again, if a trace function or a finalizer swallowed it
            pass
    except _Cleared:
        pass
    return True
