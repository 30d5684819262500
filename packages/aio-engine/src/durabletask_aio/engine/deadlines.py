"""Calls functions at given times on one thread: the deadlines of calls that wait in this process."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

_IDLE_SECONDS: Final = 30.0
"""How long the thread stays when there is nothing to wait for."""


class DeadlineTimer:
    """One thread that calls functions at given times; it exists only while it is needed.

    A `threading.Timer` would be a thread for each call that waits.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # Searched for the next one whenever the thread wakes up, which is seldom: most deadlines are never reached.
        self._pending: dict[object, tuple[float, Callable[[], object]]] = {}
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None
        self._closed = False

    def schedule(self, when: float, function: Callable[[], object]) -> Callable[[], object]:
        """Call a function at a time.

        Args:
            when: The time, of `time.monotonic`.
            function: Must be quick and must not raise, since all functions share the thread.

        Returns:
            A function that cancels this.  It takes no lock, so that finalizers may call it.
        """
        key = object()
        with self._changed:
            self._pending[key] = (when, function)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="durabletask-aio-deadlines", daemon=True)
                self._thread.start()
            elif when < self._wakes_at:
                self._changed.notify()
        return partial(self._pending.pop, key, None)

    def close(self) -> None:
        """End the thread once nothing is pending."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while (functions := self._wait()) is not None:
            for function in functions:
                function()

    def _wait(self) -> list[Callable[[], object]] | None:
        """Wait for the next functions that are due; `None` ends the thread."""
        with self._changed:
            while True:
                pending = list(self._pending.items())  # a copy, because cancelling takes no lock
                now = time.monotonic()
                due = [key for key, (when, _) in pending if when <= now]
                if due:
                    found = [self._pending.pop(key, None) for key in due]
                    return [entry[1] for entry in found if entry is not None]
                if not pending and self._closed:
                    self._thread = None
                    return None
                self._wakes_at = min((when for _, (when, _) in pending), default=math.inf)
                notified = self._changed.wait(min(self._wakes_at - now, _IDLE_SECONDS))
                if not notified and not self._pending:
                    self._thread = None
                    return None
