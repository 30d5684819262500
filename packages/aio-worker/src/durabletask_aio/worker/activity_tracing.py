"""The spans of activities, which accept any exception.

OpenTelemetry calls `str()` of an exception that leaves a span.  If that raises, the second exception replaces the
first, and the failure of the activity would be recorded under another type than without OpenTelemetry.  Here the span
gets a substitute of the same type name, and the original exception propagates.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, cast

from durabletask_aio.core.hosting import recordable
from durabletask_aio.worker._upstream import tracing
from durabletask_aio.worker.spans import has_tracer_provider


class ActivitySpan(AbstractContextManager[Any]):
    """A span of upstream's, or none if there is nothing to record or pass on; arguments of `tracing.start_span`."""

    def __init__(self, name: str, trace_context: Any = None, **keywords: Any) -> None:
        # Requests of upstream's sync code have an empty context where the engine has sent none.
        is_traced = has_tracer_provider() or (trace_context is not None and trace_context.traceParent)
        self._span: Any = tracing.start_span(name, trace_context, **keywords) if is_traced else nullcontext()

    def __enter__(self) -> Any:
        return self._span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A substitute that comes out again is not raised here, so this function adds no frame to the traceback.
        if isinstance(error, Exception):
            error = recordable(error)
            kind = type(error)
        self._span.__exit__(kind, error, traceback)


def set_span_error(span: Any, error: Exception) -> None:
    """Record an exception on a span, as upstream's function of this name does."""
    tracing.set_span_error(span, cast(Exception, recordable(error)))


class ActivityTracing:
    """Upstream's module `tracing`, with the spans of this module; upstream's own code for activities is run with it."""

    start_span = ActivitySpan
    set_span_error = staticmethod(set_span_error)

    def __getattr__(self, name: str) -> Any:
        return getattr(tracing, name)
