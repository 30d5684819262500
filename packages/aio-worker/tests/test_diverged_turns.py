"""Turns whose history does not fit the code: given back to the engine with pauses, so that no instance is lost."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
import grpc
import pytest
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.entities import EntityInstanceId
from durabletask.testing import create_test_backend
from durabletask.worker import ConcurrencyOptions
from durabletask.worker import TaskHubGrpcWorker as UpstreamWorker
from worker_support import QUIET, finished, wait_until

from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker import diverged_turns
from durabletask_aio.worker.diverged_turns import DivergedTurns
from durabletask_aio.worker.sessions import ExtendedSessionStats
from durabletask_aio.worker.worker import TaskHubGrpcWorker

STOPPED_QUICKLY = 10.0
"""Seconds; a pause of these tests that is not shortened lasts for an hour."""


class Records(logging.Handler):
    """A logger's records, as text."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.texts: list[str] = []
        self.logger = logging.Logger("diverged", level=logging.INFO)  # noqa: LOG001 - not to be found by name
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.levelname} {record.getMessage()}")

    def having(self, text: str) -> list[str]:
        return [each for each in self.texts if text in each]


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diverged_turns, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(diverged_turns, "MAX_PAUSE", 0.1)


@pytest.fixture
def long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diverged_turns, "FIRST_PAUSE", 3600.0)
    monkeypatch.setattr(diverged_turns, "MAX_PAUSE", 3600.0)


@pytest.fixture
def backend(own_engine: LocalBackend) -> LocalBackend:
    return own_engine


@pytest.fixture
def own_client(backend: LocalBackend) -> Iterator[TaskHubGrpcClient]:
    with TaskHubGrpcClient(host_address=backend.address, logger=QUIET) as client:
        yield client


# -- the workflows, in a version that fits and in a bad one -----------------------------------------------------------


class Shop:
    """Workflows of one test, and what their activities have done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def step(self, ctx: Any, what: str) -> str:
        self.done.append(what)
        return what

    async def child(self, ctx: Any, _: None) -> str:
        await ctx.call_activity("step", input="charge")
        await ctx.wait_for_external_event("go")
        await ctx.call_activity("step", input="ship")
        return "shipped"

    async def bad_child(self, ctx: Any, _: None) -> str:
        await ctx.sleep(1)
        return await self.child(ctx, None)

    async def parent(self, ctx: Any, _: None) -> str:
        try:
            return str(await ctx.call_sub_orchestrator("child", instance_id="child"))
        except Exception as error:
            await ctx.call_activity("step", input="refund")
            return f"refunded, since {type(error).__name__}"

    async def holder(self, ctx: Any, _: None) -> str:
        async with ctx.lock_entities([EntityInstanceId("stock", "screws")]):
            await ctx.call_activity("step", input="take")
            await ctx.wait_for_external_event("go")
        return "released"

    async def bad_holder(self, ctx: Any, _: None) -> str:
        await ctx.sleep(1)
        return await self.holder(ctx, None)

    def worker(self, engine: Any, *, bad: bool = False, kind: Any = TaskHubGrpcWorker, **options: Any) -> Any:
        options = {"logger": QUIET, "host_address": engine.address, **options}
        worker = kind(**options)
        worker.add_orchestrator(self.bad_child if bad else self.child, **self._named("child"))
        worker.add_orchestrator(self.bad_holder if bad else self.holder, **self._named("holder"))
        worker.add_orchestrator(self.parent)
        worker.add_activity(self.step)
        worker.add_entity(stock)
        worker.start()
        return worker

    @staticmethod
    def _named(name: str) -> dict[str, str]:
        return {"name": name}


def stock(ctx: Any, _: Any) -> None:
    """An entity that is only locked."""


def has_result(client: TaskHubGrpcClient, instance_id: str) -> bool:
    """Whether the history has the result of an activity."""
    return any("TaskCompleted" in type(event).__name__ for event in client.get_orchestration_history(instance_id))


def begun(shop: Shop, engine: Any, client: TaskHubGrpcClient, name: str = "parent", what: str = "charge") -> str:
    """Start an instance on code that fits, up to its wait for an event, and stop that worker."""
    worker = shop.worker(engine)
    instance_id = client.schedule_new_orchestration(name, instance_id=name)
    assert wait_until(lambda: what in shop.done)
    # The result is in the history, or on its way to it.
    waiting = "child" if name == "parent" else name
    assert wait_until(lambda: has_result(client, waiting))
    worker.stop()
    return instance_id


# -- with an engine ---------------------------------------------------------------------------------------------------


def test_a_bad_deployment_of_a_child_is_healed_by_its_rollback_and_its_parent_has_not_noticed(
    backend: LocalBackend, own_client: TaskHubGrpcClient, short_pauses: None, no_leaks: None
) -> None:
    shop, records = Shop(), Records()
    begun(shop, backend, own_client)

    bad = shop.worker(backend, bad=True, logger=records.logger)
    own_client.raise_orchestration_event("child", "go")
    assert wait_until(lambda: bad.extended_session_stats.diverged_turns >= 3)
    states = [own_client.get_orchestration_state(each) for each in ("parent", "child")]
    bad.stop()
    good = shop.worker(backend)
    parent = finished(own_client, "parent")
    good.stop()

    assert [state.runtime_status for state in states if state] == [OrchestrationStatus.RUNNING] * 2
    assert parent.serialized_output == '"shipped"'
    assert shop.done == ["charge", "ship"]
    (first, *_) = records.having("ERROR")
    assert first.startswith("ERROR child: a turn of orchestrator child has no result, because its history does not fit")
    assert "history and code diverge at step 1: the history has activity 'step', and the code scheduled" in first
    assert "[workflow 'child', instance 'child', step 1]" in first
    assert bad.extended_session_stats.paused_turns == 0


@pytest.mark.parametrize("bad", ["raising", "unregistered"])
@pytest.mark.parametrize("sessions", [100, 0])
def test_code_that_raises_on_replay_and_code_that_is_gone_are_bad_deployments_too(
    backend: LocalBackend, own_client: TaskHubGrpcClient, short_pauses: None, bad: str, sessions: int
) -> None:
    shop, records = Shop(), Records()
    begun(shop, backend, own_client)

    async def raising(ctx: Any, _: None) -> str:
        raise LookupError("this code expects another input")

    worker = TaskHubGrpcWorker(host_address=backend.address, logger=records.logger, max_extended_sessions=sessions)
    if bad == "raising":
        worker.add_orchestrator(raising, name="child")
    worker.add_orchestrator(shop.parent)
    worker.add_activity(shop.step)
    worker.start()
    own_client.raise_orchestration_event("child", "go")
    assert wait_until(lambda: worker.extended_session_stats.diverged_turns >= 3)
    # New instances have no past that could say otherwise: they fail.
    new = finished(own_client, own_client.schedule_new_orchestration("child", instance_id="new"))
    worker.stop()
    good = shop.worker(backend)
    parent = finished(own_client, "parent")
    good.stop()

    assert parent.serialized_output == '"shipped"'
    assert shop.done == ["charge", "ship"]
    assert new.runtime_status is OrchestrationStatus.FAILED
    assert new.failure_details is not None
    (first, *_) = records.having("ERROR child: a turn of orchestrator child has no result")
    if bad == "raising":
        assert new.failure_details.message == "this code expects another input"
        assert "on replay, the code raises LookupError at " in first
        assert "where the history continues: this code expects another input" in first
    else:
        described = "no orchestrator 'child' is registered here; there are: parent"
        assert new.failure_details.message == described
        assert f"its history does not fit the code: {described}" in first


def test_an_instance_of_an_unknown_name_can_be_terminated(
    backend: LocalBackend, own_client: TaskHubGrpcClient, short_pauses: None
) -> None:
    shop = Shop()
    begun(shop, backend, own_client, "child")
    worker = TaskHubGrpcWorker(host_address=backend.address, logger=QUIET)
    worker.add_orchestrator(shop.parent)
    worker.start()
    own_client.raise_orchestration_event("child", "go")
    assert wait_until(lambda: worker.extended_session_stats.diverged_turns >= 1)
    own_client.terminate_orchestration("child", output="not wanted")
    state = finished(own_client, "child")
    worker.stop()

    assert state.runtime_status is OrchestrationStatus.TERMINATED


def test_a_holder_of_a_lock_keeps_it_until_it_is_healed(
    backend: LocalBackend, own_client: TaskHubGrpcClient, short_pauses: None
) -> None:
    shop = Shop()
    begun(shop, backend, own_client, "holder", "take")

    bad = shop.worker(backend, bad=True)
    own_client.raise_orchestration_event("holder", "go")
    assert wait_until(lambda: bad.extended_session_stats.diverged_turns >= 3)
    holder = locked_by(own_client)
    bad.stop()
    good = shop.worker(backend)
    state = finished(own_client, "holder")
    good.stop()

    assert holder == "holder"
    assert state.serialized_output == '"released"'
    assert wait_until(lambda: locked_by(own_client) == "")


def locked_by(client: TaskHubGrpcClient) -> str:
    """The instance that has locked the entity; upstream's client expects an entity there."""
    entity: Any = client.get_entity(EntityInstanceId("stock", "screws"))
    return "" if entity is None else str(entity._locked_by)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(TaskHubGrpcWorker, {"on_divergence": "fail"}), (UpstreamWorker, {})],
    ids=["fail", "upstream's class"],
)
def test_the_instance_fails_at_once_with_upstreams_way(
    backend: LocalBackend, own_client: TaskHubGrpcClient, kind: Any, options: dict[str, Any], short_pauses: None
) -> None:
    shop = Shop()
    begun(shop, backend, own_client)
    worker = UpstreamNamed if kind is UpstreamWorker else kind

    bad = shop.worker(backend, bad=True, kind=worker, **options)
    own_client.raise_orchestration_event("child", "go")
    state = finished(own_client, "child")
    parent = finished(own_client, "parent")
    bad.stop()

    assert state.runtime_status is OrchestrationStatus.FAILED
    assert state.failure_details is not None
    assert state.failure_details.error_type == "durabletask.aio.HistoryDivergenceError"
    assert parent.serialized_output is not None
    assert "refunded" in parent.serialized_output
    assert bad.extended_session_stats.diverged_turns == 0


class UpstreamNamed(UpstreamWorker):
    """Upstream's class, whose `add_orchestrator` takes names of functions only."""

    def add_orchestrator(self, fn: Any, *, name: str | None = None) -> str:
        async def workflow(ctx: Any, value: Any) -> Any:
            return await fn(ctx, value)

        workflow.__name__ = name or fn.__name__
        return super().add_orchestrator(workflow)


def test_a_worker_that_stops_gives_everything_back_at_once(
    backend: LocalBackend, own_client: TaskHubGrpcClient, long_pauses: None, no_leaks: None
) -> None:
    shop = Shop()
    begun(shop, backend, own_client)

    bad = shop.worker(backend, bad=True)
    own_client.raise_orchestration_event("child", "go")
    assert wait_until(lambda: bad.extended_session_stats.paused_turns == 1)
    since = time.monotonic()
    bad.stop()
    good = shop.worker(backend)
    parent = finished(own_client, "parent")
    took = time.monotonic() - since
    good.stop()

    assert parent.serialized_output == '"shipped"'
    assert took < STOPPED_QUICKLY


def test_an_instance_that_does_not_fit_can_be_terminated(
    backend: LocalBackend, own_client: TaskHubGrpcClient, short_pauses: None
) -> None:
    shop = Shop()
    begun(shop, backend, own_client)

    bad = shop.worker(backend, bad=True)
    own_client.raise_orchestration_event("child", "go")
    assert wait_until(lambda: bad.extended_session_stats.diverged_turns >= 2)
    own_client.terminate_orchestration("child", output="not wanted")
    state = finished(own_client, "child")
    bad.stop()

    assert state.runtime_status is OrchestrationStatus.TERMINATED
    assert state.serialized_output == '"not wanted"'
    assert shop.done[0] == "charge"
    assert "ship" not in shop.done


def test_an_instance_that_has_begun_anew_under_its_id_does_not_wait_for_the_pause(
    backend: LocalBackend, own_client: TaskHubGrpcClient, long_pauses: None
) -> None:
    shop = Shop()
    begun(shop, backend, own_client, "child")

    bad = shop.worker(backend, bad=True)
    own_client.raise_orchestration_event("child", "go")
    assert wait_until(lambda: bad.extended_session_stats.paused_turns == 1)
    own_client.terminate_orchestration("child")
    binding: Any = bad
    (turn,) = binding._durabletask_aio.turns.diverged._paused.values()
    turn.stub.AbandonTaskOrchestratorWorkItem(pb.AbandonOrchestrationTaskRequest(completionToken=turn.token))
    assert finished(own_client, "child").runtime_status is OrchestrationStatus.TERMINATED
    own_client.purge_orchestration("child")
    own_client.schedule_new_orchestration("child", instance_id="child")
    own_client.raise_orchestration_event("child", "go")
    state = finished(own_client, "child")
    bad.stop()

    assert state.serialized_output == '"shipped"'


def test_upstreams_in_memory_engine_takes_turns_back_and_gives_them_to_a_worker_that_fits(short_pauses: None) -> None:
    shop, backend = Shop(), InMemory()
    try:
        with TaskHubGrpcClient(host_address=backend.address, logger=QUIET) as client:
            begun(shop, backend, client)
            bad = shop.worker(backend, bad=True)
            client.raise_orchestration_event("child", "go")
            assert wait_until(lambda: bad.extended_session_stats.diverged_turns >= 3)
            good = shop.worker(backend)
            parent = finished(client, "parent")
            bad.stop()
            good.stop()
    finally:
        backend.stop()

    assert parent.serialized_output == '"shipped"'
    assert shop.done == ["charge", "ship"]


class InMemory:
    """Upstream's engine for tests."""

    def __init__(self) -> None:
        import socket

        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        self._backend = create_test_backend(port=port)
        self.address = f"localhost:{port}"

    def stop(self) -> None:
        self._backend.stop()


class WithoutAbandonment(grpc.UnaryUnaryClientInterceptor):
    """Makes an engine one that does not implement the call, by calling a method of another name."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        if details.method.endswith("/AbandonTaskOrchestratorWorkItem"):
            details = details._replace(method="/TaskHubSidecarService/NoSuchMethod")
        return continuation(details, request)


def test_an_engine_that_cannot_take_turns_back_has_its_instances_failed(
    backend: LocalBackend, own_client: TaskHubGrpcClient, short_pauses: None, no_leaks: None
) -> None:
    shop, records = Shop(), Records()
    begun(shop, backend, own_client)

    bad = shop.worker(backend, bad=True, logger=records.logger, interceptors=[WithoutAbandonment()])
    own_client.raise_orchestration_event("child", "go")
    state = finished(own_client, "child")
    bad.stop()

    assert state.runtime_status is OrchestrationStatus.FAILED
    assert state.failure_details is not None
    assert state.failure_details.error_type == "durabletask.aio.HistoryDivergenceError"
    assert len(records.having("The engine cannot take turns back (UNIMPLEMENTED)")) == 1


# -- by itself --------------------------------------------------------------------------------------------------------


class Refused(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code)
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


class Engine:
    """What a worker gives back to an engine; in place of a stub."""

    def __init__(self, error: Exception | None = None) -> None:
        self.given_back: list[str] = []
        self.error = error

    def AbandonTaskOrchestratorWorkItem(self, request: pb.AbandonOrchestrationTaskRequest, timeout: float) -> None:
        if self.error is not None:
            raise self.error
        self.given_back.append(request.completionToken)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Alone:
    """`DivergedTurns` without a worker."""

    def __init__(self, *, slots: int = 50, error: Exception | None = None) -> None:
        self.records = Records()
        self.stats = ExtendedSessionStats()
        self.engine = Engine(error)
        self.clock = Clock()
        self.answered: list[str] = []
        self.turns = DivergedTurns(
            self.records.logger,
            self.stats,
            retry=True,
            slots=slots,
            answer=lambda request, stub, token: self.answered.append(token),
            clock=self.clock,
        )
        self.turns.open()

    def add(self, instance_id: str = "a", token: str = "t") -> None:
        self.turns.add(request_of(instance_id), self.engine, token, LookupError(f"{instance_id} does not fit"))

    def takes(self, instance_id: str = "a", token: str = "t", *events: pb.HistoryEvent) -> bool:
        return self.turns.takes(request_of(instance_id, *events), self.engine, token)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        with self.turns._changed:
            self.turns._changed.notify_all()


@pytest.fixture
def alone() -> Iterator[Callable[..., Alone]]:
    made: list[Alone] = []

    def make(**options: Any) -> Alone:
        made.append(Alone(**options))
        return made[-1]

    yield make
    for each in made:
        each.turns.close()


def request_of(instance_id: str, *events: pb.HistoryEvent, execution_id: str = "1") -> pb.OrchestratorRequest:
    started = pb.ExecutionStartedEvent(name="wf")
    started.orchestrationInstance.instanceId = instance_id
    started.orchestrationInstance.executionId.value = execution_id
    past = [pb.HistoryEvent(eventId=-1, executionStarted=started)]
    return pb.OrchestratorRequest(instanceId=instance_id, pastEvents=past, newEvents=events)


def has_given_back(it: Alone, count: int) -> bool:
    return len(it.engine.given_back) == count


def test_pauses_grow_from_one_to_sixty_seconds_and_each_doubling_is_logged(alone: Any) -> None:
    it = alone()
    pauses, logged = [], []
    for attempt in range(1, 31):
        it.add(token=str(attempt))
        if len(it.records.texts) > len(logged):
            logged.append(attempt)
            assert f"Attempt {attempt}; " in it.records.texts[-1]
        pause = it.turns._paused["a"].due - it.clock.now
        it.pass_time(pause)
        pauses.append(pause)
        assert wait_until(partial(has_given_back, it, attempt))

    assert it.engine.given_back == [str(attempt) for attempt in range(1, 31)]
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert logged == [1, 2, 3, 4, 5, 6, 7, 14, 28]
    assert it.stats.diverged_turns == 30
    assert "Attempt 7; the turn is given back to the engine after 60 s" in it.records.texts[6]


def test_a_turn_that_comes_back_before_its_pause_is_over_is_not_executed(alone: Any) -> None:
    it = alone()
    it.add(token="1")
    assert it.takes(token="2")
    assert it.engine.given_back == ["1"], "the engine has dispatched it twice"
    assert it.stats.paused_turns == 1

    it.pass_time(1)
    assert wait_until(lambda: it.engine.given_back == ["1", "2"])
    assert not it.takes(token="3")


@pytest.mark.parametrize("other", ["instance", "execution", "termination"])
def test_only_the_turns_of_that_execution_are_taken(alone: Any, other: str) -> None:
    it = alone()
    it.add("a")
    request = request_of(
        "b" if other == "instance" else "a",
        *([pb.HistoryEvent(executionTerminated=pb.ExecutionTerminatedEvent())] if other == "termination" else ()),
        execution_id="2" if other == "execution" else "1",
    )
    assert not it.turns.takes(request, it.engine, "t")


def test_an_instance_that_fits_again_begins_anew_with_short_pauses(alone: Any) -> None:
    it = alone()
    it.add(token="1")
    it.pass_time(1)
    assert wait_until(lambda: it.engine.given_back == ["1"])
    it.turns.fits("a")
    assert it.records.texts[-1] == "INFO a: history and code of orchestrator wf fit again, after 1 attempt(s)"
    it.add(token="2")
    assert "Attempt 1; the turn is given back to the engine after 1 s" in it.records.texts[-1]


def test_beyond_the_slots_turns_are_given_back_at_once_with_one_summary_a_minute(alone: Any) -> None:
    it = alone(slots=2)
    for number in range(10):
        it.add(str(number), token=str(number))
    summaries = it.records.having("The histories of")

    assert it.stats.paused_turns == 2
    assert it.engine.given_back == [str(number) for number in range(2, 10)]
    assert len(summaries) == 1
    assert "2 turn(s) are held back, a quarter of the worker's slots" in summaries[0]
    assert "For example 2: 2 does not fit" in summaries[0]
    assert len(it.records.having("has no result")) == 2, "of those that are held back"

    assert it.takes("5", token="again"), "not executed before its pause is over, in vain"
    assert it.engine.given_back[-1] == "again"
    it.clock.now += diverged_turns.SUMMARY_INTERVAL
    assert it.takes("6", token="6 again"), "no slot is free for another pause"
    (_, second) = it.records.having("The histories of")
    assert "The histories of 10 instances" in second
    assert "since the last message of this kind, 9 turn(s) were given back" in second

    it.pass_time(0)
    assert wait_until(lambda: it.stats.paused_turns == 0)
    assert not it.takes("6"), "executed, now that there is one"


def test_no_turn_is_held_back_by_a_worker_with_fewer_than_four_slots(alone: Any) -> None:
    it = alone(slots=3 // 4)
    it.add(token="1")
    assert it.engine.given_back == ["1"]
    assert "ERROR" in it.records.texts[0]


def test_the_first_unimplemented_answers_all_turns_that_are_held_back(alone: Any) -> None:
    it = alone(error=Refused(grpc.StatusCode.UNIMPLEMENTED))
    for name in "abc":
        it.add(name, token=name)
    it.pass_time(1)
    assert wait_until(lambda: sorted(it.answered) == ["a", "b", "c"])
    assert not it.turns.is_retrying
    assert len(it.records.having("UNIMPLEMENTED")) == 1

    it.turns.close()
    it.turns.open()
    assert it.turns.is_retrying, "the next start may find another engine"


@pytest.mark.parametrize(
    "error", [Refused(grpc.StatusCode.UNAVAILABLE), ValueError("Cannot invoke RPC on closed channel!")], ids=repr
)
def test_a_broken_connection_leaves_the_turn_to_the_engine(alone: Any, error: Exception) -> None:
    it = alone(error=error)
    it.add()
    it.pass_time(1)
    assert wait_until(lambda: not it.stats.paused_turns)
    it.engine.error = None
    it.add(token="2")
    it.pass_time(2)
    assert wait_until(lambda: it.engine.given_back == ["2"])
    assert it.turns.is_retrying


def test_a_closed_one_holds_nothing_back(alone: Any) -> None:
    it = alone()
    before = set(threading.enumerate())
    it.add("a", token="a")
    it.turns.close()
    assert it.engine.given_back == ["a"]
    it.add("b", token="b")
    assert it.engine.given_back == ["a", "b"]
    assert set(threading.enumerate()) <= before


# -- under load -------------------------------------------------------------------------------------------------------


async def waiting(ctx: Any, _: None) -> int:
    await ctx.call_activity("double", input=1)
    await ctx.wait_for_external_event("go")
    return 1


async def bad_waiting(ctx: Any, _: None) -> int:
    await ctx.sleep(1)
    return await waiting(ctx, None)


async def healthy(ctx: Any, _: None) -> int:
    total = 0
    for number in range(10):
        total += await ctx.call_activity("double", input=number)
    return total


def double(ctx: Any, number: int) -> int:
    return number * 2


def seconds_for_healthy(client: TaskHubGrpcClient, count: int) -> float:
    since = time.monotonic()
    instances = [client.schedule_new_orchestration("healthy") for _ in range(count)]
    for instance in instances:
        assert finished(client, instance).serialized_output == "90"
    return time.monotonic() - since


@pytest.mark.slow
def test_a_thousand_instances_that_do_not_fit_leave_healthy_ones_their_time(
    backend: LocalBackend, own_client: TaskHubGrpcClient
) -> None:
    concurrency = ConcurrencyOptions(maximum_concurrent_orchestration_work_items=200)
    options: dict[str, Any] = {"concurrency_options": concurrency, "logger": QUIET}

    def worker(code: Any) -> Any:
        worker = TaskHubGrpcWorker(host_address=backend.address, **options)
        worker.add_orchestrator(code, name="waiting")
        worker.add_orchestrator(healthy)
        worker.add_activity(double)
        worker.start()
        return worker

    good = worker(waiting)
    alone = statistics.median(seconds_for_healthy(own_client, 100) for _ in range(3))
    ill = [own_client.schedule_new_orchestration("waiting", instance_id=f"ill-{number}") for number in range(1000)]
    for instance_id in ill:
        assert wait_until(partial(has_result, own_client, instance_id))
    good.stop()

    bad = worker(bad_waiting)
    stats = bad.extended_session_stats
    for instance_id in ill:
        own_client.raise_orchestration_event(instance_id, "go")
    # Each has been executed once, and either waits or has been given back at once.
    assert wait_until(lambda: stats.diverged_turns >= 1000)
    beside = [seconds_for_healthy(own_client, 100) for _ in range(5)]
    paused = stats.paused_turns
    bad.stop()
    good = worker(waiting)
    outcomes = {finished(own_client, instance_id).serialized_output for instance_id in ill}
    good.stop()

    print(f"\nalone {alone:.2f} s, beside {beside}, diverged turns {stats.diverged_turns}, paused {paused}")
    assert paused <= 50
    assert statistics.median(beside) <= 2 * alone
    assert outcomes == {"1"}
