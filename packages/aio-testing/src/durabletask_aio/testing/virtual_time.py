"""`VirtualTime`: the clock of an environment, with all that is due on it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from durabletask_aio.engine.clock import VirtualClock
from durabletask_aio.engine.kernel import Kernel

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(when: datetime) -> int:
    """Return an aware time as the engine counts it: microseconds since 1970."""
    return (when - _EPOCH) // _MICROSECOND


def to_datetime(time: int) -> datetime:
    """Return the engine's time as a datetime; aware, UTC."""
    return _EPOCH + timedelta(microseconds=time)


class VirtualTime:
    """Moves the virtual clock, and lets happen what is due: timers of the engine, and callbacks of the test kit.

    At one time, the engine's timers come first: the callbacks are those of activities that sleep.
    """

    def __init__(self, clock: VirtualClock, kernel: Kernel) -> None:
        self._clock = clock
        self._kernel = kernel
        self._callbacks: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def now(self) -> datetime:
        """Return the time; aware, UTC."""
        return to_datetime(self._clock.now())

    def call_at(self, when: datetime, callback: Callable[[], None]) -> Callable[[], None]:
        """Call a function at a time; those of one time are called in the order of registration.

        Returns:
            A function that cancels the call, if it has not happened.
        """
        entry = (to_microseconds(when), next(self._numbers), callback)
        heapq.heappush(self._callbacks, entry)

        def cancel() -> None:
            if entry in self._callbacks:
                self._callbacks.remove(entry)
                heapq.heapify(self._callbacks)

        return cancel

    @property
    def is_anything_due(self) -> bool:
        """Whether anything happens if time passes."""
        return self._next_due() is not None

    def skip(self) -> bool:
        """Move to the next time at which something is due, and let it happen; returns whether there is one."""
        due = self._next_due()
        if due is None:
            return False
        self._clock.advance_to(due)
        self.fire_due()
        return True

    def advance_to(self, when: datetime) -> bool:
        """Move to a time, or to the first one before it at which something is due, and let that happen.

        One time per call, since what happens may make more become due before the next one.

        Returns:
            Whether something was due; if not, it is `when` now.
        """
        due, end = self._next_due(), to_microseconds(when)
        if due is None or due > end:
            self._clock.advance_to(end)
            return False
        self._clock.advance_to(due)
        self.fire_due()
        return True

    def fire_due(self) -> None:
        """Let happen what is due now."""
        while self._kernel.fire_due():
            pass
        while self._callbacks and self._callbacks[0][0] <= self._clock.now():
            heapq.heappop(self._callbacks)[2]()

    def _next_due(self) -> int | None:
        timer = self._kernel.next_due()
        if not self._callbacks:
            return timer
        return self._callbacks[0][0] if timer is None else min(timer, self._callbacks[0][0])
