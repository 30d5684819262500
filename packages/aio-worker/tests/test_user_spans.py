"""Spans that users start in workflow code with OpenTelemetry's own API: none is repeated by replay."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest
from durabletask.client import TaskHubGrpcClient
from session_hub import Hub, Recorder
from worker_support import QUIET, finished, recorded, run, started, wait_until

from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker.worker import TaskHubGrpcWorker

trace = pytest.importorskip("opentelemetry.trace")
sdk = pytest.importorskip("opentelemetry.sdk.trace")
sampling = pytest.importorskip("opentelemetry.sdk.trace.sampling")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

SESSIONS = pytest.mark.parametrize("sessions", [0, 10], ids=["full replays", "sessions"])


def plain(ctx: Any, value: Any) -> Any:
    return value


def of(name: str) -> Any:
    return trace.get_tracer(name)


def names_of(exporter: Any, scope: str = "user") -> Counter[str]:
    spans = exporter.get_finished_spans()
    return Counter(span.name for span in spans if span.instrumentation_scope.name == scope)


async def in_a_row(ctx: Any, _: Any) -> None:
    for number in range(3):
        with of("user").start_as_current_span(f"before {number}"), of("user").start_as_current_span("inside"):
            pass
        with of("user").start_as_current_span(f"around {number}"):
            await ctx.call_activity(plain, input=number)


async def between(ctx: Any, _: Any) -> None:
    for number in range(3):
        with of("user").start_as_current_span(f"before {number}"), of("user").start_as_current_span("inside"):
            pass
        await ctx.call_activity(plain, input=number)


def generator_between(ctx: Any, _: Any) -> Any:
    # Nothing around a `yield`: what a generator enters in one thread it may leave in another.
    for number in range(3):
        with of("user").start_as_current_span(f"before {number}"), of("user").start_as_current_span("inside"):
            pass
        yield ctx.call_activity(plain, input=number)


class TestOfAnyProvider:
    @SESSIONS
    def test_each_span_is_there_once(
        self, engine: LocalBackend, client: TaskHubGrpcClient, tracer_provider: Any, sessions: int
    ) -> None:
        worker = started(engine, plain, orchestrators=[in_a_row], max_extended_sessions=sessions)
        try:
            run(client, "in_a_row")
        finally:
            worker.stop()

        each = {f"{kind} {number}": 1 for kind in ("before", "around") for number in range(3)}
        assert names_of(tracer_provider.exporter) == {**each, "inside": 3}

    @SESSIONS
    def test_each_span_is_there_once_if_the_worker_emits_none(
        self, engine: LocalBackend, client: TaskHubGrpcClient, tracer_provider: Any, sessions: int
    ) -> None:
        worker = started(
            engine, plain, orchestrators=[in_a_row], max_extended_sessions=sessions, emit_trace_spans=False
        )
        try:
            with of("caller").start_as_current_span("call") as call:
                run(client, "in_a_row")
        finally:
            worker.stop()

        spans = [s for s in tracer_provider.exporter.get_finished_spans() if s.instrumentation_scope.name == "user"]
        assert Counter(span.name for span in spans)["around 2"] == 1
        assert len(spans) == 9
        assert {span.context.trace_id for span in spans} == {call.get_span_context().trace_id}

    def test_they_are_those_of_the_generator(
        self, engine: LocalBackend, client: TaskHubGrpcClient, tracer_provider: Any
    ) -> None:
        worker = started(engine, plain, orchestrators=[between, generator_between], max_extended_sessions=10)
        found = []
        try:
            for name in ("between", "generator_between"):
                tracer_provider.exporter.clear()
                run(client, name)
                spans = tracer_provider.exporter.get_finished_spans()
                ids = {span.context.span_id: span.name for span in spans}
                found.append(
                    sorted(
                        (span.name, span.kind.name, span.status.status_code.name, ids[span.parent.span_id])
                        if span.parent
                        else (span.name, span.kind.name, span.status.status_code.name, "")
                        for span in spans
                        if span.instrumentation_scope.name == "user"
                    )
                )
        finally:
            worker.stop()

        assert found[0] == found[1]
        assert ("inside", "INTERNAL", "UNSET", "before 0") in found[0]

    def test_closing_an_instance_repeats_none(
        self, engine: LocalBackend, client: TaskHubGrpcClient, tracer_provider: Any
    ) -> None:
        async def tidy(ctx: Any, _: Any) -> None:
            try:
                for number in range(3):
                    await ctx.call_activity(plain, input=number)
            finally:
                with of("user").start_as_current_span("tidying"):
                    pass

        worker = started(engine, plain, orchestrators=[tidy], max_extended_sessions=0)
        try:
            run(client, "tidy")
        finally:
            worker.stop()

        assert names_of(tracer_provider.exporter) == {"tidying": 1}

    def test_shadow_replays_repeat_none(
        self, engine: LocalBackend, client: TaskHubGrpcClient, tracer_provider: Any
    ) -> None:
        worker = started(engine, plain, orchestrators=[in_a_row], shadow_replay_rate=1.0, max_extended_sessions=10)
        try:
            run(client, "in_a_row")
        finally:
            worker.stop()

        assert worker.extended_session_stats.shadow_replays == 3
        assert names_of(tracer_provider.exporter)["before 0"] == 1

    def test_live_code_sees_the_current_span_that_it_saw_before(self, tracer_provider: Any) -> None:
        seen: list[Any] = []

        async def looking(ctx: Any, _: Any) -> None:
            seen.append(trace.get_current_span().get_span_context())

        def generator(ctx: Any, _: Any) -> Any:
            seen.append(trace.get_current_span())
            yield ctx.wait_for_external_event("never")

        def register(worker: TaskHubGrpcWorker) -> None:
            worker.add_orchestrator(looking)
            worker.add_orchestrator(generator)

        hub = Hub(register)
        hub.start("looking")
        hub.start("generator", instance_id="other")
        hub.drain()

        assert [each.is_valid for each in seen[:2]] == [False, False]
        assert seen[2:] == [trace.INVALID_SPAN] * 2

    def test_a_sampler_that_does_not_ask_the_parent_needs_the_provider_of_this_package(
        self, engine: LocalBackend, client: TaskHubGrpcClient
    ) -> None:
        """Why there is a `WorkflowTracerProvider`."""
        from durabletask.aio.worker import WorkflowTracerProvider

        counts = []
        for kind in (sdk.TracerProvider, WorkflowTracerProvider):
            provider, exporter = in_memory(kind(sampler=sampling.ALWAYS_ON))
            tracer = provider.get_tracer("user")

            async def traced(ctx: Any, _: Any, tracer: Any = tracer) -> None:
                for number in range(3):
                    with tracer.start_as_current_span(f"step {number}"):
                        pass
                    await ctx.call_activity(plain, input=number)

            worker = started(engine, plain, orchestrators=[traced], max_extended_sessions=0)
            try:
                run(client, "traced")
            finally:
                worker.stop()
            counts.append(names_of(exporter))

        assert counts == [{"step 0": 4, "step 1": 3, "step 2": 2}, {"step 0": 1, "step 1": 1, "step 2": 1}]


def in_memory(provider: Any) -> tuple[Any, Any]:
    exporter = memory.InMemorySpanExporter()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    return provider, exporter


@pytest.fixture
def provider() -> Iterator[Any]:
    """A `WorkflowTracerProvider` with `.exporter`; not the process's provider, which may be set only once."""
    from durabletask.aio.worker import WorkflowTracerProvider

    provider, exporter = in_memory(WorkflowTracerProvider(shutdown_on_exit=False))
    provider.exporter = exporter
    yield provider
    provider.shutdown()


def tree_of(exporter: Any) -> dict[str, str | None]:
    """Each span's parent; there must be no two of a name."""
    spans = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans}
    assert len({span.name for span in spans}) == len(spans), sorted(span.name for span in spans)
    return {span.name: names.get(span.parent.span_id, "elsewhere") if span.parent else None for span in spans}


def has_raised(engine: LocalBackend, instance_id: str, name: str) -> bool:
    """Whether the turn that brought this event is over, for the engine too."""
    return any(event.eventRaised.name == name for event in recorded(engine, instance_id))


class TestOfTheWorkflowTracerProvider:
    @SESSIONS
    def test_a_span_over_many_turns_is_whole_and_so_is_its_tree(
        self, engine: LocalBackend, client: TaskHubGrpcClient, provider: Any, sessions: int, caplog: Any
    ) -> None:
        tracer = provider.get_tracer("user")

        async def part(ctx: Any, name: str) -> None:
            with tracer.start_as_current_span(name) as span:
                await ctx.call_activity(plain, input=name)
                span.set_attribute("late", name)

        async def nested(ctx: Any, _: Any) -> None:
            with tracer.start_as_current_span("whole", attributes={"early": 1}) as whole:
                whole.add_event("begun")
                with tracer.start_as_current_span("first"):
                    await ctx.sleep(0.2)
                with tracer.start_as_current_span("second"):
                    await asyncio.gather(part(ctx, "left"), part(ctx, "right"))
                whole.set_attribute("late", 2)
            with tracer.start_as_current_span("after"):
                pass

        worker = started(engine, plain, orchestrators=[nested], max_extended_sessions=sessions)
        try:
            with caplog.at_level(logging.ERROR, logger="opentelemetry"):
                run(client, "nested")
        finally:
            worker.stop()

        assert tree_of(provider.exporter) == {
            "whole": None,
            "first": "whole",
            "second": "whole",
            "left": "second",
            "right": "second",
            "after": None,
        }
        spans = {span.name: span for span in provider.exporter.get_finished_spans()}
        whole, first = spans["whole"], spans["first"]
        assert len({span.context.trace_id for span in spans.values()}) == 2  # two roots: the start was not traced
        assert dict(whole.attributes) == {"early": 1, "late": 2}
        assert [event.name for event in whole.events] == ["begun"]
        assert first.end_time - first.start_time >= 100_000_000  # from when the turn began
        assert whole.start_time <= first.start_time <= first.end_time <= whole.end_time
        assert whole.start_time <= whole.events[0].timestamp <= first.end_time
        assert caplog.records == []

    def test_another_worker_ends_what_the_first_one_began(
        self, engine: LocalBackend, client: TaskHubGrpcClient, provider: Any
    ) -> None:
        tracer = provider.get_tracer("user")

        async def moving(ctx: Any, _: Any) -> None:
            with tracer.start_as_current_span("whole"):
                for name in ("a", "b"):
                    with tracer.start_as_current_span(name):
                        await ctx.wait_for_external_event(name)

        instance_id = client.schedule_new_orchestration("moving")
        for name in ("a", "b"):
            worker = started(engine, orchestrators=[moving])
            try:
                client.raise_orchestration_event(instance_id, name)
                assert wait_until(lambda name=name: has_raised(engine, instance_id, name))  # type: ignore[misc]
            finally:
                worker.stop()
        finished(client, instance_id)

        assert tree_of(provider.exporter) == {"whole": None, "a": "whole", "b": "whole"}

    @SESSIONS
    def test_its_root_is_the_span_of_the_workflow(self, provider: Any, tracer_provider: Any, sessions: int) -> None:
        from session_hub import CONTEXT
        from test_sessions import TRACE_PARENT

        tracer = provider.get_tracer("user")

        async def traced(ctx: Any, _: Any) -> None:
            await ctx.wait_for_external_event("a")
            with tracer.start_as_current_span("mine"):
                pass
            await ctx.wait_for_external_event("b")

        hub = Hub(lambda worker: worker.add_orchestrator(traced) and None, sessions=sessions)
        hub.start("traced", parentTraceContext=TRACE_PARENT)
        span_id = ""
        for name in ("a", "b", ""):
            item = hub.take()
            assert item is not None
            if span_id:
                item.orchestratorRequest.orchestrationTraceContext.spanID.value = span_id
            recorder = Recorder()
            hub.workers[0]._execute_orchestrator(item.orchestratorRequest, recorder, item.completionToken)
            assert recorder.response is not None
            span_id = recorder.response.orchestrationTraceContext.spanID.value
            hub.engine.CompleteOrchestratorTask(recorder.response, CONTEXT)
            if name:
                hub.raise_event(name)

        [mine] = provider.exporter.get_finished_spans()
        assert f"{mine.parent.span_id:016x}" == span_id
        assert f"{mine.context.trace_id:032x}" == TRACE_PARENT.traceParent.split("-")[1]

    def test_what_ends_by_an_exception_says_so(
        self, engine: LocalBackend, client: TaskHubGrpcClient, provider: Any
    ) -> None:
        tracer = provider.get_tracer("user")

        @tracer.start_as_current_span("decorated")
        async def decorated(ctx: Any) -> Any:
            return await ctx.call_activity(plain, input=1)

        @tracer.start_as_current_span("decorated and sync")
        def sync() -> None:
            pass

        async def failing(ctx: Any, _: Any) -> None:
            await decorated(ctx)
            sync()
            with pytest.raises(ValueError), tracer.start_as_current_span("quiet", record_exception=False):
                raise ValueError("not recorded")
            open_ended = tracer.start_span("by hand")
            with tracer.start_as_current_span("failing"):
                await ctx.call_activity(plain, input=2)
                open_ended.end()
                raise ValueError("as asked")

        worker = started(engine, plain, orchestrators=[failing], max_extended_sessions=0)
        try:
            run(client, "failing")
        finally:
            worker.stop()

        assert tree_of(provider.exporter) == dict.fromkeys(
            ["decorated", "decorated and sync", "quiet", "by hand", "failing"]
        )
        spans = {span.name: span for span in provider.exporter.get_finished_spans()}
        assert spans["failing"].status.description == "ValueError: as asked"
        assert [event.name for event in spans["failing"].events] == ["exception"]
        assert spans["quiet"].status.status_code.name == "ERROR"
        assert not spans["quiet"].events
        assert spans["decorated"].status.status_code.name == "UNSET"

    @pytest.mark.parametrize("mode", ["best_effort", "strict"])
    def test_the_sandbox_has_nothing_to_say_about_spans(
        self, engine: LocalBackend, client: TaskHubGrpcClient, provider: Any, mode: str
    ) -> None:
        if not entry_points(group="durabletask.aio.sandbox"):
            pytest.skip("the sandbox is not installed")
        tracer = provider.get_tracer("user")

        async def traced(ctx: Any, _: Any) -> None:
            with tracer.start_as_current_span("whole"), tracer.start_as_current_span("part"):
                await ctx.call_activity("plain", input=1)

        worker = TaskHubGrpcWorker(host_address=engine.address, logger=QUIET, max_extended_sessions=0)
        worker.add_orchestrator(traced, sandbox_mode=mode)
        worker.add_activity(plain)
        worker.start()
        try:
            state = run(client, "traced")
        finally:
            worker.stop()

        assert state.failure_details is None
        assert tree_of(provider.exporter) == {"whole": None, "part": "whole"}

    def test_executions_of_one_instance_have_ids_of_their_own(
        self, engine: LocalBackend, client: TaskHubGrpcClient, provider: Any
    ) -> None:
        tracer = provider.get_tracer("user")

        async def again(ctx: Any, count: int) -> None:
            with tracer.start_as_current_span(f"round {count}"):
                await ctx.call_activity(plain, input=count)
            if count:
                ctx.continue_as_new(count - 1)

        worker = started(engine, plain, orchestrators=[again], max_extended_sessions=0)
        try:
            run(client, "again", 2)
        finally:
            worker.stop()

        assert tree_of(provider.exporter) == dict.fromkeys(["round 2", "round 1", "round 0"])
        assert len({span.context.trace_id for span in provider.exporter.get_finished_spans()}) == 3

    def test_outside_of_workflows_it_is_the_sdks(
        self, engine: LocalBackend, client: TaskHubGrpcClient, provider: Any
    ) -> None:
        tracer = provider.get_tracer("user")
        seen: list[Any] = []

        async def tracing(ctx: Any, _: Any) -> None:
            with tracer.start_as_current_span("activity's") as span:
                seen.append(span)
                await asyncio.sleep(0)

        async def calls(ctx: Any, _: Any) -> None:
            await ctx.call_activity(tracing)

        worker = started(engine, tracing, orchestrators=[calls])
        try:
            run(client, "calls")
        finally:
            worker.stop()
        with tracer.start_as_current_span("main's") as span:
            seen.append(span)

        assert [isinstance(span, sdk.Span) for span in seen] == [True, True]
        assert names_of(provider.exporter) == {"activity's": 1, "main's": 1}

    def test_ids_come_from_the_given_generator_elsewhere_and_from_the_workflow_within(
        self, engine: LocalBackend, client: TaskHubGrpcClient
    ) -> None:
        from durabletask.aio.worker import WorkflowTracerProvider
        from opentelemetry.sdk.trace.id_generator import IdGenerator

        class Constant(IdGenerator):
            def generate_span_id(self) -> int:
                return 7

            def generate_trace_id(self) -> int:
                return 8

        provider, exporter = in_memory(WorkflowTracerProvider(id_generator=Constant(), shutdown_on_exit=False))
        tracer = provider.get_tracer("user")

        async def traced(ctx: Any, _: Any) -> None:
            tracer.start_span("within").end()

        worker = started(engine, orchestrators=[traced])
        try:
            run(client, "traced")
        finally:
            worker.stop()
        tracer.start_span("elsewhere").end()

        ids = {span.name: (span.context.span_id, span.context.trace_id) for span in exporter.get_finished_spans()}
        assert ids["elsewhere"] == (7, 8)
        assert not {7, 8} & set(ids["within"])

    def test_as_the_providers_of_the_process_it_carries_upstreams_spans_too(self) -> None:
        program = """
            import logging
            from opentelemetry import trace
            from opentelemetry.sdk.trace.export import SimpleSpanProcessor
            from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
            from durabletask.aio.worker import TaskHubGrpcWorker, WorkflowTracerProvider
            from durabletask.client import TaskHubGrpcClient
            from durabletask_aio.testing.local import local_backend

            logging.disable()
            tracer = trace.get_tracer("before there is a provider")
            exporter, provider = InMemorySpanExporter(), WorkflowTracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            trace.set_tracer_provider(provider)

            def work(ctx, _):
                pass

            async def order(ctx, _):
                with tracer.start_as_current_span("mine"):
                    await ctx.call_activity(work)

            with local_backend() as backend, TaskHubGrpcWorker(
                host_address=backend.address, max_extended_sessions=0
            ) as worker, TaskHubGrpcClient(host_address=backend.address) as client:
                worker.add_orchestrator(order)
                worker.add_activity(work)
                worker.start()
                client.wait_for_orchestration_completion(client.schedule_new_orchestration(order), timeout=30)
            for span in sorted(exporter.get_finished_spans(), key=lambda span: (span.name, span.kind.name)):
                print(span.name, span.kind.name, hex(span.context.trace_id))
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120, check=False
        )

        assert done.returncode == 0, done.stderr
        names, kinds, traces = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
        assert list(zip(names, kinds, strict=True)) == [
            ("activity:work", "CLIENT"),
            ("activity:work", "SERVER"),
            ("create_orchestration:order", "PRODUCER"),
            ("mine", "INTERNAL"),
            ("orchestration:order", "SERVER"),
        ]
        assert len(set(traces)) == 1

    def test_without_the_sdk_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import durabletask.aio.worker as facade

        monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
        monkeypatch.delitem(sys.modules, "durabletask_aio.worker.tracer_provider", raising=False)
        with pytest.raises(ImportError, match=r'needs OpenTelemetry.s SDK, .*: pip install "durabletask\[opentele'):
            _ = facade.WorkflowTracerProvider
        with pytest.raises(AttributeError, match=r"module 'durabletask\.aio\.worker' has no attribute 'Nothing'"):
            _ = facade.Nothing


def test_without_opentelemetry_turns_are_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    from durabletask_aio.worker import spans

    monkeypatch.setattr(spans, "_with_opentelemetry", None)

    async def fine(ctx: Any, _: Any) -> str:
        return "fine"

    hub = Hub(lambda worker: worker.add_orchestrator(fine) and None)
    hub.start("fine")
    hub.drain()

    assert hub.output() == '"fine"'
