"""`Interruption`: ends the code of one turn from another thread, and nothing but that code.

The exception is raised in the thread of the turn (`_interpreter.raise_in_thread`) while the executor runs there.  The
watchdog's thread holds a lock meanwhile, and withdraws what has not been raised before it releases the lock.  The
thread of the turn takes the same lock at the end, so an exception reaches neither the worker's own code nor the next
turn.

What the interrupted code does with the exception has no effect: the history does not have it, so a replay would do
something else.  The turn fails in any case.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from durabletask_aio.worker import _interpreter

T = TypeVar("T")

_TIMEOUT = 0.1
"""Seconds that code has to end when it is interrupted, before `request` returns."""


class TurnInterrupted(BaseException):
    """Raised in the code of a turn that has run for too long.

    No `Exception`, because workflow code catches those.
    """


class Interruption:
    """The code of one turn, which another thread can interrupt."""

    def __init__(self) -> None:
        self._requesting = threading.Lock()
        """Held by `request`."""
        self._running = threading.Lock()
        """Held while the code runs."""
        self._thread_id: int | None = None
        """The thread that runs the code; `None` if there is nothing to interrupt."""
        self._is_requested = False

    def run(self, function: Callable[[], T]) -> T:
        """Call `function` in this thread; until it returns, `request` interrupts it.

        Returns:
            Its result.

        Raises:
            TurnInterrupted: If it was interrupted, whatever it made of that.
            BaseException: What it raises otherwise.
        """
        loop = _interpreter.get_running_loop()
        outcome: Any = None
        error: BaseException | None = None
        try:
            try:
                self._running.acquire()
                self._thread_id = threading.get_ident()
                outcome = function()
            finally:
                # A request that has begun can still raise its exception up to the end of this block; no other one can.
                self._thread_id = None
                self._running.release()
                self._wait_for_request()
        except BaseException as raised:
            self._thread_id = None
            error = raised
        # Again, in case that the block above was interrupted.
        if self._running.locked():
            self._running.release()
        self._wait_for_request()
        try:
            if self._is_requested:
                _interpreter.set_running_loop(loop)  # in case that the code that does this was interrupted
                raise TurnInterrupted from None
            if error is not None:
                raise error
            result: T = outcome
            return result
        finally:
            del error  # its traceback refers to this frame

    def request(self) -> bool:
        """Interrupt the code, from another thread.

        Code that executes a call outside of Python, waits for a lock, or catches the exception, continues.  Whenever it
        ends, `run` raises `TurnInterrupted`.

        Returns:
            Whether that is so; `False` if the code does not run, or if the interpreter cannot interrupt it.
        """
        with self._requesting:
            if self._thread_id is None or not _interpreter.raise_in_thread(
                self._thread_id, TurnInterrupted, until=self._running, timeout=_TIMEOUT
            ):
                return False
            self._is_requested = True
            return True

    def _wait_for_request(self) -> None:
        with self._requesting:
            pass
