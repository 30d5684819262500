"""`SessionExecutor`: the core's turn executor, with the spans of workflow code.

It is a module of its own because turns, sessions and shadow replays all use it, and none of them owns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from durabletask_aio.core import TurnTimeoutError
from durabletask_aio.core.hosting import TurnDiverged, TurnExecutor, TurnPaused, failure_details
from durabletask_aio.worker._upstream import TurnAbandoned, pb, tracing
from durabletask_aio.worker.daemon_threads import waiting
from durabletask_aio.worker.interruption import TurnInterrupted
from durabletask_aio.worker.spans import orchestration_spans
from durabletask_aio.worker.turn_watchdog import RunningTurn

PAUSE_AFTER = 0.005
"""Seconds that a turn waits for a step before it is paused, which takes some time itself."""


class SessionExecutor(TurnExecutor):
    """Runs the turns of one instance of a worker, whether or not the instance is kept in a session."""

    has_numbered_children = False
    """Whether the execution has children with ids that upstream makes of the parent's and a number."""

    divergence: Exception | None = None
    """How history and code differ, if the last turn had no result for that reason."""

    may_pause = False
    """Whether the present turn may be paused while its code waits for a step."""

    running_turn: RunningTurn | None = None
    """The turn that is being executed, if it can be interrupted."""

    def execute(
        self, instance_id: str, old_events: Sequence[pb.HistoryEvent], new_events: Sequence[pb.HistoryEvent]
    ) -> Any:
        """Run one turn.

        Upstream abandons it if history and code do not fit, with `raises_divergence`.  If it is interrupted, because it
        runs for too long, the instance fails.
        """
        running, self.running_turn = self.running_turn, None
        if running is None:
            return self._execute(instance_id, old_events, new_events)
        try:
            return running.interruption.run(lambda: self._execute(instance_id, old_events, new_events))
        except TurnInterrupted:
            return self._interrupted(running, new_events)

    def _execute(
        self, instance_id: str, old_events: Sequence[pb.HistoryEvent], new_events: Sequence[pb.HistoryEvent]
    ) -> Any:
        try:
            return super().execute(instance_id, old_events, new_events)
        except TurnDiverged as diverged:
            self.divergence = diverged.error
        raise TurnAbandoned

    def wait_for_step(self, ctx: Any, event: pb.HistoryEvent) -> None:
        """Wait for the end of a step; after a short time without the thread, if the turn can be paused."""
        assert self.journal is not None
        if self.journal.pass_on_ended(ctx, PAUSE_AFTER):
            return
        if self.may_pause and self.can_pause(ctx):
            self.paused_after = event
            raise TurnPaused
        with waiting():
            self.journal.pass_on_ended(ctx, None)

    def _interrupted(self, running: RunningTurn, new_events: Sequence[pb.HistoryEvent]) -> Any:
        """Return the result of a turn that was interrupted.

        What is replayed was processed before, by code that came to an end: with code that does not, the history does
        not fit, as with code that raises on replay.
        """
        self.error = TurnTimeoutError(
            f"the turn ran longer than turn_timeout and was interrupted at {running.place}. Workflow code must not "
            "block or compute for long: do that in an activity. ctx.now() does not change within a turn: wait with "
            "'await ctx.sleep(seconds)'",
            instance_id=running.instance_id,
            workflow_name=running.workflow_name,
        )
        if self.context is None:  # Not even the first event was processed; upstream fails the instance.
            raise self.error
        termination = next((event for event in new_events if event.HasField("executionTerminated")), None)
        if self.raises_divergence and self.context.is_replaying:
            self.divergence = self.error
        if termination is not None:
            self.divergence = None
            result = self.terminate(termination)
        elif self.divergence is not None:
            raise TurnAbandoned
        else:
            details = failure_details(self.error, self.exception_properties_provider, self.logger)
            details.stackTrace.value = running.stack.encode("utf-8", "backslashreplace").decode()
            result = self.fail_turn(details)
        self.actions = result.actions
        return result

    @property
    def span_id(self) -> str | None:
        """The span under which the spans of this instance are grouped; `None` if it is not traced."""
        trace_context = self.trace_context
        return trace_context.spanID if trace_context is not None else None

    def turn_context(self) -> AbstractContextManager[None]:
        """Keep the spans that an async workflow starts from being repeated by a replay; not those of generators."""
        return orchestration_spans(self._orchestration_span) if self.is_async else nullcontext()

    def detach_request(self) -> None:
        """Drop what refers to the request of the last turn, its actions included."""
        self.actions = ()
        super().detach_request()

    def _orchestration_span(self) -> Any:
        return tracing.extract_trace_context(self.trace_context)
