"""Spans that users start in workflow code: not again on replay, whatever tracer they come from.

A full replay runs the workflow from its beginning, and what is traced there would be traced once more.  So workflow
code runs under a current span that says "not sampled" while it replays.  OpenTelemetry's default sampler, and every
other one that asks the parent (``ParentBased``), then starts spans that record nothing.  Live code sees the span that
it would see anyway, and so leaves the spans that a generator leaves.

What this cannot do is known, and is why there is a :class:`~.tracer_provider.WorkflowTracerProvider`: samplers that do
not ask the parent are not reached, a span that stays open over a turn ends with it if the instance is not kept alive,
and what is started live inside of a span that was started by replay follows that span into not being recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext

from durabletask_aio.core.loop import WorkflowLoop

_Parent = Callable[[], "SpanContext | None"]

# Any valid ids would do; they belong to no trace.
_REPLAYED = SpanContext(
    trace_id=0x64757261626C655F7265706C61796564,
    span_id=0x7265706C61796564,
    is_remote=False,
    trace_flags=trace.TraceFlags(trace.TraceFlags.DEFAULT),
)


def running_workflow() -> WorkflowLoop | None:
    """The loop of the workflow whose code is on this thread's stack, if there is one."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if isinstance(loop, WorkflowLoop) else None


def is_muted(loop: WorkflowLoop) -> bool:
    """Whether nothing that the workflow does now may be seen: it is replaying, or being closed."""
    return loop.execution.is_muted


class WorkflowCurrentSpan(trace.NonRecordingSpan):
    """The span that workflow code starts its own spans under."""

    def __init__(self, outer: Span, orchestration: _Parent) -> None:
        super().__init__(outer.get_span_context())
        self.outer = outer
        self.orchestration = orchestration
        """Tells the span of the orchestration as a whole, which is not the current one with upstream."""

    def get_span_context(self) -> SpanContext:
        loop = running_workflow()
        return _REPLAYED if loop is not None and is_muted(loop) else super().get_span_context()


def workflow_spans() -> AbstractContextManager[None]:
    """See :func:`.spans.workflow_spans`."""
    return _current(trace.INVALID_SPAN, lambda: None)


def orchestration_spans(trace_context: Callable[[], Any]) -> AbstractContextManager[None]:
    """See :func:`.spans.orchestration_spans`."""

    def orchestration() -> SpanContext | None:
        known = trace_context()
        return None if known is None else trace.get_current_span(known).get_span_context()

    outer = trace.get_current_span()
    return _current(outer.outer if isinstance(outer, WorkflowCurrentSpan) else outer, orchestration)


@contextmanager
def _current(outer: Span, orchestration: _Parent) -> Iterator[None]:
    token = otel_context.attach(trace.set_span_in_context(WorkflowCurrentSpan(outer, orchestration)))
    try:
        yield
    finally:
        otel_context.detach(token)
