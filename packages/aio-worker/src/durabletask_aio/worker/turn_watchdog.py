"""`TurnWatchdog`: a thread of each running worker that looks after slow turns, and has idle sessions evicted."""

from __future__ import annotations

import linecache
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING

from durabletask_aio.worker import _interpreter
from durabletask_aio.worker.interruption import Interruption

if TYPE_CHECKING:
    import logging

INTERRUPTION_INTERVAL = 1.0
"""Seconds after which a turn that was interrupted, and still runs, is interrupted again."""


@dataclass
class RunningTurn:
    """A turn that a thread executes."""

    thread_id: int
    instance_id: str
    workflow_name: str
    filename: str | None
    """The file of the workflow function."""
    since: float
    interruption: Interruption = field(default_factory=Interruption)
    place: str = ""
    """Where it was when it was interrupted, as `file:line in function`; empty if it was not."""
    stack: str = ""
    """Its stack at that time."""
    warned: bool = False
    next_interruption: float = 0.0
    is_left: bool = False
    """Whether a worker that has stopped has left it behind: it has no result."""
    is_reported: bool = False
    """Whether it has been logged that interrupting it has no effect."""


class TurnWatchdog:
    """Looks after turns, and calls `evict_idle` (which evicts idle sessions), at a regular interval.

    It is a thread and not a timer on upstream's loop or on that of async activities, because upstream blocks its loop
    while it connects, and activities are user code, which may block theirs.

    Args:
        logger: The worker's logger.
        slow_after: Seconds after which a turn is warned of; `None` for never.
        timeout: Seconds after which a turn is interrupted; `None` for never.
        interval: Seconds between two checks, at most.
    """

    def __init__(
        self, logger: logging.Logger, slow_after: float | None, timeout: float | None, interval: float
    ) -> None:
        self._logger = logger
        self._slow_after = slow_after
        self.timeout = timeout
        self._interval = min(interval, *(limit / 2 for limit in (slow_after, timeout) if limit), INTERRUPTION_INTERVAL)
        self._turns: dict[int, RunningTurn] = {}
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
    def turn(self, instance_id: str, workflow_name: str, filename: str | None) -> Iterator[RunningTurn]:
        """Watch the turn that this thread is about to execute."""
        thread_id = threading.get_ident()
        running = RunningTurn(thread_id, instance_id, workflow_name, filename, time.monotonic())
        self._turns[thread_id] = running
        try:
            yield running
        finally:
            self._turns.pop(thread_id, None)

    def _watch(self, evict_idle: Callable[[], None]) -> None:
        while not self._stopping.wait(self._interval):
            self.check()
            evict_idle()

    def check(self) -> None:
        """Warn, once each, of turns that have run for too long, and interrupt those that have run even longer."""
        now = time.monotonic()
        for turn in list(self._turns.values()):
            if turn.is_left:
                continue
            duration = now - turn.since
            if self._slow_after is not None and duration >= self._slow_after and not turn.warned:
                turn.warned = True
                self._warn(turn, duration)
            if self.timeout is not None and duration >= self.timeout and now >= turn.next_interruption:
                turn.next_interruption = now + INTERRUPTION_INTERVAL
                self._interrupt(turn, duration)

    def leave(self) -> set[int]:
        """Leave all running turns behind, because the worker stops and waits no longer, and log each of them.

        Returns:
            The identifiers of their threads.
        """
        now = time.monotonic()
        turns = [turn for turn in list(self._turns.values()) if not turn.is_left]
        for turn in turns:
            turn.is_left = True
            self._logger.error(
                "%s: the worker stops without waiting any longer for a turn of orchestrator %s, which has been running "
                "for %.1f s. It is given back to the engine; its thread is left behind, and ends with the process at "
                "the latest. It is at %s:\n%s",
                turn.instance_id,
                turn.workflow_name,
                now - turn.since,
                place_of(turn),
                stack_of(turn),
            )
        return {turn.thread_id for turn in turns}

    def _warn(self, turn: RunningTurn, duration: float) -> None:
        self._logger.warning(
            "%s: a turn of orchestrator %s has been running for %.1f s and is at %s; workflow code must not block "
            "or compute for long: do that in an activity. %s",
            turn.instance_id,
            turn.workflow_name,
            duration,
            place_of(turn, with_source=True),
            _hint(turn),
        )

    def _interrupt(self, turn: RunningTurn, duration: float) -> None:
        """Interrupt a turn; if that was done before, log where it stays."""
        place, stack = place_of(turn), stack_of(turn)
        is_first = not turn.place
        if is_first:
            turn.place, turn.stack = place, stack  # before the turn's thread reads them
        is_interrupted = turn.interruption.request()
        if is_first and is_interrupted:
            self._logger.error(
                "%s: a turn of orchestrator %s has been running for %.1f s, longer than turn_timeout, and is "
                "interrupted at %s; the instance fails",
                turn.instance_id,
                turn.workflow_name,
                duration,
                place,
            )
        elif is_first:
            turn.place = ""  # The worker's own code runs, before or after that of the workflow.
        if not turn.is_reported and not (is_first and is_interrupted) and _frame_of_workflow(turn) is not None:
            turn.is_reported = True
            self._logger.error(
                "%s: a turn of orchestrator %s has been running for %.1f s and cannot be interrupted, because it "
                "executes a call outside of Python code, waits for a lock, or continues although it was interrupted. "
                "Other instances of its thread wait for it. It is at %s:\n%s",
                turn.instance_id,
                turn.workflow_name,
                duration,
                place,
                stack,
            )


def place_of(turn: RunningTurn, *, with_source: bool = False) -> str:
    """Return the innermost line of the workflow's file that the turn is on, or else its innermost line.

    Args:
        turn: The turn.
        with_source: Whether to add the text of the line.
    """
    found = _frame_of_workflow(turn) or _interpreter.frame_of(turn.thread_id)
    if found is None:
        return "an unknown line"
    source = _source_of(found) if with_source else ""
    shown = f" ({source})" if source else ""
    return f"{found.f_code.co_filename}:{found.f_lineno} in {found.f_code.co_name}{shown}"


def _source_of(frame: FrameType) -> str:
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno, frame.f_globals).strip()


def _hint(turn: RunningTurn) -> str:
    """Return what to write in place of the line that the turn is on."""
    found = _frame_of_workflow(turn)
    source = "" if found is None else _source_of(found)
    if source.startswith("with ") or ".acquire(" in source:
        return (
            "If it waits for a lock of threading, another instance may hold it over an await: use asyncio.Lock within "
            "an instance, 'async with ctx.lock_entities(...)' between instances, or take the lock in an activity"
        )
    if ".sleep(" in source:
        return "Sleep with 'await ctx.sleep(seconds)', which takes no thread"
    return (
        "ctx.now() does not change within a turn, so a loop that compares it never ends: wait with "
        "'await ctx.sleep(seconds)'"
    )


def stack_of(turn: RunningTurn) -> str:
    """Return the stack of a turn from the first line of the workflow's file on, or else its whole stack."""
    innermost = _interpreter.frame_of(turn.thread_id)
    lines = [] if innermost is None else list(traceback.extract_stack(innermost))
    own = [position for position, line in enumerate(lines) if line.filename == turn.filename]
    return "".join(traceback.format_list(lines[own[0] :] if own else lines))


def _frame_of_workflow(turn: RunningTurn) -> FrameType | None:
    frame = _interpreter.frame_of(turn.thread_id)
    while frame is not None and frame.f_code.co_filename != turn.filename:
        frame = frame.f_back
    return frame
