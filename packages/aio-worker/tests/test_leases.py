"""What a broken connection does to the work of a worker: nothing, with an engine of this project."""

from __future__ import annotations

import asyncio
import collections
import functools
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
import grpc
import pytest
from durabletask import entities
from durabletask import worker as upstream
from durabletask.client import TaskHubGrpcClient
from durabletask.grpc_options import GrpcWorkerResiliencyOptions
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from durabletask.worker import ConcurrencyOptions
from tcp_proxy import TcpProxy
from worker_support import QUIET, call_one, finished, run, wait_until

from durabletask_aio.engine.embedded import Engine
from durabletask_aio.worker import _upstream
from durabletask_aio.worker import leases as module
from durabletask_aio.worker.binding import binding_of
from durabletask_aio.worker.leases import Leases, lease_of
from durabletask_aio.worker.work_item import WorkItem
from durabletask_aio.worker.worker import TaskHubGrpcWorker

QUICK = GrpcWorkerResiliencyOptions(reconnect_backoff_base_seconds=0.05, reconnect_backoff_cap_seconds=0.2)
"""So that a test need not wait until upstream's worker connects again."""

LONG = 300.0
"""A period that no test waits for: what is dispatched again was not because it is over."""


@pytest.fixture
def served() -> Iterator[tuple[Engine, TcpProxy]]:
    """An engine where leases of absent workers do not end, and a proxy before it."""
    with Engine(reconnect_period=LONG) as engine, TcpProxy(engine.listen().port) as proxy:
        yield engine, proxy


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    """Stop the workers of a test that has failed: a thread of one that runs keeps the process from ending."""
    yield
    while STARTED:
        STARTED.pop().stop()


STARTED: list[Any] = []


def started(
    proxy: TcpProxy,
    *activities: Any,
    workflow: Any = call_one,
    entity: Any = None,
    kind: Any = TaskHubGrpcWorker,
    **options: Any,
) -> Any:
    worker = kind(host_address=proxy.address, **{"logger": QUIET, "resiliency_options": QUICK, **options})
    for activity in activities:
        worker.add_activity(activity)
    worker.add_orchestrator(workflow)
    if entity is not None:
        worker.add_entity(entity)
    STARTED.append(worker)
    worker.start()
    return worker


def held_by(worker: Any) -> frozenset[str]:
    binding = binding_of(worker)
    assert binding is not None
    return binding.leases.held


class Job:
    """An activity that counts its runs and waits for the test, as sync and as async function."""

    def __init__(self) -> None:
        self.runs: collections.Counter[Any] = collections.Counter()
        self.is_free = threading.Event()

    def wait(self, ctx: Any, number: Any) -> Any:
        self.runs[number] += 1
        assert self.is_free.wait(30)
        return number

    async def wait_async(self, ctx: Any, number: Any) -> Any:
        self.runs[number] += 1
        while not self.is_free.is_set():
            await asyncio.sleep(0.01)
        return number


def streams_of(engine: Engine) -> list[Any]:
    with engine.kernel.locked():
        return list(engine.kernel.dispatcher.streams)


def is_connected_again(engine: Engine, before: list[Any]) -> bool:
    return any(each not in before for each in streams_of(engine))


@pytest.mark.parametrize("name", ["wait", "wait_async"])
@pytest.mark.parametrize("kind", [TaskHubGrpcWorker, upstream.TaskHubGrpcWorker])
def test_an_activity_that_a_cut_connection_finds_running_runs_once(
    served: tuple[Engine, TcpProxy], kind: Any, name: str
) -> None:
    engine, proxy = served
    job = Job()
    worker = started(proxy, job.wait_async, job.wait, kind=kind)
    client = engine.client()
    instance_id = client.schedule_new_orchestration(call_one, input=[name, 7])
    assert wait_until(lambda: job.runs[7] == 1)

    for _ in range(3):
        before = streams_of(engine)
        proxy.cut()
        assert wait_until(functools.partial(is_connected_again, engine, before))
    job.is_free.set()

    state = finished(client, instance_id)
    assert (state.serialized_output, job.runs[7]) == ("7", 1)
    assert wait_until(lambda: not held_by(worker))
    worker.stop()


def test_a_result_is_delivered_once_the_connection_is_there_again(served: tuple[Engine, TcpProxy]) -> None:
    engine, proxy = served
    job = Job()
    worker = started(proxy, job.wait)
    client = engine.client()
    instance_id = client.schedule_new_orchestration(call_one, input=["wait", 1])
    # The activity begins before the worker knows that its turn is taken.
    assert wait_until(lambda: job.runs[1] == 1 and len(held_by(worker)) == 1)

    proxy.refuse()
    job.is_free.set()
    wait_until(lambda: False, timeout=0.5)  # the first attempts fail
    assert len(held_by(worker)) == 1
    proxy.accept()

    assert (finished(client, instance_id).serialized_output, job.runs[1]) == ("1", 1)
    worker.stop()


def test_a_turn_whose_answer_was_cut_off_is_answered_again_from_its_session(served: tuple[Engine, TcpProxy]) -> None:
    engine, proxy = served
    turns: list[int] = []
    is_free = threading.Event()

    async def workflow(ctx: Any, _: Any) -> int:
        turns.append(1)
        assert is_free.wait(30)
        await ctx.sleep(0.01)
        return len(turns)

    worker = started(proxy, workflow=workflow, max_extended_sessions=10)
    client = engine.client()
    instance_id = client.schedule_new_orchestration(workflow)
    assert wait_until(lambda: len(turns) == 1)
    before = streams_of(engine)
    proxy.cut()
    assert wait_until(lambda: is_connected_again(engine, before))
    is_free.set()

    assert finished(client, instance_id).serialized_output == "1"
    assert worker.extended_session_stats.hits == 1
    worker.stop()


def test_a_batch_of_an_entity_runs_once(served: tuple[Engine, TcpProxy]) -> None:
    engine, proxy = served
    job = Job()

    def counter(ctx: entities.EntityContext, _: Any) -> int:
        job.wait(None, "entity")
        total = ctx.get_state(int, 0) + 1
        ctx.set_state(total)
        return total

    async def workflow(ctx: Any, _: Any) -> Any:
        return await ctx.call_entity(entities.EntityInstanceId("counter", "a"), "add")

    worker = started(proxy, workflow=workflow, entity=counter)
    client = engine.client()
    instance_id = client.schedule_new_orchestration(workflow)
    assert wait_until(lambda: job.runs["entity"] == 1)
    before = streams_of(engine)
    proxy.cut()
    assert wait_until(lambda: is_connected_again(engine, before))
    job.is_free.set()

    assert (finished(client, instance_id).serialized_output, job.runs["entity"]) == ("1", 1)
    worker.stop()


def test_what_was_lost_on_the_way_is_dispatched_again_at_once(served: tuple[Engine, TcpProxy]) -> None:
    engine, proxy = served
    job = Job()
    worker = started(proxy, job.wait, concurrency_options=ConcurrencyOptions(maximum_concurrent_activity_work_items=2))
    client = engine.client()
    first = client.schedule_new_orchestration(call_one, input=["wait", 1])
    assert wait_until(lambda: job.runs[1] == 1)
    proxy.stall()
    second = client.schedule_new_orchestration(call_one, input=["wait", 2])
    assert wait_until(lambda: engine.kernel.dispatcher.out("orchestration") == 1)

    proxy.cut()
    proxy.flow()
    job.is_free.set()

    outputs = [finished(client, each).serialized_output for each in (first, second)]
    assert (outputs, dict(job.runs)) == (["1", "2"], {1: 1, 2: 1})
    worker.stop()


def test_what_waits_in_a_worker_is_not_begun_once_others_have_it() -> None:
    job = Job()
    with Engine(reconnect_period=0.1) as engine, TcpProxy(engine.listen().port) as proxy:
        # Two activities run, and all others wait in upstream's pool.
        limits = ConcurrencyOptions(maximum_concurrent_activity_work_items=20, maximum_thread_pool_workers=2)
        worker = started(proxy, job.wait, concurrency_options=limits)
        client = engine.client()
        ids = [client.schedule_new_orchestration(call_one, input=["wait", number]) for number in range(10)]
        assert wait_until(lambda: engine.kernel.dispatcher.out("activity") == 10 and len(job.runs) == 2)
        proxy.refuse()
        assert wait_until(lambda: engine.kernel.dispatcher.out("activity") == 0)
        other = TaskHubGrpcWorker(channel=engine.channel, logger=QUIET)
        job_of_other = Job()
        job_of_other.is_free.set()
        other.add_activity(job_of_other.wait)
        other.add_orchestrator(call_one)
        other.start()
        assert wait_until(lambda: len(job_of_other.runs) == 10)
        proxy.accept()
        assert wait_until(lambda: bool(streams_of(engine)[1:]))
        job.is_free.set()

        outputs = [finished(client, each).serialized_output for each in ids]
        assert wait_until(lambda: not held_by(worker))
        worker.stop()
        other.stop()
    assert outputs == [str(number) for number in range(10)]
    assert (len(job.runs), set(job_of_other.runs.values())) == (2, {1})


def test_an_engine_that_was_killed_leaves_a_running_activity_to_its_worker(tmp_path: Any) -> None:
    """The engine is stopped at once, and its file is as after a kill: no lease is given back."""
    job = Job()
    path = tmp_path / "engine.db"
    engine = Engine(path, reconnect_period=LONG).start()
    port = engine.listen().port
    with TcpProxy(port) as proxy:
        worker, other = started(proxy, job.wait), None
        try:
            instance_id = engine.client().schedule_new_orchestration(call_one, input=["wait", 1])
            assert wait_until(lambda: job.runs[1] == 1)
            assert wait_until(lambda: bool(kept_leases(engine)))
            engine.stop()
            engine = Engine(path, reconnect_period=LONG).start()
            engine.listen(port)
            other = started(proxy, job.wait)
            assert wait_until(lambda: len(streams_of(engine)) == 2)
            job.is_free.set()

            state = finished(engine.client(), instance_id)
        finally:
            worker.stop()
            if other is not None:
                other.stop()
            engine.stop()
    assert (state.serialized_output, job.runs[1]) == ("1", 1)


def kept_leases(engine: Engine) -> list[Any]:
    with engine.kernel.locked() as store:
        return list(store.leases())


class TestAWorkerThatStops:
    def test_leaves_what_it_has_not_begun_to_others_at_once(self, served: tuple[Engine, TcpProxy]) -> None:
        engine, proxy = served
        job = Job()
        worker = started(proxy, job.wait)
        client = engine.client()
        assert run(client, call_one, ["wait_not", 0]).failure_details is not None  # the engine is known
        proxy.stall()
        instance_id = client.schedule_new_orchestration(call_one, input=["wait", 1])
        assert wait_until(lambda: engine.kernel.dispatcher.out("orchestration") == 1)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        assert wait_until(lambda: _upstream.is_stopping(worker))
        proxy.flow()
        stopping.join()
        job.is_free.set()

        second = started(proxy, job.wait)
        assert finished(client, instance_id).serialized_output == "1"
        second.stop()

    def test_keeps_what_it_is_working_on_until_it_has_delivered_it(self, served: tuple[Engine, TcpProxy]) -> None:
        engine, proxy = served
        job = Job()
        worker = started(proxy, job.wait)
        client = engine.client()
        instance_id = client.schedule_new_orchestration(call_one, input=["wait", 1])
        assert wait_until(lambda: job.runs[1] == 1)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        assert wait_until(lambda: any(each.is_leaving for each in streams_of(engine)))
        second = started(proxy, job.wait)
        assert wait_until(lambda: len(streams_of(engine)) == 2)
        job.is_free.set()

        assert (finished(client, instance_id).serialized_output, job.runs[1]) == ("1", 1)
        stopping.join()
        assert wait_until(lambda: len(streams_of(engine)) == 1)
        second.stop()

    def test_does_not_retry_a_delivery(self, served: tuple[Engine, TcpProxy]) -> None:
        engine, proxy = served
        job = Job()
        worker = started(proxy, job.wait)
        engine.client().schedule_new_orchestration(call_one, input=["wait", 1])
        assert wait_until(lambda: job.runs[1] == 1)
        proxy.refuse()
        job.is_free.set()
        wait_until(lambda: False, timeout=0.5)
        begin = time.monotonic()
        worker.stop()

        assert time.monotonic() - begin < 5
        assert not held_by(worker)

    def test_has_another_name_when_it_starts_again(self, served: tuple[Engine, TcpProxy]) -> None:
        engine, proxy = served
        worker = started(proxy)
        names: list[str] = []
        for _ in range(2):
            assert wait_until(lambda: any(not each.is_leaving for each in streams_of(engine)))
            names += [each.worker_id for each in streams_of(engine)]
            worker.stop()
            assert wait_until(lambda: not streams_of(engine))
            worker.start()
        worker.stop()

        assert len(set(names)) == 2
        assert all(len(name) == 16 for name in names)


class TestOtherEngines:
    @pytest.fixture
    def address(self) -> Iterator[str]:
        """The address of upstream's in-memory engine."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        engine = InMemoryOrchestrationBackend(port=port)
        yield engine.start()
        engine.stop()

    def test_are_sent_nothing(self, address: str) -> None:
        job = Job()
        worker = TaskHubGrpcWorker(host_address=address, logger=QUIET)
        worker.add_activity(job.wait)
        worker.add_orchestrator(call_one)
        worker.start()
        client = TaskHubGrpcClient(host_address=address, logger=QUIET)
        instance_id = client.schedule_new_orchestration(call_one, input=["wait", 1])
        assert wait_until(lambda: job.runs[1] == 1)
        binding = binding_of(worker)
        assert binding is not None
        try:
            assert (binding.leases.is_known_to_engine, held_by(worker)) == (False, frozenset())
        finally:
            job.is_free.set()
            assert finished(client, instance_id).serialized_output == "1"
            worker.stop()
            client.close()

    @pytest.mark.parametrize("token", ["", "7", "t:7:x", "x:0123456789abcdef:1", "a:0123456789ABCDEF:1:n"])
    def test_have_other_tokens(self, token: str) -> None:
        assert lease_of(token) is None

    def test_are_called_once(self) -> None:
        calls = [Outcome(grpc.StatusCode.UNAVAILABLE)]

        outcome = module.LeaseInterceptor(Leases(QUIET)).intercept_unary_unary(
            lambda details, request: calls.pop(), Details("/TaskHubSidecarService/CompleteActivityTask"), Request("17")
        )

        assert outcome.code() is grpc.StatusCode.UNAVAILABLE


class Outcome:
    def __init__(self, code: Any, *metadata: tuple[str, str]) -> None:
        self._code = code
        self._metadata = metadata

    def trailing_metadata(self) -> Any:
        return self._metadata

    def code(self) -> Any:
        return self._code


class Details:
    timeout = None
    credentials = None

    def __init__(self, method: str) -> None:
        self.method = method
        self.metadata = None


class Request:
    def __init__(self, token: str) -> None:
        self.completionToken = token


OURS = "a:0123456789abcdef:1:nonce"


class TestRetries:
    @pytest.mark.parametrize(
        "method",
        ["CompleteOrchestratorTask", "CompleteActivityTask", "CompleteEntityTask", "AbandonTaskEntityWorkItem"],
    )
    def test_end_with_the_first_answer(self, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
        codes = [grpc.StatusCode.UNAVAILABLE] * 3 + [grpc.StatusCode.INTERNAL]
        answers = iter(Outcome(code) for code in codes)

        outcome = module.LeaseInterceptor(Leases(QUIET)).intercept_unary_unary(
            lambda details, request: next(answers), Details(f"/TaskHubSidecarService/{method}"), Request(OURS)
        )

        assert outcome.code() is grpc.StatusCode.INTERNAL
        assert next(answers, None) is None

    def test_are_made_of_the_first_call_of_a_connection_to_an_engine_that_is_known(self) -> None:
        leases = Leases(QUIET)
        connect = module.LeaseInterceptor(leases).intercept_unary_unary
        hello = Details("/TaskHubSidecarService/Hello")
        known = Outcome(grpc.StatusCode.OK, ("durabletask-aio-engine", "1"))
        answers = [Outcome(grpc.StatusCode.UNAVAILABLE), known, Outcome(grpc.StatusCode.UNAVAILABLE)]

        def call(details: Any, request: Any) -> Any:
            return answers.pop()

        assert connect(call, hello, None).code() is grpc.StatusCode.UNAVAILABLE
        assert connect(call, hello, None).code() is grpc.StatusCode.OK
        answers.append(known)
        answers.append(Outcome(grpc.StatusCode.UNAVAILABLE))
        assert connect(call, hello, None) is known
        assert len(answers) == 1

    def test_end_after_the_period_with_the_last_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        leases, now = Leases(QUIET), 0.0
        calls: list[float] = []

        def wait(seconds: float) -> bool:
            nonlocal now
            now += seconds
            return False

        def call() -> Any:
            calls.append(round(now, 6))
            return Outcome(grpc.StatusCode.UNAVAILABLE)

        monkeypatch.setattr(leases, "_stopping", SimpleNamespace(wait=wait))
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
        monkeypatch.setattr(module, "RETRY_PERIOD", 0.2)
        monkeypatch.setattr(module, "jittered", lambda pause: pause)

        assert leases.deliver(call).code() is grpc.StatusCode.UNAVAILABLE
        assert calls == [0, 0.05, 0.15, 0.2]

    def test_pauses_have_a_maximum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        leases = Leases(QUIET)
        pauses: list[float] = []

        def wait(seconds: float) -> bool:
            pauses.append(seconds)
            return len(pauses) == 9

        monkeypatch.setattr(leases, "_stopping", type("Stopping", (), {"wait": staticmethod(wait)}))
        leases.deliver(lambda: Outcome(grpc.StatusCode.UNAVAILABLE))

        bounds = [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0]
        assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))
        assert len(set(pauses)) > 1


class Submission:
    """A worker that is not connected, and a way to submit work items to it that note what is done with them."""

    def __init__(self) -> None:
        self.worker = TaskHubGrpcWorker(logger=QUIET)
        self.worker.add_activity(self.execute_async, name="async")
        binding = binding_of(self.worker)
        assert binding is not None
        self.binding = binding
        self.leases = binding.leases
        self.calls: list[str] = []
        self.held_meanwhile: list[frozenset[str]] = []
        self.finished = threading.Event()
        binding.work_items.open()
        binding.work_items.call_when_finished(self.finished.set)

    def submit(self, *, is_async: bool = False) -> None:
        kind = _upstream.ACTIVITY if is_async else _upstream.ENTITY_BATCH
        request = pb.ActivityRequest(name="async") if is_async else pb.EntityBatchRequest()
        item = WorkItem(kind, self.execute, self.cancel, request, self, OURS, release=lambda: None)
        self.binding.work_items.submit(item)

    def execute(self, *_: Any) -> None:
        self.held_meanwhile.append(self.leases.held)
        self.calls.append("executed")

    async def execute_async(self, *_: Any) -> None:
        self.execute()

    def cancel(self, *_: Any) -> None:
        self.calls.append("abandoned")

    def CompleteActivityTask(self, response: Any) -> None: ...

    def has_finished(self) -> bool:
        """Whether all items have ended, after which no others are taken."""
        self.binding.work_items.shut_down()
        return self.finished.wait(30)

    def close(self) -> None:
        self.binding.activities.close()
        self.binding.loop.close()
        _upstream.thread_pool_of(self.worker).shutdown()


@pytest.fixture
def submission() -> Iterator[Submission]:
    submission = Submission()
    yield submission
    submission.close()


class LeaseStream:
    """A stream that ends at once, and the engine's answer to it."""

    def __init__(self, *answer: tuple[str, bytes]) -> None:
        self.answer = answer

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def initial_metadata(self) -> Any:
        return self.answer

    def cancel(self) -> None: ...


class TestHeldLeases:
    @pytest.mark.parametrize("is_async", [False, True])
    def test_end_with_the_execution(self, submission: Submission, is_async: bool) -> None:
        submission.submit(is_async=is_async)

        assert submission.has_finished()
        assert submission.held_meanwhile == [frozenset({"0123456789abcdef"})]
        assert submission.leases.held == frozenset()

    @pytest.mark.parametrize("is_async", [False, True])
    def test_do_not_begin_once_the_engine_was_told_that_the_worker_leaves(
        self, submission: Submission, is_async: bool
    ) -> None:
        leases = submission.leases
        opened: list[Any] = []
        stream = leases.open_stream(lambda name, metadata: opened.append(dict(metadata)) or LeaseStream())
        stream.cancel()  # as upstream does before it connects again
        leases.stop()
        stream.cancel()
        submission.submit(is_async=is_async)

        assert submission.has_finished()
        assert [("durabletask-aio-leaving" in each) for each in opened] == [False, True]
        assert (submission.calls, leases.held) == (["abandoned"], frozenset())

    @pytest.mark.parametrize("is_async", [False, True])
    @pytest.mark.parametrize(
        ("known", "answer", "expected"),
        [
            (True, ("durabletask-aio-lost-bin", bytes.fromhex("0123456789abcdef")), "abandoned"),
            (True, ("durabletask-aio-kept-bin", bytes(8)), "abandoned"),
            (True, ("durabletask-aio-kept-bin", bytes.fromhex("0123456789abcdef")), "executed"),
            (False, ("durabletask-aio-kept-bin", b""), "executed"),
        ],
        ids=["lost", "not kept", "kept", "another engine"],
    )
    def test_are_confirmed_before_a_queued_item_begins_after_a_break(
        self, submission: Submission, known: bool, answer: tuple[str, bytes], expected: str, is_async: bool
    ) -> None:
        """Unless there is another engine now, which does not know of them."""
        leases = submission.leases
        assert list(leases.open_stream(lambda name, metadata: LeaseStream())) == []  # it has ended
        submission.submit(is_async=is_async)
        wait_until(lambda: bool(submission.calls), timeout=0.1)
        assert (submission.calls, len(leases.held)) == ([], 1)
        leases.is_known_to_engine = known
        leases.interceptor.intercept_unary_stream(
            lambda details, request: LeaseStream(answer),
            Details("/TaskHubSidecarService/GetWorkItems"),
            SimpleNamespace(),
        )

        assert submission.has_finished()
        assert (submission.calls, leases.held) == ([expected], frozenset())

    def test_do_not_begin_with_a_submission_that_is_refused(self, submission: Submission) -> None:
        assert submission.has_finished()
        with pytest.raises(RuntimeError, match="after shutdown"):
            submission.submit()
        assert submission.leases.held == frozenset()


def test_a_worker_that_was_given_a_channel_is_as_upstreams(served: tuple[Engine, TcpProxy]) -> None:
    engine, _ = served
    job = Job()
    with engine.worker() as worker:
        worker.add_activity(job.wait)
        worker.add_orchestrator(call_one)
        worker.start()
        instance_id = engine.client().schedule_new_orchestration(call_one, input=["wait", 1])
        assert wait_until(lambda: job.runs[1] == 1)
        assert (held_by(worker), [each.worker_id for each in streams_of(engine)]) == (frozenset(), [""])
        job.is_free.set()
        assert finished(engine.client(), instance_id).serialized_output == "1"
