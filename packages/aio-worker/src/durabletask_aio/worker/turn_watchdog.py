"""`TurnWatchdog`: a thread of each running worker that warns of slow turns and has idle sessions evicted."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging


@dataclass
class _RunningTurn:
    instance_id: str
    workflow_name: str
    filename: str | None
    since: float
    warned: bool = False


class TurnWatchdog:
    """Warns of slow turns, and calls `evict_idle` (which evicts idle sessions), at a regular interval.

    It is a thread and not a timer on upstream's loop or on that of async activities, because upstream blocks its loop
    while it connects, and activities are user code, which may block theirs.
    """

    def __init__(self, logger: logging.Logger, slow_after: float | None, interval: float) -> None:
        self._logger = logger
        self._slow_after = slow_after
        self._interval = min(interval, slow_after / 2 if slow_after else interval)
        self._turns: dict[int, _RunningTurn] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, evict_idle: Callable[[], None]) -> None:
        """Start the daemon thread."""
        self._stopping.clear()
        self._thread = threading.Thread(
            target=self._watch, args=(evict_idle,), name="durabletask-aio-watch", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait for its end."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    @contextmanager
    def turn(self, instance_id: str, workflow_name: str, filename: str | None) -> Iterator[None]:
        """Watch the turn that this thread is about to execute."""
        if self._slow_after is None:
            yield
            return
        thread_id = threading.get_ident()
        self._turns[thread_id] = _RunningTurn(instance_id, workflow_name, filename, time.monotonic())
        try:
            yield
        finally:
            self._turns.pop(thread_id, None)

    def _watch(self, evict_idle: Callable[[], None]) -> None:
        while not self._stopping.wait(self._interval):
            self.check()
            evict_idle()

    def check(self) -> None:
        """Warn, once each, of turns that have run for too long."""
        if self._slow_after is None:
            return
        now = time.monotonic()
        for thread_id, turn in list(self._turns.items()):
            if turn.warned or now - turn.since < self._slow_after:
                continue
            turn.warned = True
            self._logger.warning(
                "%s: a turn of orchestrator %s has been running for %.1f s and is at %s; workflow code must not block "
                "or compute for long: do that in an activity. ctx.now() does not change within a turn, so a loop that "
                "compares it never ends: wait with 'await ctx.sleep(seconds)'",
                turn.instance_id,
                turn.workflow_name,
                now - turn.since,
                _line_of(thread_id, turn.filename),
            )


def _line_of(thread_id: int, filename: str | None) -> str:
    """Return the innermost line of `filename` that the thread is on, or else its innermost line."""
    # Documented, in spite of the underscore, as the way to read the stack of another thread.
    innermost = frame = sys._current_frames().get(thread_id)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    while frame is not None and frame.f_code.co_filename != filename:
        frame = frame.f_back
    found: FrameType | None = frame or innermost
    if found is None:
        return "an unknown line"
    return f"{found.f_code.co_filename}:{found.f_lineno} in {found.f_code.co_name}"
