"""OpenTelemetry: an async workflow leaves the spans of the equivalent generator."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from worker_support import run, started, wait_until

from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker import activity_tracing
from durabletask_aio.worker._upstream import pb


def plain(ctx: Any, value: Any) -> Any:
    return value


async def asynchronous(ctx: Any, value: Any) -> Any:
    return value


def broken(ctx: Any, value: Any) -> Any:
    raise ValueError("broken")


async def async_broken(ctx: Any, value: Any) -> Any:
    raise ValueError("broken")


def child(ctx: Any, value: Any) -> Any:
    result = yield ctx.call_activity(plain, input=value)
    return result


def spans_of(provider: Any, name: str) -> list[Any]:
    """Name, kind, status, attributes and events of each span, and the name of its parent, ids made comparable."""
    finished = provider.exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in finished}

    def comparable(text: Any) -> str:
        text = str(text).replace(f"async_{name}", name)
        text = re.sub(r"[0-9a-f]{32}", "ID", text)
        return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z?", "TIME", text)

    return sorted(
        (
            comparable(span.name),
            span.kind.name,
            span.status.status_code.name,
            comparable(span.status.description),
            sorted((key, comparable(value)) for key, value in (span.attributes or {}).items()),
            [event.name for event in span.events],
            comparable(names.get(span.parent.span_id)) if span.parent else None,
        )
        for span in finished
    )


@pytest.mark.parametrize("sessions", [0, 10], ids=["full replays", "sessions"])
def test_of_workflows_equal_those_of_the_generator(
    engine: LocalBackend, client: TaskHubGrpcClient, tracer_provider: Any, sessions: int
) -> None:
    def order(ctx: Any, value: Any) -> Any:
        yield ctx.call_activity(plain, input=value)
        yield ctx.create_timer(timedelta(milliseconds=10))
        yield ctx.call_sub_orchestrator(child, input=value)
        yield ctx.call_activity(broken)

    async def async_order(ctx: Any, value: Any) -> Any:
        await ctx.call_activity(plain, input=value)
        await asyncio.sleep(0.01)
        await ctx.call_sub_orchestrator(child, input=value)
        await ctx.call_activity(broken)

    worker = started(engine, plain, broken, orchestrators=[order, async_order, child], max_extended_sessions=sessions)
    found = []
    try:
        for name in ("order", "async_order"):
            tracer_provider.exporter.clear()
            state = run(client, name, 1)
            assert state.runtime_status is OrchestrationStatus.FAILED
            assert wait_until(
                lambda: any("create" not in s.name for s in tracer_provider.exporter.get_finished_spans())
            )
            found.append(spans_of(tracer_provider, "order"))
    finally:
        worker.stop()

    assert found[0] == found[1]
    kinds = {name for name, *_ in found[0]}
    assert {"activity:plain", "activity:broken", "orchestration:order", "orchestration:order:timer"} <= kinds


def test_of_async_activities_equal_those_of_sync_ones(
    engine: LocalBackend, client: TaskHubGrpcClient, tracer_provider: Any
) -> None:
    def calls(ctx: Any, name: str) -> Any:
        result = yield ctx.call_activity(name, input=1)
        return result

    worker = started(engine, orchestrators=[calls])
    worker.stop()
    found = []
    for functions in ((plain, broken), (asynchronous, async_broken)):
        worker = type(worker)(host_address=engine.address, logger=worker._logger)
        worker.add_orchestrator(calls)
        for function, name in zip(functions, ("plain", "broken"), strict=True):
            worker.add_activity(function, name=name)
        worker.start()
        tracer_provider.exporter.clear()
        try:
            for name in ("plain", "broken"):
                run(client, "calls", name)
        finally:
            worker.stop()
        found.append(spans_of(tracer_provider, "calls"))

    assert found[0] == found[1]


def test_an_async_activity_runs_inside_its_span(
    engine: LocalBackend, client: TaskHubGrpcClient, tracer_provider: Any
) -> None:
    tracer = tracer_provider.get_tracer("test")

    async def tracing(ctx: Any, _: Any) -> None:
        await asyncio.sleep(0)
        with tracer.start_as_current_span("mine"):
            await asyncio.sleep(0)

    def calls(ctx: Any, _: Any) -> Any:
        yield ctx.call_activity("tracing")

    worker = started(engine, tracing, orchestrators=[calls])
    try:
        run(client, "calls")
    finally:
        worker.stop()

    spans = {(span.name, span.kind.name): span for span in tracer_provider.exporter.get_finished_spans()}
    assert spans["mine", "INTERNAL"].parent.span_id == spans["activity:tracing", "SERVER"].context.span_id


@pytest.mark.parametrize("sent", ["", f"00-{'1' * 32}-{'2' * 16}-01"], ids=["none", "one"])
def test_without_a_provider_an_activity_continues_the_trace_that_it_is_sent(
    monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    monkeypatch.setattr(activity_tracing, "has_tracer_provider", lambda: False)
    with activity_tracing.ActivitySpan("activity:plain", trace_context=pb.TraceContext(traceParent=sent)) as span:
        current = trace.get_current_span().get_span_context()
    assert current.trace_id == int(sent[3:35] or "0", 16)
    assert (span is None) == (not sent)
