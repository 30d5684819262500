"""`SessionExecutor`: the core's turn executor, with the spans of workflow code.

It is a module of its own because turns, sessions and shadow replays all use it, and none of them owns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from durabletask_aio.core.hosting import TurnDiverged, TurnExecutor
from durabletask_aio.worker._upstream import TurnAbandoned, pb, tracing
from durabletask_aio.worker.spans import orchestration_spans


class SessionExecutor(TurnExecutor):
    """Runs the turns of one instance of a worker, whether or not the instance is kept in a session."""

    has_numbered_children = False
    """Whether the execution has children with ids that upstream makes of the parent's and a number."""

    divergence: Exception | None = None
    """How history and code differ, if the last turn had no result for that reason."""

    def execute(
        self, instance_id: str, old_events: Sequence[pb.HistoryEvent], new_events: Sequence[pb.HistoryEvent]
    ) -> Any:
        """Run one turn; upstream abandons it if history and code do not fit, with `raises_divergence`."""
        try:
            return super().execute(instance_id, old_events, new_events)
        except TurnDiverged as diverged:
            self.divergence = diverged.error
        raise TurnAbandoned

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
