"""`Interruption`: ends the code of one turn from another thread, and nothing but that code.

The exception is raised in the thread of the turn (`_interpreter.raise_in_thread`) while the executor runs there.  It is
set by the watchdog's thread under a lock, under which the thread of the turn ends the period in which that is allowed.
What is still pending then is cancelled, so it can reach neither the worker's own code nor the next turn.

What the interrupted code does with the exception has no effect: the history does not have it, so a replay would do
something else.  The turn fails in any case.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from durabletask_aio.worker import _interpreter

T = TypeVar("T")


class TurnInterrupted(BaseException):
    """Raised in the code of a turn that has run for too long.

    No `Exception`, because workflow code catches those.
    """


class Interruption:
    """The code of one turn, which another thread can interrupt."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread_id: int | None = None
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
            self._begin()
            outcome = function()
        except BaseException as raised:
            error = raised
        while True:
            # The exception can be raised in here as well.  Calling `_end` twice does nothing.
            try:
                self._end()
                break
            except TurnInterrupted:
                continue
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

        Returns:
            Whether it will be interrupted, at the latest when it returns to Python code; `False` if it does not run.
        """
        with self._lock:
            if self._thread_id is None or not _interpreter.raise_in_thread(self._thread_id, TurnInterrupted):
                return False
            self._is_requested = True
            return True

    def _begin(self) -> None:
        with self._lock:
            self._thread_id = threading.get_ident()

    def _end(self) -> None:
        with self._lock:
            self._thread_id = None
        if self._is_requested:
            _interpreter.cancel_raise_in_thread(threading.get_ident())
