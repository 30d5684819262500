"""What upstream gets wrong, and how async workflows fare there.

Each test of upstream fails, with a sentence, when upstream fixes the defect; then our way round it can go.  Two more
are where they are worked round: what is sent twice while suspended in `test_suspension.py`, and the second suspension
in `test_turns.py`.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from datetime import datetime, timedelta
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.entities import EntityInstanceId
from durabletask.internal import helpers
from durabletask.serialization import JsonDataConverter
from durabletask.worker import TaskHubGrpcWorker as UpstreamWorker
from durabletask.worker import _OrchestrationExecutor, _Registry, _RuntimeOrchestrationContext
from session_hub import START, Hub, Recorder
from worker_support import QUIET, call_one, run, started

from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker.session_executor import SessionExecutor
from durabletask_aio.worker.worker import TaskHubGrpcWorker


def begun(name: str, *events: pb.HistoryEvent) -> list[pb.HistoryEvent]:
    return [
        helpers.new_orchestrator_started_event(START),
        helpers.new_execution_started_event(name, "i", None),
        *events,
    ]


def answer(worker: Any, past: list[pb.HistoryEvent], new: list[pb.HistoryEvent]) -> list[pb.OrchestratorAction]:
    recorder = Recorder()
    request = pb.OrchestratorRequest(instanceId="i", pastEvents=past, newEvents=new)
    worker._execute_orchestrator(request, recorder, "token")
    assert recorder.response is not None
    return list(recorder.response.actions)


def worker_with(orchestrator: Any, kind: Any = TaskHubGrpcWorker) -> Any:
    worker = kind(logger=QUIET)
    worker.add_orchestrator(orchestrator)
    return worker


class TestWhatIsNoException:
    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
    def test_leaves_upstreams_turn_which_ends_the_worker_or_hangs_the_instance(
        self, error: type[BaseException]
    ) -> None:
        def raising(ctx: Any, _: Any) -> Any:
            raise error

        try:
            answer(worker_with(raising, UpstreamWorker), [], begun("raising"))
        except error:
            return
        pytest.fail(f"upstream's turn survives {error.__name__}: TurnExecutor._process need not catch it")

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
    def test_fails_the_instance_here(self, error: type[BaseException]) -> None:
        async def raising(ctx: Any, _: Any) -> Any:
            raise error("as asked")

        [action] = answer(worker_with(raising), [], begun("raising"))

        assert action.completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED


class TestAnEventBehindTheEnd:
    """A completion after the end, in one batch with it, throws the last failure into the finished generator again."""

    PAST = (helpers.new_task_scheduled_event(1, "a"), helpers.new_task_scheduled_event(2, "b"))
    NEW = (
        helpers.new_orchestrator_started_event(START),
        helpers.new_task_failed_event(1, ValueError("a failed")),
        helpers.new_task_completed_event(2, "null"),
        helpers.new_event_raised_event("go", "7"),
    )

    def carried_over(self, worker: Any) -> list[str]:
        actions = answer(worker, begun("again", *self.PAST), list(self.NEW))
        assert actions[-1].completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW
        return [event.eventRaised.name for event in actions[-1].completeOrchestration.carryoverEvents]

    def test_is_lost_by_upstream(self) -> None:
        def again(ctx: Any, _: Any) -> Any:
            first, _second = ctx.call_activity("a"), ctx.call_activity("b")
            try:
                yield first
            except task.TaskFailedError:
                ctx.continue_as_new(1, save_events=True)

        assert self.carried_over(worker_with(again, UpstreamWorker)) == [], (
            "upstream keeps events that arrive behind the end of an execution: the note in core's driver on why the "
            "task that it yields never fails has lost one of its reasons"
        )

    def test_is_kept_here(self) -> None:
        async def again(ctx: Any, _: Any) -> Any:
            first, _second = ctx.call_activity("a"), ctx.call_activity("b")
            try:
                await first
            except task.TaskFailedError:
                ctx.continue_as_new(1, save_events=True)

        assert self.carried_over(worker_with(again)) == ["go"]


class TestALockThatIsLeftWithACallOutstanding:
    COUNTER = EntityInstanceId("counter", "one")

    def test_is_not_released_by_upstream(self) -> None:
        context = _RuntimeOrchestrationContext("i", _Registry(), JsonDataConverter())
        entities = context._entity_context
        entities.emit_acquire_message("section", [self.COUNTER])
        entities.complete_acquire("section")
        entities.validate_operation_transition(self.COUNTER, one_way=False)  # the call

        assert list(entities.emit_lock_release_messages()) == [], (
            "upstream no longer takes an entity out of what it has to unlock while a call to it is outstanding: the "
            "copy that core's lock_entities makes can go"
        )

    def test_is_released_here(self) -> None:
        def counter(ctx: Any, value: int) -> int:
            return value

        async def leaving(ctx: Any, _: Any) -> str:
            async with ctx.lock_entities([self.COUNTER]):
                call = ctx.call_entity(self.COUNTER, "add", 1)
            await call
            async with ctx.lock_entities([self.COUNTER]):
                return "locked twice"

        def register(worker: TaskHubGrpcWorker) -> None:
            worker.add_orchestrator(leaving)
            worker.add_entity(counter)

        hub = Hub(register)
        hub.start("leaving")
        hub.drain()

        assert hub.output() == '"locked twice"'


class TestReplay:
    def test_upstreams_does_not_look_at_inputs_and_so_neither_does_ours(self) -> None:
        """Not to be worked round: a replay that compared them would fail instances that upstream continues.

        `durabletask.aio.testing.replay` compares inputs when it is asked to.
        """

        def calling(ctx: Any, _: Any) -> Any:
            yield ctx.call_activity("a", input="now")

        async def async_calling(ctx: Any, _: Any) -> Any:
            await ctx.call_activity("a", input="now")

        recorded = helpers.new_task_scheduled_event(1, "a", '"before"')
        again = [helpers.new_orchestrator_started_event(START), helpers.new_event_raised_event("any", "1")]
        theirs = answer(worker_with(calling, UpstreamWorker), begun("calling", recorded), again)
        ours = answer(worker_with(async_calling), begun("async_calling", recorded), again)

        assert theirs == [], "upstream compares the inputs of activities on replay by now: so can we"
        assert ours == []

    def test_upstreams_retry_timeout_is_measured_on_the_machines_clock(self) -> None:
        """Core measures it on the workflow's; its proof is in `proof/test_retries.py` there."""
        context = _RuntimeOrchestrationContext("i", _Registry(), JsonDataConverter())
        context.current_utc_datetime = datetime(2024, 1, 1)
        policy = task.RetryPolicy(
            first_retry_interval=timedelta(seconds=1), max_number_of_attempts=9, retry_timeout=timedelta(hours=1)
        )
        retried: Any = context.call_activity("a", retry_policy=policy)
        retried.increment_attempt_count()

        assert retried.compute_next_delay() is None, (
            "upstream measures retry_timeout on the workflow's clock by now: core's own clock for retries can go"
        )

    def test_upstreams_generators_are_closed_by_the_garbage_collector(self) -> None:
        """Async workflows are closed in their worker thread: `TestAnInstanceThatIsDropped` in `test_turns.py`."""
        closed: list[bool] = []

        def waiting(ctx: Any, _: Any) -> Any:
            try:
                yield ctx.wait_for_external_event("never")
            finally:
                closed.append(ctx.is_replaying)

        registry = _Registry()
        registry.add_orchestrator(waiting)
        gc.collect()
        gc.disable()
        try:
            executor = _OrchestrationExecutor(registry, QUIET, JsonDataConverter())
            executor.execute("i", [], begun("waiting"))
            del executor
            before = list(closed)
        finally:
            gc.enable()
        gc.collect()

        assert (before, closed) == ([], [False]), (
            "upstream closes generators that it drops, or marks them as replaying: see core's disposal"
        )


def test_our_executor_is_still_a_kind_of_upstreams() -> None:
    assert issubclass(SessionExecutor, _OrchestrationExecutor)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise KeyError("no message")


def unprintable() -> Exception:
    return Unprintable()


def half_a_pair() -> Exception:
    return LookupError("no such file: \udcff.txt")


def caused_by_half_a_pair() -> Exception:
    error = ValueError("cannot be read")
    error.__cause__ = half_a_pair()
    return error


class TestAnErrorThatCannotBeDescribed:
    """Its `str()` raises, or is no text for protobuf, as where it names a file whose name is not UTF-8."""

    ERRORS = (unprintable, half_a_pair, caused_by_half_a_pair)

    @pytest.mark.parametrize("make", ERRORS)
    def test_leaves_upstreams_turn_and_the_engine_sends_it_again_and_again(self, make: Any) -> None:
        def raising(ctx: Any, _: Any) -> Any:
            raise make()

        try:
            answer(worker_with(raising, UpstreamWorker), [], begun("raising"))
        except Exception:
            return
        pytest.fail(
            "upstream describes every error: failure_details of the core's turn_executor can be upstream's alone"
        )

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (unprintable, "the message cannot be shown, since its __str__ raised KeyError"),
            (half_a_pair, "no such file: \\udcff.txt"),
            (caused_by_half_a_pair, "cannot be read"),
        ],
    )
    @pytest.mark.parametrize("is_async", [True, False], ids=["async", "generator"])
    def test_fails_the_instance_here(self, make: Any, message: str, is_async: bool) -> None:
        async def asynchronous(ctx: Any, _: Any) -> Any:
            raise make()

        def generator(ctx: Any, _: Any) -> Any:
            raise make()

        function = asynchronous if is_async else generator
        [action] = answer(worker_with(function), [], begun(function.__name__))

        details = action.completeOrchestration.failureDetails
        assert details.errorType.endswith(f".{type(make()).__name__}")
        assert details.errorMessage == message
        assert "in " in details.stackTrace.value
        inner = make().__cause__
        assert details.HasField("innerFailure") == (inner is not None)
        if inner is not None:
            assert details.innerFailure.errorType.endswith(".LookupError")

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with 3.11")
    def test_inside_a_group_is_named_once(self) -> None:
        async def grouped(ctx: Any, _: Any) -> None:
            raise ExceptionGroup("several", [half_a_pair()])  # noqa: F821

        [action] = answer(worker_with(grouped), [], begun("grouped"))

        details = action.completeOrchestration.failureDetails
        assert details.errorMessage == "several: LookupError: no such file: \\udcff.txt (1 sub-exception)"

    @pytest.mark.parametrize("make", ERRORS)
    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_out_of_an_activity_is_recorded_once_and_the_worker_goes_on(
        self, engine: LocalBackend, client: TaskHubGrpcClient, make: Any, kind: str
    ) -> None:
        attempts: list[int] = []

        def sync(ctx: Any, _: Any) -> None:
            attempts.append(1)
            raise make()

        async def asynchronous(ctx: Any, _: Any) -> None:
            attempts.append(1)
            raise make()

        function = sync if kind == "sync" else asynchronous
        worker = started(engine, function, orchestrators=[call_one])
        try:
            state = run(client, "call_one", [function.__name__, None])
        finally:
            worker.stop()

        assert state.runtime_status is OrchestrationStatus.FAILED
        assert attempts == [1]

    def test_out_of_the_end_of_a_turn_fails_the_instance(self) -> None:
        class Converter(JsonDataConverter):
            def serialize(self, value: Any) -> Any:
                if value == "again":
                    raise Unprintable
                return super().serialize(value)

        def continuing(ctx: Any, _: Any) -> Any:
            ctx.continue_as_new("again")
            yield ctx.create_timer(timedelta(0))

        worker = TaskHubGrpcWorker(logger=QUIET, data_converter=Converter())
        worker.add_orchestrator(continuing)
        [action] = answer(worker, [], begun("continuing"))

        details = action.completeOrchestration.failureDetails
        assert details.errorMessage == (
            "Unprintable while a turn of 'i' was finished: "
            "the message cannot be shown, since its __str__ raised KeyError"
        )


class TestAResultThatTheConverterFailsOn:
    """With what is neither `ValueError` nor `TypeError`: nesting that is too deep, say."""

    @staticmethod
    def converter(error: Any) -> JsonDataConverter:
        class Converter(JsonDataConverter):
            def serialize(self, value: Any) -> Any:
                if value == "result":
                    raise error("in the converter")
                return super().serialize(value)

        return Converter()

    def test_is_never_answered_by_upstream_and_the_instance_runs_for_ever(self) -> None:
        def returning(ctx: Any, _: Any) -> Any:
            return "result"
            yield

        worker = UpstreamWorker(logger=QUIET, data_converter=self.converter(RecursionError))
        worker.add_orchestrator(returning)

        assert answer(worker, [], begun("returning")) == [], (
            "upstream answers when a result cannot be written: has_ended_unsaid of the core's _upstream can go"
        )

    @pytest.mark.parametrize("error", [RecursionError, KeyError, SystemExit])
    @pytest.mark.parametrize("is_async", [True, False], ids=["async", "generator"])
    def test_fails_the_instance_here(self, error: Any, is_async: bool) -> None:
        async def asynchronous(ctx: Any, _: Any) -> Any:
            return "result"

        def generator(ctx: Any, _: Any) -> Any:
            return "result"
            yield

        function: Any = asynchronous if is_async else generator
        worker = TaskHubGrpcWorker(logger=QUIET, data_converter=self.converter(error))
        worker.add_orchestrator(function)
        [action] = answer(worker, [], begun(function.__name__))

        assert action.completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED
        assert "in the converter" in action.completeOrchestration.failureDetails.errorMessage


class TestAnEntityThatRaisesSystemExit:
    @pytest.mark.parametrize("error", [lambda: SystemExit(3), unprintable, half_a_pair])
    def test_fails_one_operation_and_nothing_else(
        self, engine: LocalBackend, client: TaskHubGrpcClient, error: Any
    ) -> None:
        def counter(ctx: Any, _: Any) -> int:
            if ctx.operation == "fail":
                raise error()
            return 1

        async def ask(ctx: Any, operation: str) -> Any:
            return await ctx.call_entity(EntityInstanceId("counter", f"of {error}"), operation)

        worker = TaskHubGrpcWorker(host_address=engine.address, logger=QUIET)
        worker.add_entity(counter)
        worker.add_orchestrator(ask)
        worker.start()
        try:
            failed, alive = run(client, "ask", "fail"), run(client, "ask", "get")
        finally:
            worker.stop()

        assert failed.runtime_status is OrchestrationStatus.FAILED
        assert alive.serialized_output == "1"

    @pytest.mark.parametrize("error", [SystemExit, Unprintable])
    def test_is_not_survived_by_upstream(self, error: type[BaseException]) -> None:
        def counter(ctx: Any, _: Any) -> int:
            raise error

        worker = UpstreamWorker(logger=QUIET)
        worker.add_entity(counter)
        request = pb.EntityBatchRequest(
            instanceId="@counter@key", operations=[pb.OperationRequest(operation="fail", requestId="1")]
        )
        try:
            worker._execute_entity_batch(request, Recorder(), "token")
        except BaseException:
            return
        pytest.fail("upstream survives what entities raise: durabletask_aio.worker.entities.entity_execution can go")
