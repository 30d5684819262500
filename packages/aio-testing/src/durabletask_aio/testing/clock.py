"""The two clocks an engine can run on: `SystemClock`, the machine's, and `VirtualClock`, which is moved by hand.

Both tell the time and run callbacks at a given time, and both keep the callbacks in one heap.  The system clock serves
every timer of an engine with one thread; upstream's in-memory backend starts a thread for each timer, so that two
hundred sleeping workflows are two hundred sleeping threads.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Protocol

_logger = logging.getLogger("durabletask.aio.testing")

_MAX_WAIT = 3600.0
"""Longest single wait of the timer thread in seconds, so that it notices a changed wall clock after a suspend."""


class Clock(Protocol):
    """The time source and scheduler of an engine.  All datetimes are aware and in UTC."""

    def now(self) -> datetime:
        """Return the current time."""
        ...

    def call_at(self, when: datetime, callback: Callable[[], None]) -> None:
        """Run `callback` once `now() >= when`; callbacks of equal times run in the order of their registration."""
        ...

    def clear(self) -> None:
        """Drop every callback that has not run yet."""
        ...


class _CallbackQueue:
    """Callbacks ordered by due time, first in, first out among equal times."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, Callable[[], None]]] = []
        self._added = 0

    def add(self, when: datetime, callback: Callable[[], None]) -> None:
        self._added += 1
        heapq.heappush(self._heap, (when, self._added, callback))

    def next_due(self) -> datetime | None:
        return self._heap[0][0] if self._heap else None

    def pop(self) -> Callable[[], None]:
        return heapq.heappop(self._heap)[2]

    def clear(self) -> None:
        self._heap.clear()


class SystemClock:
    """The machine's clock, with a single daemon thread that runs due callbacks.

    The thread exists between `start` and `stop`.  Callbacks that become due while the clock is stopped run at the next
    start: an engine that is stopped and started again loses no timer.
    """

    def __init__(self) -> None:
        self._callbacks = _CallbackQueue()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def call_at(self, when: datetime, callback: Callable[[], None]) -> None:
        with self._changed:
            self._callbacks.add(when, callback)
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._callbacks.clear()

    def start(self) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="durabletask-aio-timers", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _serve(self) -> None:
        while True:
            with self._changed:
                if self._thread is not threading.current_thread():
                    return
                due = self._callbacks.next_due()
                wait = _MAX_WAIT if due is None else (due - self.now()).total_seconds()
                if wait > 0:
                    self._changed.wait(min(wait, _MAX_WAIT))
                    continue
                callback = self._callbacks.pop()
            # Without the condition's lock: a callback takes the engine's lock, whose holders call call_at.
            try:
                callback()
            except Exception:
                _logger.exception("A timer of the local engine failed")


class VirtualClock:
    """A clock that changes only in `advance_to`.

    Not thread-safe: due callbacks run in the caller of `advance_to`.
    """

    def __init__(self, start: datetime) -> None:
        self._callbacks = _CallbackQueue()
        self._now = start.astimezone(timezone.utc)

    def now(self) -> datetime:
        return self._now

    def call_at(self, when: datetime, callback: Callable[[], None]) -> None:
        self._callbacks.add(when, callback)

    def clear(self) -> None:
        self._callbacks.clear()

    def next_due(self) -> datetime | None:
        """Return the time of the next callback, `None` if there is none; a past time means that it is due now."""
        return self._callbacks.next_due()

    def advance_to(self, when: datetime) -> bool:
        """Move to `when`, or to the first callback before it, and run that one callback.

        One callback per call, because it may schedule another that is due before the next one.

        Returns:
            Whether a callback ran; if not, the time is now `when`.
        """
        due = self._callbacks.next_due()
        if due is None or due > when:
            self._now = max(self._now, when)
            return False
        self._now = max(self._now, due)
        self._callbacks.pop()()
        return True
