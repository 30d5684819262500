"""The two clocks an engine can run on: the machine's, and one that is moved by hand.

Both answer two questions, what time is it and call me at that time, and both keep what was asked for in one heap.
On the machine's clock **one** thread serves every timer of an engine; a thread per timer, which is what upstream's
in-memory backend does, makes two hundred sleeping workflows two hundred sleeping threads.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Protocol

_logger = logging.getLogger("durabletask.aio.testing")

_LONGEST_WAIT = 3600.0
"""Seconds the timer thread sleeps at most, so that a machine that was suspended catches up with its wall clock."""


class Clock(Protocol):
    """What an engine needs of time.  All datetimes are aware and in UTC."""

    def now(self) -> datetime: ...

    def call_at(self, when: datetime, callback: Callable[[], None]) -> None:
        """Run ``callback`` once ``now() >= when``; equal times run in the order in which they were asked for."""
        ...

    def clear(self) -> None:
        """Forget every callback that has not run yet."""
        ...


class _Agenda:
    """Callbacks by due time, first come first served among equals."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, Callable[[], None]]] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._heap)

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
    """The machine's clock, with a single daemon thread that runs what is due.

    The thread lives between :meth:`start` and :meth:`stop`.  What is due while it is stopped runs at the next start:
    an engine that is stopped and started again has lost no timer.
    """

    def __init__(self) -> None:
        self._agenda = _Agenda()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def call_at(self, when: datetime, callback: Callable[[], None]) -> None:
        with self._changed:
            self._agenda.add(when, callback)
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._agenda.clear()

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
                due = self._agenda.next_due()
                wait = _LONGEST_WAIT if due is None else (due - self.now()).total_seconds()
                if wait > 0:
                    self._changed.wait(min(wait, _LONGEST_WAIT))
                    continue
                callback = self._agenda.pop()
            # Outside the condition: a callback takes the engine's lock, and holders of that lock call call_at.
            try:
                callback()
            except Exception:
                _logger.exception("A timer of the local engine failed")


class VirtualClock:
    """A clock that stands still until it is told to move.  Not thread-safe: whoever moves it runs what is due."""

    def __init__(self, start: datetime) -> None:
        self._agenda = _Agenda()
        self._now = start.astimezone(timezone.utc)

    def now(self) -> datetime:
        return self._now

    def call_at(self, when: datetime, callback: Callable[[], None]) -> None:
        self._agenda.add(when, callback)

    def clear(self) -> None:
        self._agenda.clear()

    def next_due(self) -> datetime | None:
        """When the next callback is due, or ``None``; a time in the past means that it is due now."""
        return self._agenda.next_due()

    def advance_to(self, when: datetime) -> bool:
        """Move to ``when``, or to the first callback before it, and run that one callback.

        Returns whether a callback ran.  One at a time, because what a callback sets in motion may ask for something
        earlier than the next one.
        """
        due = self._agenda.next_due()
        if due is None or due > when:
            self._now = max(self._now, when)
            return False
        self._now = max(self._now, due)
        self._agenda.pop()()
        return True

    def advance(self, delta: timedelta) -> bool:
        return self.advance_to(self._now + delta)
