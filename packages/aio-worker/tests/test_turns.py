"""What a bound worker does around a turn: nothing kills it, nothing lingers, and it says what it sees."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
from datetime import timedelta
from typing import Any

import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.task import RetryPolicy
from durabletask.worker import TaskHubGrpcWorker as UpstreamWorker
from session_hub import Hub, Recorder, each_proof
from worker_support import QUIET, finished, run, started, wait_until

from durabletask_aio.core.disposal import dispose_pending
from durabletask_aio.core.driver import WorkflowRun
from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker.worker import TaskHubGrpcWorker

with_each_proof = pytest.mark.usefixtures(each_proof.__name__)


async def fine(ctx: Any, _: Any) -> str:
    return "fine"


def values(ctx: Any, value: Any) -> Any:
    return value


class TestNothingKillsTheWorker:
    ERRORS = {
        "SystemExit": lambda: SystemExit(3),
        "KeyboardInterrupt": lambda: KeyboardInterrupt("now"),
        "CancelledError": lambda: asyncio.CancelledError("cancelled"),
        "GeneratorExit": lambda: GeneratorExit("exit"),
        "RecursionError": lambda: RecursionError("too deep"),
        "custom BaseException": lambda: type("Custom", (BaseException,), {})("custom"),
    }
    if sys.version_info >= (3, 11):
        ERRORS["BaseExceptionGroup"] = lambda: BaseExceptionGroup("group", [SystemExit(1)])  # noqa: F821

    @pytest.mark.parametrize("kind", [UpstreamWorker, TaskHubGrpcWorker], ids=["upstream's class", "our class"])
    def test_raised_by_an_orchestrator_it_fails_that_instance_alone(
        self, engine: LocalBackend, client: TaskHubGrpcClient, kind: Any
    ) -> None:
        async def asynchronous(ctx: Any, name: str) -> None:
            await ctx.call_activity("values", input=1)
            error = self.ERRORS[name]()
            raise error

        def generator(ctx: Any, name: str) -> Any:
            yield ctx.call_activity("values", input=1)
            error = self.ERRORS[name]()
            raise error

        def immediate(ctx: Any, name: str) -> Any:
            error = self.ERRORS[name]()
            raise error

        worker = started(engine, values, orchestrators=[fine, asynchronous, generator, immediate], worker_class=kind)
        try:
            ids = {
                (orchestrator, name): client.schedule_new_orchestration(orchestrator, input=name)
                for orchestrator in ("asynchronous", "generator", "immediate")
                for name in self.ERRORS
            }
            states = {key: finished(client, instance_id) for key, instance_id in ids.items()}
            alive = run(client, "fine")
        finally:
            worker.stop()

        assert {key: state.runtime_status for key, state in states.items()} == dict.fromkeys(
            ids, OrchestrationStatus.FAILED
        )
        assert alive.serialized_output == '"fine"'
        exit_details = states["generator", "SystemExit"].failure_details
        assert exit_details is not None
        assert (exit_details.error_type.rpartition(".")[2], exit_details.message) == ("SystemExit", "3")

    def test_raised_by_the_data_converter_it_fails_that_instance_alone(
        self, engine: LocalBackend, client: TaskHubGrpcClient
    ) -> None:
        from durabletask.serialization import JsonDataConverter

        class Converter(JsonDataConverter):
            def serialize(self, value: Any) -> Any:
                if value == "exit":
                    raise SystemExit("from the converter")
                return super().serialize(value)

        def continuing(ctx: Any, _: Any) -> Any:
            ctx.continue_as_new("exit")
            yield ctx.create_timer(timedelta(0))

        worker = started(engine, orchestrators=[fine, continuing], data_converter=Converter())
        try:
            state = run(client, "continuing")
            alive = run(client, "fine")
        finally:
            worker.stop()

        assert state.runtime_status is OrchestrationStatus.FAILED
        assert state.failure_details is not None
        assert "SystemExit while a turn" in state.failure_details.message
        assert alive.serialized_output == '"fine"'


class TestUpstreamsDefects:
    """Each fails when upstream fixes the defect, so that our way round it can go."""

    @with_each_proof
    def test_a_second_suspension_is_harmless_here(self) -> None:
        async def waiting(ctx: Any, _: Any) -> Any:
            return await ctx.wait_for_external_event("go")

        hub = Hub(lambda worker: worker.add_orchestrator(waiting) and None)
        hub.start("waiting")
        hub.drain()
        hub.suspend()
        hub.suspend()
        hub.raise_event("go", "1")
        hub.drain()
        hub.resume()
        hub.drain()

        assert (hub.status(), hub.output()) == ("COMPLETED", "1")

    def test_a_second_suspension_makes_upstream_append_to_the_list_it_iterates_over(self) -> None:
        import durabletask.internal.orchestrator_service_pb2 as pb
        from durabletask.serialization import JsonDataConverter
        from durabletask.worker import _OrchestrationExecutor, _Registry, _RuntimeOrchestrationContext

        class Endless(AssertionError):
            pass

        class Counting(list[Any]):
            def append(self, event: Any) -> None:
                super().append(event)
                if len(self) > 100:
                    raise Endless

        converter = JsonDataConverter()
        executor = _OrchestrationExecutor(_Registry(), QUIET, converter)
        context = _RuntimeOrchestrationContext("i", _Registry(), converter)
        executor._suspended_events = Counting()
        suspended = pb.HistoryEvent(executionSuspended=pb.ExecutionSuspendedEvent())
        raised = pb.HistoryEvent(eventRaised=pb.EventRaisedEvent(name="go"))
        for event in (suspended, suspended, raised):
            executor.process_event(context, event)
        with pytest.raises(Endless):
            executor.process_event(context, pb.HistoryEvent(executionResumed=pb.ExecutionResumedEvent()))


class TestAnInstanceThatIsDropped:
    @pytest.fixture
    def engine(self, own_engine: LocalBackend) -> LocalBackend:
        """Not shared: the instances here never end."""
        return own_engine

    @pytest.mark.parametrize("sessions", [0, 1])
    def test_is_closed_in_its_worker_thread_without_a_word(
        self,
        engine: LocalBackend,
        client: TaskHubGrpcClient,
        sessions: int,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        closings: list[str] = []

        async def holding(ctx: Any, _: Any) -> Any:
            try:
                async with asyncio.Lock():
                    await ctx.wait_for_external_event("go")
            finally:
                closings.append(threading.current_thread().name)

        worker = started(engine, orchestrators=[holding], max_extended_sessions=sessions)
        try:
            for _ in range(4):
                client.schedule_new_orchestration("holding")
            # Without sessions each is closed after its turn; with one, three are pushed out by the next.
            expected = 4 - sessions
            assert wait_until(lambda: len(closings) == expected)
            gc.collect()
            assert len(closings) == expected
            assert all(name.startswith(("durabletask-aio-replays-", "durabletask-aio-turns-")) for name in closings)
        finally:
            worker.stop()

        assert len(closings) == 4
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        assert "never awaited" not in out + err

    def test_an_idle_one_is_closed_in_a_thread_for_turns(self, engine: LocalBackend, client: TaskHubGrpcClient) -> None:
        closings: list[str] = []

        async def holding(ctx: Any, _: Any) -> Any:
            try:
                return await ctx.wait_for_external_event("go")
            finally:
                closings.append(threading.current_thread().name)

        worker = started(engine, orchestrators=[holding], max_extended_sessions=9, extended_session_idle_timeout=0.1)
        try:
            instance_id = client.schedule_new_orchestration("holding")
            assert wait_until(lambda: closings != [])
            assert closings[0].startswith("durabletask-aio-turns-")
            assert worker.extended_session_stats.evictions["idle"] == 1
            client.raise_orchestration_event(instance_id, "go", data=5)
            assert finished(client, instance_id).serialized_output == "5"
        finally:
            worker.stop()

    @with_each_proof
    @pytest.mark.parametrize("sessions", [0, 1], ids=["after its turn", "evicted"])
    def test_is_out_of_memory_before_the_garbage_collector_looks(self, sessions: int) -> None:
        async def holding(ctx: Any, _: Any) -> None:
            await ctx.wait_for_external_event("never")

        def runs() -> int:
            dispose_pending()
            return sum(type(each) is WorkflowRun for each in gc.get_objects())

        hub = Hub(lambda worker: worker.add_orchestrator(holding) and None, sessions=sessions)
        gc.collect()
        gc.disable()
        try:
            before = runs()
            for number in range(5):
                hub.start("holding", instance_id=str(number))
                hub.drain()
            after = runs()
        finally:
            gc.enable()

        assert hub.turns == 5
        assert after - before == sessions
        hub.close()

    @with_each_proof
    def test_an_evicted_generator_is_closed_too(self) -> None:
        closed: list[bool] = []

        def holding(ctx: Any, _: Any) -> Any:
            try:
                yield ctx.wait_for_external_event("go")
            finally:
                closed.append(ctx.is_replaying)

        hub = Hub(lambda worker: worker.add_orchestrator(holding) and None)
        hub.reference = hub.workers[0]
        hub.start("holding")
        item = hub.take()
        assert item is not None
        recorder = Recorder()
        hub.workers[0]._execute_orchestrator(item.orchestratorRequest, recorder, item.completionToken)
        hub.evict()

        assert closed == [True]


class TestWarnings:
    def test_of_a_slow_turn_names_workflow_instance_and_line(
        self, engine: LocalBackend, client: TaskHubGrpcClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        logger = logging.getLogger("test.slow")

        pause = threading.Event()

        async def blocking(ctx: Any, _: Any) -> None:
            while "has been running" not in caplog.text:
                pause.wait(0.01)  # one of the two lines

        with caplog.at_level(logging.WARNING, logger="test.slow"):
            worker = started(engine, orchestrators=[blocking], logger=logger, slow_turn_warning=0.1)
            try:
                state = run(client, "blocking")
            finally:
                worker.stop()

        (record,) = [r for r in caplog.records if "has been running" in r.getMessage()]
        message = record.getMessage()
        assert message.startswith(f"{state.instance_id}: a turn of orchestrator blocking has been running for ")
        assert f"{__file__}:" in message
        assert "in blocking (" in message
        assert "ctx.now() does not change within a turn" in message

    def test_of_a_turn_that_waits_for_a_lock_say_so(
        self, engine: LocalBackend, client: TaskHubGrpcClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        lock = threading.Lock()

        async def locking(ctx: Any, _: Any) -> None:
            with lock:
                pass

        logger = logging.getLogger("test.locking")
        with caplog.at_level(logging.WARNING, logger="test.locking"):
            worker = started(engine, orchestrators=[locking], logger=logger, slow_turn_warning=0.1)
            try:
                with lock:
                    instance_id = client.schedule_new_orchestration("locking")
                    assert wait_until(lambda: "has been running" in caplog.text)
                finished(client, instance_id)
            finally:
                worker.stop()

        assert "in locking (with lock:); workflow code must not block" in caplog.text
        assert (
            "use asyncio.Lock within an instance, 'async with ctx.lock_entities(...)' between instances" in caplog.text
        )

    @with_each_proof
    def test_of_a_large_history_name_continue_as_new_and_come_at_each_doubling(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def chain(ctx: Any, count: int) -> None:
            for index in range(count):
                await ctx.call_activity("values", input=index)

        def register(worker: TaskHubGrpcWorker) -> None:
            worker.add_orchestrator(chain)
            worker.add_activity(values)

        hub = Hub(register)
        worker = TaskHubGrpcWorker(logger=logging.getLogger("test.size"), history_size_warning=20)
        register(worker)
        hub.workers = [worker]
        with caplog.at_level(logging.WARNING, logger="test.size"):
            hub.start("chain", "30")
            hub.drain()

        warnings = [r.getMessage() for r in caplog.records if r.name == "test.size"]
        sizes = [int(message.partition(" has ")[2].split()[0]) for message in warnings]
        assert len(sizes) == 3
        assert [20 <= sizes[0] < 40, 40 <= sizes[1] < 80, 80 <= sizes[2] < 160] == [True] * 3
        assert all("continue_as_new()" in message and "orchestrator chain" in message for message in warnings)


class TestLogging:
    @with_each_proof
    def test_of_a_turn_at_debug_is_structured(self, caplog: pytest.LogCaptureFixture) -> None:
        async def one(ctx: Any, _: Any) -> None:
            await ctx.call_activity("values", input=1)

        def register(worker: TaskHubGrpcWorker) -> None:
            worker.add_orchestrator(one)
            worker.add_activity(values)

        hub = Hub(register)
        worker = TaskHubGrpcWorker(logger=logging.getLogger("test.turns"), max_extended_sessions=9)
        register(worker)
        hub.workers = [worker]
        with caplog.at_level(logging.DEBUG, logger="test.turns"):
            hub.start("one")
            hub.drain()

        facts = [r.durabletask_turn for r in caplog.records if hasattr(r, "durabletask_turn")]
        assert [each["served_by"] for each in facts] == ["full replay (new)", "session"]
        assert {each["workflow_name"] for each in facts} == {"one"}
        assert [each["new_events"] for each in facts] == [2, 2]
        assert all(each["duration_ms"] > 0 for each in facts)


@with_each_proof
def test_a_failed_task_is_recorded_under_one_type_by_async_and_generator() -> None:
    def broken(ctx: Any, _: Any) -> None:
        raise ValueError("no")

    async def asynchronous(ctx: Any, _: Any) -> None:
        await ctx.call_activity("broken")

    def generator(ctx: Any, _: Any) -> Any:
        yield ctx.call_activity("broken")

    def register(worker: TaskHubGrpcWorker) -> None:
        worker.add_orchestrator(asynchronous)
        worker.add_orchestrator(generator)
        worker.add_activity(broken)

    hub = Hub(register)
    details = []
    for name in ("asynchronous", "generator"):
        hub.start(name, instance_id=name)
        hub.drain()
        failure = hub.state(name).failureDetails
        details.append((failure.errorType, failure.errorMessage))

    (async_type, async_message), (generator_type, generator_message) = details
    assert async_type == generator_type
    assert async_type.endswith(task.TaskFailedError.__name__)
    assert async_message == (
        "activity 'broken' failed with builtins.ValueError: no "
        "[workflow 'asynchronous', instance 'asynchronous', step 1]"
    )
    assert generator_message == "generator: Activity task #1 failed: no"


IMPATIENT = RetryPolicy(
    first_retry_interval=timedelta(seconds=0.2),
    max_number_of_attempts=5,
    backoff_coefficient=2,
    max_retry_interval=timedelta(seconds=2),
    retry_timeout=timedelta(seconds=2.8),
)


async def impatient(ctx: Any, _: Any) -> None:
    await ctx.call_activity("unsteady", retry_policy=IMPATIENT)


def impatient_generator(ctx: Any, _: Any) -> Any:
    yield ctx.call_activity("unsteady", retry_policy=IMPATIENT)


@pytest.mark.parametrize("sessions", [0, 100])
@pytest.mark.parametrize("orchestrator", [impatient, impatient_generator], ids=lambda function: function.__name__)
def test_no_attempt_begins_after_retry_timeout(
    engine: LocalBackend, client: TaskHubGrpcClient, orchestrator: Any, sessions: int
) -> None:
    attempts: list[int] = []

    def unsteady(ctx: Any, _: Any) -> None:
        attempts.append(1)
        raise RuntimeError("again")

    worker = started(engine, unsteady, orchestrators=[orchestrator], max_extended_sessions=sessions)
    state = run(client, orchestrator)
    worker.stop()

    assert len(attempts) == 4, "at 0, 0.2, 0.6 and 1.4 seconds; the fifth would begin at 3.0"
    assert state.failure_details is not None
    assert state.failure_details.error_type == "durabletask.task.TaskFailedError"


def test_every_attempt_of_a_child_has_its_version(engine: LocalBackend, client: TaskHubGrpcClient) -> None:
    versions: list[str | None] = []

    async def versioned(ctx: Any, _: Any) -> None:
        versions.append(ctx.version)
        if len(versions) < 3:
            raise RuntimeError("again")

    async def parent(ctx: Any, _: Any) -> None:
        policy = RetryPolicy(first_retry_interval=timedelta(milliseconds=20), max_number_of_attempts=3)
        await ctx.call_sub_orchestrator(versioned, version="1.0.0", retry_policy=policy)

    worker = started(engine, orchestrators=[versioned, parent])
    state = run(client, parent)
    worker.stop()

    assert state.failure_details is None
    assert versions == ["1.0.0"] * 3
