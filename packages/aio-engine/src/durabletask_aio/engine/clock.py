"""The engine's clocks: the machine's, made fit for durable timers, and a virtual one for tests.

Engine time is microseconds since 1970 and never goes back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

_MICROSECONDS = 1_000_000


class Clock(Protocol):
    """Says what time it is."""

    def now(self) -> int:
        """Return the engine's time."""
        ...


# On Linux the monotonic clock stands still while the machine sleeps, and this one does not.
_BOOT_TIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)

_monotonic_with_suspend: Callable[[], float] = (
    time.monotonic if _BOOT_TIME is None else partial(time.clock_gettime, _BOOT_TIME)
)


class SystemClock:
    """The machine's time, but it never goes back.

    It is the later one of the wall clock, and the last time plus what has passed by the monotonic clock.  So when the
    wall clock is set back, engine time advances at the ordinary speed, and no timer is late.
    """

    def __init__(
        self,
        last: int = 0,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = _monotonic_with_suspend,
    ) -> None:
        """Continue from a time.

        Args:
            last: the last time of the engine's life before.
            wall: the wall clock, in seconds since 1970.
            monotonic: a clock that cannot be set, in seconds.
        """
        self._wall, self._monotonic = wall, monotonic
        self._last, self._at = last, monotonic()

    def now(self) -> int:
        """Return the engine's time."""
        at = self._monotonic()
        passed = int((at - self._at) * _MICROSECONDS)
        now = max(int(self._wall() * _MICROSECONDS), self._last + max(passed, 0))
        if now > self._last:
            self._last, self._at = now, at
        return now


class VirtualClock:
    """A clock that stands still unless it is moved."""

    def __init__(self, start: int) -> None:
        self._now = start

    def now(self) -> int:
        """Return the engine's time."""
        return self._now

    def advance_to(self, when: int) -> None:
        """Move on; to a time that has passed: stay."""
        self._now = max(self._now, when)
