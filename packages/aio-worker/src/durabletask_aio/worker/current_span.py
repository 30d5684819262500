"""`WorkflowCurrentSpan`: keeps a replay from recording the spans of workflow code again, with any tracer provider.

A full replay runs the workflow from its beginning, and would trace everything once more.  Therefore workflow code runs
under a current span whose context says "not sampled" while the code is replaying.  OpenTelemetry's default sampler, and
every other one that follows the parent (`ParentBased`), then starts spans that record nothing.  Live code sees the span
that it would see without this package, and records the spans that a generator records.

Three limits are the reason for `tracer_provider.WorkflowTracerProvider`: samplers that do not follow the parent record
replayed spans; a span that stays open over the end of a turn ends there if the instance is not kept alive; and a span
that is started live inside of a span that was started by replay is not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext

from durabletask_aio.core.hosting import running_execution

_Parent = Callable[[], "SpanContext | None"]

# Any valid ids would do; no trace has them.
_REPLAYED = SpanContext(
    trace_id=0x64757261626C655F7265706C61796564,
    span_id=0x7265706C61796564,
    is_remote=False,
    trace_flags=trace.TraceFlags(trace.TraceFlags.DEFAULT),
)


class WorkflowCurrentSpan(trace.NonRecordingSpan):
    """The current span of workflow code: that of live code, or one that is not sampled."""

    def __init__(self, outer: Span, orchestration: _Parent) -> None:
        super().__init__(outer.get_span_context())
        self.outer = outer
        self.orchestration = orchestration
        """Returns the span of the whole orchestration, which upstream does not make the current one."""

    def get_span_context(self) -> SpanContext:
        """Return the context of the span; during replay, one that is not sampled."""
        execution = running_execution()
        return _REPLAYED if execution is not None and execution.is_muted else super().get_span_context()


def workflow_spans() -> AbstractContextManager[None]:
    """See `spans.workflow_spans`."""
    return _current(trace.INVALID_SPAN, lambda: None)


def orchestration_spans(trace_context: Callable[[], Any]) -> AbstractContextManager[None]:
    """See `spans.orchestration_spans`."""

    def orchestration() -> SpanContext | None:
        known = trace_context()
        return None if known is None else trace.get_current_span(known).get_span_context()

    outer = trace.get_current_span()
    return _current(outer.outer if isinstance(outer, WorkflowCurrentSpan) else outer, orchestration)


def has_tracer_provider() -> bool:
    """See `spans.has_tracer_provider`."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def _current(outer: Span, orchestration: _Parent) -> Iterator[None]:
    token = otel_context.attach(trace.set_span_in_context(WorkflowCurrentSpan(outer, orchestration)))
    try:
        yield
    finally:
        otel_context.detach(token)
