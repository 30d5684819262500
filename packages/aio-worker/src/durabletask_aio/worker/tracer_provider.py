"""`WorkflowTracerProvider`: an OpenTelemetry provider that exports each span of workflow code completely and once.

The spans of a workflow can be open longer than a turn, so they are started again by each replay.  Three rules give each
of them one identity:

* **Ids** come from the instance's own random stream: a span has the same id in every replay, and a span that was
  exported in an earlier turn refers to the parent that is exported in a later one.
* **Times** of spans that a replay starts are those of the workflow's clock, at which they were first started.
* **Ends** count in live code only.  A span that is ended by a replay, or by closing an instance, has been exported
  before or will be exported later.

Needs OpenTelemetry's SDK, so it is imported when `durabletask.aio.worker.WorkflowTracerProvider` is first used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ContextDecorator
from datetime import datetime, timezone
from functools import wraps
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import Status, StatusCode

from durabletask_aio.core.hosting import Execution, running_execution
from durabletask_aio.worker.current_span import WorkflowCurrentSpan

if TYPE_CHECKING:
    import random
    from types import TracebackType

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class WorkflowTracerProvider(TracerProvider):
    """OpenTelemetry's `TracerProvider`, with tracers that can be used in workflow code as anywhere else.

        provider = WorkflowTracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)

    A span that a workflow starts is exported when live code ends it: once, with its real duration, regardless of the
    number of turns, replays and workers in between; and again, under the same id, only if the engine did not get the
    response of that turn.  Its parent is the current span, or else the span of the workflow.  Processors see `on_start`
    at each replay, and `on_end` once.  Outside of async workflows nothing is different.

    Args:
        id_generator: Generates the ids of spans outside of async workflows; OpenTelemetry's random one by default.
        **keywords: The other keywords of the SDK's class.
    """

    __module__ = "durabletask.aio.worker"

    def __init__(self, *, id_generator: IdGenerator | None = None, **keywords: Any) -> None:
        super().__init__(id_generator=_WorkflowIds(id_generator or RandomIdGenerator()), **keywords)

    def get_tracer(self, *arguments: Any, **keywords: Any) -> trace.Tracer:
        """Return a tracer for workflow code and all other code.

        Args:
            *arguments: As for the SDK's class.
            **keywords: As for the SDK's class.

        Returns:
            The SDK's tracer, in a wrapper.
        """
        return _WorkflowTracer(super().get_tracer(*arguments, **keywords))


class _WorkflowIds(IdGenerator):
    """Generates ids from the random stream of the running workflow; with another generator if none is running."""

    def __init__(self, fallback: IdGenerator) -> None:
        self._fallback = fallback

    def generate_span_id(self) -> int:
        stream = _stream()
        return self._fallback.generate_span_id() if stream is None else stream.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        stream = _stream()
        return self._fallback.generate_trace_id() if stream is None else stream.getrandbits(128) or 1

    def is_trace_id_random(self) -> bool:
        # Those of workflows are as evenly distributed as random ones.
        is_random: Callable[[], bool] | None = getattr(self._fallback, "is_trace_id_random", None)
        return is_random() if is_random is not None else False


def _stream() -> random.Random | None:
    execution = running_execution()
    return None if execution is None else execution.stream("opentelemetry")


def _replayed_at(execution: Execution) -> int | None:
    """Return the time for what a replay repeats, in nanoseconds; `None` stands for the present time."""
    if not execution.is_muted or execution.evicted:
        return None
    since = execution.now() - _EPOCH
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


class _WorkflowTracer(trace.Tracer):
    """A tracer of the SDK in a wrapper that makes it work in workflow code."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracer, name)

    def start_span(self, name: str, context: Context | None = None, *arguments: Any, **keywords: Any) -> Span:
        execution = running_execution()
        if execution is None:
            return self._tracer.start_span(name, context, *arguments, **keywords)
        if execution.evicted:
            return trace.INVALID_SPAN
        bound = _START_SPAN.bind(name, _under_the_orchestration(context), *arguments, **keywords).arguments
        if bound.get("start_time") is None:
            bound["start_time"] = _replayed_at(execution)
        span = self._tracer.start_span(**bound)
        return _WorkflowSpan(span, execution) if span.is_recording() else span

    def start_as_current_span(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        return _CurrentSpan(self, name, arguments, keywords)


def _signature_without_self(function: Any) -> inspect.Signature:
    signature = inspect.signature(function)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


_START_SPAN = _signature_without_self(trace.Tracer.start_span)


def _under_the_orchestration(context: Context | None) -> Context | None:
    """Return the context for a span: below the orchestration's, if workflow code has started no other span."""
    current = trace.get_current_span(context)
    if not isinstance(current, WorkflowCurrentSpan):
        return context
    orchestration = current.orchestration()
    parent = current.outer if orchestration is None else trace.NonRecordingSpan(orchestration)
    return trace.set_span_in_context(parent, context)


class _WorkflowSpan(trace.Span):
    """A span whose end counts in live code only."""

    def __init__(self, span: Span, execution: Execution) -> None:
        self._span = span
        self._execution = execution
        self._is_over = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._span, name)

    def end(self, end_time: int | None = None) -> None:
        if self._execution.is_muted:
            self._is_over = True
        elif not self._is_over:
            self._span.end(end_time)

    def get_span_context(self) -> SpanContext:
        return self._span.get_span_context()

    def is_recording(self) -> bool:
        return not self._is_over and self._span.is_recording()

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self._span.set_attributes(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        self._span.set_attribute(key, value)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        self._span.add_event(name, attributes, timestamp or _replayed_at(self._execution))

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        self._span.add_link(context, attributes)

    def update_name(self, name: str) -> None:
        self._span.update_name(name)

    def set_status(self, status: Any, description: str | None = None) -> None:
        self._span.set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        self._span.record_exception(exception, attributes, timestamp or _replayed_at(self._execution), escaped)


class _CurrentSpan(ContextDecorator):
    """The result of `start_as_current_span`: a context manager, and a decorator of functions and coroutine functions.

    OpenTelemetry's `use_span` would not do: when an instance is closed, its `with` blocks are left in another context
    than they were entered in, and `use_span` logs an error for each.
    """

    def __init__(
        self, tracer: _WorkflowTracer, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> None:
        self._tracer, self._name, self._arguments, self._keywords = tracer, name, arguments, keywords
        self._options = dict(keywords)
        self._end_on_exit: bool = self._options.pop("end_on_exit", True)

    def _recreate_cm(self) -> _CurrentSpan:
        return _CurrentSpan(self._tracer, self._name, self._arguments, self._keywords)

    def __call__(self, func: Any) -> Any:
        if not inspect.iscoroutinefunction(func):
            return super().__call__(func)

        @wraps(func)
        async def traced(*arguments: Any, **keywords: Any) -> Any:
            with self._recreate_cm():
                return await func(*arguments, **keywords)

        return traced

    def __enter__(self) -> Span:
        self._execution = running_execution()
        self._span = self._tracer.start_span(self._name, *self._arguments, **self._options)
        self._token = otel_context.attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._execution is not None and self._execution.evicted:
            return
        otel_context.detach(self._token)
        span = self._span
        if isinstance(error, Exception) and span.is_recording():
            if self._options.get("record_exception", True):
                span.record_exception(error)
            if self._options.get("set_status_on_exception", True):
                span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        if self._end_on_exit:
            span.end()
