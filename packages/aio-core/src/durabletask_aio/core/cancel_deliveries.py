"""`CancelDeliveries`: keeps a cancel scope of anyio from keeping a turn busy.

anyio repeats a cancellation in every round of the event loop until the tasks have left the scope, by a callback that
schedules itself again.  A task that still waits inside of the scope, such as one that leaves an `asyncio.TaskGroup`
whose children clean up, costs other loops CPU time.  The turn of a workflow would never end, so what the task waits for
would never come.

After `MAX_IDLE_ROUNDS` rounds in which the deliveries changed nothing, they are parked until the next event.
"""

# ruff: noqa: SLF001 - a handle keeps what it runs in private slots, which every event loop reads
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from durabletask_aio.core import _compat_anyio, _upstream

if TYPE_CHECKING:
    from durabletask_aio.core.loop import WorkflowLoop

MAX_IDLE_ROUNDS = 100
"""Enough for code that catches a few cancellations before it leaves the scope; a round takes some microseconds."""


class CancelDeliveries:
    """Watches the deliveries of one loop, from the first one that cancels a task until none is ready any more."""

    def __init__(self, loop: WorkflowLoop, append: Callable[[Callable[[], None]], object]) -> None:
        """Create the watch of a loop.

        Args:
            loop: the loop.
            append: appends a callback to the ready queue.
        """
        self._loop = loop
        self._append = append
        self._is_watching = False
        self._idle_rounds = 0
        self._progress: tuple[int, ...] = ()
        self.parked: list[asyncio.Handle] = []
        """The deliveries that wait for the next event."""

    def delivered(self) -> None:
        """Take note that a delivery cancels a task."""
        if not self._is_watching:
            self._is_watching = True
            self._idle_rounds = 0
            self._append(self._end_round)

    def resume(self, ready: deque[asyncio.Handle]) -> None:
        """Make the parked deliveries ready again, before all that is ready."""
        ready.extendleft(reversed(self.parked))
        self.parked.clear()

    def _end_round(self) -> None:
        loop = self._loop
        ready = loop.ready
        deliveries = [handle for handle in ready if _compat_anyio.is_delivery(handle._callback)]  # type: ignore[attr-defined]
        progress = (_upstream.sequence_number(loop.execution.upstream), loop.outstanding, len(loop.tasks))
        self._idle_rounds = self._idle_rounds + 1 if progress == self._progress else 0
        self._progress = progress
        if self.parked:
            if not self._idle_rounds:  # The tasks that were cancelled last have changed something all the same.
                self.resume(ready)
            elif not ready:
                self._is_watching = False
                return
        elif not deliveries:
            self._is_watching = False
            return
        elif self._idle_rounds >= MAX_IDLE_ROUNDS and loop.outstanding:
            self.parked = deliveries
            others = [handle for handle in ready if handle not in deliveries]
            ready.clear()
            ready.extend(others)
        self._append(self._end_round)
