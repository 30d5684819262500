"""The way to :mod:`.current_span`, which needs OpenTelemetry: optional to upstream, and so to us."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

_with_opentelemetry: Any
try:
    from durabletask_aio.worker import current_span as _with_opentelemetry
except ImportError:
    _with_opentelemetry = None


def workflow_spans() -> AbstractContextManager[None]:
    """Around what executes turns of async workflows or closes their instances: only live code starts spans that record.

    The thread's current span is left out.  There is none in a worker's thread, unless a generator has left its own
    behind: what it enters in one turn, and so in one thread, it may leave in another.
    """
    return nullcontext() if _with_opentelemetry is None else _with_opentelemetry.workflow_spans()


def orchestration_spans(trace_context: Callable[[], Any]) -> AbstractContextManager[None]:
    """Inside of :func:`workflow_spans`, once upstream has made a span current, or none.

    ``trace_context`` tells the context of the orchestration's span, if there is one by then.
    """
    return nullcontext() if _with_opentelemetry is None else _with_opentelemetry.orchestration_spans(trace_context)
