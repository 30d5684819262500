"""The functions of `current_span`, or context managers that do nothing if OpenTelemetry is not installed.

OpenTelemetry is optional to upstream, and therefore to this package.
"""

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
    """Make sure that, of async workflows, only live code starts spans that record.

    Entered around the execution of a turn, and around the closing of an instance.  The current span of the thread is
    ignored: a worker's thread has none, unless a generator has entered a span in one turn and leaves it in another.
    """
    return nullcontext() if _with_opentelemetry is None else _with_opentelemetry.workflow_spans()


def orchestration_spans(trace_context: Callable[[], Any]) -> AbstractContextManager[None]:
    """Do the same as `workflow_spans`, inside of it, with the span that upstream has made current.

    Args:
        trace_context: Returns the context of the orchestration's span, if there is one by then.
    """
    return nullcontext() if _with_opentelemetry is None else _with_opentelemetry.orchestration_spans(trace_context)


def has_tracer_provider() -> bool:
    """Return whether the program has set a tracer provider; spans record nothing without one."""
    return _with_opentelemetry is not None and _with_opentelemetry.has_tracer_provider()
