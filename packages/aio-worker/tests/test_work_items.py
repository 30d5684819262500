"""Work items on their way from the stream to a thread: limits, order, streams that end, stopping, errors."""

from __future__ import annotations

import asyncio
import collections
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import durabletask.internal.orchestrator_service_pb2 as pb
import durabletask.internal.orchestrator_service_pb2_grpc as grpc_stubs
import grpc
import pytest
from durabletask import worker as upstream
from durabletask.client import TaskHubGrpcClient
from durabletask.grpc_options import GrpcWorkerResiliencyOptions
from durabletask.worker import ConcurrencyOptions
from google.protobuf.empty_pb2 import Empty
from worker_support import QUIET, call_one, run, wait_until

from durabletask_aio.engine.channel import InProcessChannel
from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker import _upstream, deliveries
from durabletask_aio.worker.binding import binding_of
from durabletask_aio.worker.worker import TaskHubGrpcWorker

QUICK = GrpcWorkerResiliencyOptions(reconnect_backoff_base_seconds=0.01, reconnect_backoff_cap_seconds=0.02)


class Hub(grpc_stubs.TaskHubSidecarServiceServicer):
    """An engine that sends what a test tells it to, whatever the worker has declared, and notes the answers."""

    def __init__(self) -> None:
        self.token: Callable[[int], str] = str
        self.messages: queue.Queue[Any] = queue.Queue()
        self.answers: collections.Counter[str] = collections.Counter()
        """How often which work item was completed or abandoned."""
        self.streams = self.open_streams = self.answers_without_stream = 0

    def Hello(self, request: Any, context: Any) -> Empty:
        return Empty()

    def GetWorkItems(self, request: Any, context: Any) -> Iterator[pb.WorkItem]:
        self.streams += 1
        self.open_streams += 1
        try:
            yield from self._messages(context)
        finally:
            self.open_streams -= 1

    def _messages(self, context: Any) -> Iterator[pb.WorkItem]:
        while context.is_active():
            try:
                message = self.messages.get(timeout=0.02)
            except queue.Empty:
                continue
            if message is None:
                context.abort(grpc.StatusCode.UNAVAILABLE, "broken")
            yield message

    def _answer(self, kind: str, request: Any, response: Any) -> Any:
        self.answers_without_stream += not self.open_streams
        self.answers[f"{request.completionToken} {kind}"] += 1
        return response

    def CompleteActivityTask(self, request: Any, context: Any) -> Any:
        return self._answer("done", request, pb.CompleteTaskResponse())

    def CompleteOrchestratorTask(self, request: Any, context: Any) -> Any:
        return self._answer("done", request, pb.CompleteTaskResponse())

    def AbandonTaskActivityWorkItem(self, request: Any, context: Any) -> Any:
        return self._answer("abandoned", request, pb.AbandonActivityTaskResponse())

    def AbandonTaskOrchestratorWorkItem(self, request: Any, context: Any) -> Any:
        return self._answer("abandoned", request, pb.AbandonOrchestrationTaskResponse())

    def activity(self, name: str, *numbers: int) -> None:
        for number in numbers:
            request = pb.ActivityRequest(
                name=name, taskId=number, orchestrationInstance=pb.OrchestrationInstance(instanceId="i")
            )
            request.input.value = str(number)
            self.messages.put(pb.WorkItem(activityRequest=request, completionToken=self.token(number)))

    def turn(self, token: str) -> None:
        started = pb.HistoryEvent(executionStarted=pb.ExecutionStartedEvent(name="workflow"))
        request = pb.OrchestratorRequest(instanceId=token, newEvents=[pb.HistoryEvent(), started])
        request.newEvents[0].orchestratorStarted.SetInParent()
        self.messages.put(pb.WorkItem(orchestratorRequest=request, completionToken=token))

    def break_stream(self) -> None:
        self.messages.put(None)

    def answered(self, *answers: str) -> Callable[[], bool]:
        return lambda: all(self.answers[each] for each in answers)


class Jobs:
    """Activities that run until the test lets them end, and what ran when."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.begun: list[int] = []
        self.running = self.most = 0
        self.is_free = threading.Event()

    def begin(self, number: int) -> None:
        with self.lock:
            self.begun.append(number)
            self.running += 1
            self.most = max(self.most, self.running)

    def end(self) -> None:
        with self.lock:
            self.running -= 1

    def wait(self, ctx: Any, number: int) -> None:
        self.begin(number)
        assert self.is_free.wait(30)
        self.end()

    async def wait_async(self, ctx: Any, number: int) -> None:
        self.begin(number)
        while not self.is_free.is_set():
            await asyncio.sleep(0.01)
        self.end()


async def workflow(ctx: Any, _: Any) -> str:
    return "done"


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    jobs.is_free.set()


Start = Callable[..., Any]


@pytest.fixture
def start(hub: Hub, jobs: Jobs) -> Iterator[Start]:
    """Start a worker of `hub`; it is stopped after the test."""
    workers: list[Any] = []

    def start(limit: int = 100, threads: int = 8, **options: Any) -> Any:
        concurrency = ConcurrencyOptions(limit, 100, 100, threads)
        channel = InProcessChannel(hub)
        options = {"logger": QUIET, "resiliency_options": QUICK, **options}
        worker = TaskHubGrpcWorker(channel=channel, concurrency_options=concurrency, **options)
        worker.add_activity(jobs.wait)
        worker.add_activity(jobs.wait_async)
        worker.add_orchestrator(workflow)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    jobs.is_free.set()
    for worker in workers:
        worker.stop()


class BusyHub(Hub):
    """An engine that answers with no result before it has received as many as `parties`."""

    def __init__(self, parties: int) -> None:
        super().__init__()
        self.received = threading.Barrier(parties)

    def CompleteActivityTask(self, request: Any, context: Any) -> Any:
        self.received.wait(30)
        return super().CompleteActivityTask(request, context)


class WaitingInterceptor(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc, unused-ignore]
    """An interceptor that waits for the outcome of each call, and notes on which thread."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        outcome = continuation(details, request)
        outcome.exception()
        if "CompleteActivityTask" in str(details.method):
            self.threads.add(threading.current_thread().name)
        return outcome


@contextmanager
def over_grpc(hub: Hub, jobs: Jobs, **options: Any) -> Iterator[None]:
    """Serve `hub` over gRPC to a worker."""
    server = grpc.server(ThreadPoolExecutor(50))
    grpc_stubs.add_TaskHubSidecarServiceServicer_to_server(hub, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    worker = TaskHubGrpcWorker(host_address=address, logger=QUIET, resiliency_options=QUICK, **options)
    worker.add_activity(jobs.wait_async)
    worker.start()
    try:
        yield
    finally:
        jobs.is_free.set()
        worker.stop()
        server.stop(None).wait()


class TestResultsOfAsyncActivities:
    def test_do_not_wait_for_each_other(self, jobs: Jobs) -> None:
        hub = BusyHub(30)
        jobs.is_free.set()
        with over_grpc(hub, jobs):
            hub.activity("wait_async", *range(30))
            assert wait_until(hub.answered(*(f"{number} done" for number in range(30))))

        assert set(hub.answers.values()) == {1}

    def test_are_so_many_in_flight_at_most(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deliveries, "MAX_CALLS", 3)
        calls: list[Future[None]] = []
        outcomes: queue.Queue[Exception | None] = queue.Queue()
        closed = ValueError("the channel is closed")

        def start() -> Future[None]:
            calls.append(Future())
            if len(calls) == 5:
                raise closed
            return calls[-1]

        sending = deliveries.Deliveries()
        for _ in range(7):
            sending.send(start, outcomes.put)
        assert len(calls) == 3
        refused = RuntimeError("refused")
        calls[1].set_exception(refused)
        assert outcomes.get(timeout=30) is refused
        assert len(calls) == 4
        calls[0].set_result(None)  # The next call cannot be started; the one after that takes its place.
        assert {outcomes.get(timeout=30), outcomes.get(timeout=30)} == {None, closed}
        assert wait_until(lambda: len(calls) == 6)
        for each in (2, 3, 5):
            calls[each].set_result(None)
        assert wait_until(lambda: len(calls) == 7)
        calls[6].set_result(None)
        sending.close()

        assert [outcomes.get(timeout=30) for _ in range(4)] == [None] * 4

    def test_do_not_have_the_event_loop_wait_for_an_interceptor(self, hub: Hub, jobs: Jobs) -> None:
        interceptor = WaitingInterceptor()
        jobs.is_free.set()
        with over_grpc(hub, jobs, interceptors=[interceptor]):
            hub.activity("wait_async", 1)
            assert wait_until(hub.answered("1 done"))
            assert wait_until(lambda: len(interceptor.threads) > 0)

        assert all(name.startswith("durabletask-aio-delivery") for name in interceptor.threads)


class TestLimits:
    @pytest.mark.parametrize("names", [("wait", "wait"), ("wait_async", "wait_async"), ("wait", "wait_async")])
    def test_at_most_so_many_of_a_kind_run_at_a_time(
        self, hub: Hub, jobs: Jobs, start: Start, names: tuple[str, str]
    ) -> None:
        start(limit=3)
        for number in range(10):
            hub.activity(names[number % 2], number)
        assert wait_until(lambda: jobs.running == 3)
        hub.turn("t")  # another kind, which is not held up
        assert wait_until(hub.answered("t done"))
        assert jobs.running == 3
        jobs.is_free.set()

        assert wait_until(hub.answered(*(f"{number} done" for number in range(10))))
        assert (jobs.most, sorted(jobs.begun)) == (3, list(range(10)))

    def test_what_waits_begins_in_the_order_of_its_arrival(self, hub: Hub, jobs: Jobs, start: Start) -> None:
        start(limit=1)
        hub.activity("wait", *range(20))
        assert wait_until(lambda: jobs.begun == [0])
        jobs.is_free.set()

        assert wait_until(lambda: len(jobs.begun) == 20)
        assert jobs.begun == list(range(20))


class TestAStreamThatEnds:
    @pytest.mark.parametrize("name", ["wait", "wait_async"])
    def test_what_waits_in_the_queue_is_abandoned_at_once(self, hub: Hub, jobs: Jobs, start: Start, name: str) -> None:
        """And what runs is not: its result may still count."""
        start(limit=1)
        hub.activity(name, 0, 1, 2)
        assert wait_until(lambda: jobs.begun == [0])
        hub.break_stream()
        assert wait_until(hub.answered("1 abandoned", "2 abandoned"))
        assert wait_until(lambda: hub.streams == 2)
        hub.activity(name, 3)
        jobs.is_free.set()

        assert wait_until(hub.answered("0 done", "3 done"))
        assert jobs.begun == [0, 3]

    def test_what_waits_for_a_thread_is_abandoned(self, hub: Hub, jobs: Jobs, start: Start) -> None:
        start(limit=10, threads=1)
        hub.activity("wait", 0, 1, 2)
        assert wait_until(lambda: jobs.begun == [0])
        hub.break_stream()
        assert wait_until(lambda: hub.streams == 2)
        hub.activity("wait", 3)
        jobs.is_free.set()

        assert wait_until(hub.answered("0 done", "1 abandoned", "2 abandoned", "3 done"))
        assert jobs.begun == [0, 3]

    def test_what_cannot_be_abandoned_is_forgotten(
        self, hub: Hub, jobs: Jobs, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(Hub, "AbandonTaskActivityWorkItem")
        start(limit=1)
        hub.activity("wait", 0, 1)
        assert wait_until(lambda: jobs.begun == [0])
        hub.break_stream()
        assert wait_until(lambda: hub.streams == 2)
        hub.activity("wait", 2)
        jobs.is_free.set()

        assert wait_until(hub.answered("0 done", "2 done"))
        assert jobs.begun == [0, 2]


class TestStopping:
    @pytest.mark.parametrize("token", [str, "a:{:016x}:1:nonce".format], ids=["of another engine", "of this project's"])
    def test_waits_for_all_that_the_worker_has_taken(
        self, hub: Hub, jobs: Jobs, start: Start, token: Callable[[int], str]
    ) -> None:
        hub.token = token
        worker = start(limit=1)
        hub.activity("wait", 0, 1, 2)
        assert wait_until(lambda: jobs.begun == [0])
        assert wait_until(hub.messages.empty)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        stopping.join(0.2)
        assert stopping.is_alive()
        jobs.is_free.set()
        stopping.join(30)

        assert not stopping.is_alive()
        assert hub.answers == {f"{token(number)} done": 1 for number in range(3)}

    def test_async_activities_that_have_not_begun_are_abandoned(self, hub: Hub, jobs: Jobs, start: Start) -> None:
        worker = start(limit=1)
        hub.activity("wait_async", 0, 1, 2)
        assert wait_until(lambda: jobs.begun == [0])
        assert wait_until(hub.messages.empty)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        binding = binding_of(worker)
        assert binding is not None
        assert wait_until(lambda: binding.activities.is_stopping)
        jobs.is_free.set()
        stopping.join(30)

        assert hub.answers == {"0 done": 1, "1 abandoned": 1, "2 abandoned": 1}

    def test_the_stream_ends_after_what_the_worker_has_taken(self, hub: Hub, jobs: Jobs, start: Start) -> None:
        """An engine that knows no leases drops the results of a stream that has ended."""
        worker = start(limit=1)
        hub.activity("wait", 0, 1)
        assert wait_until(lambda: jobs.begun == [0])
        assert wait_until(hub.messages.empty)
        binding = binding_of(worker)
        assert binding is not None
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        assert wait_until(lambda: binding.work_items.is_draining)
        hub.activity("wait", 2)
        assert wait_until(hub.messages.empty)
        assert hub.open_streams == 1
        jobs.is_free.set()
        stopping.join(30)

        assert wait_until(lambda: hub.open_streams == 0)
        assert hub.answers == {"0 done": 1, "1 done": 1, "2 abandoned": 1}
        assert hub.answers_without_stream == 0

    def test_an_idle_worker_stops_without_waiting(self, hub: Hub, start: Start) -> None:
        """Upstream looks once a second whether it should stop."""
        worker = start()
        assert wait_until(lambda: hub.streams == 1)
        begin = time.monotonic()
        worker.stop()

        assert time.monotonic() - begin < 0.5

    def test_a_worker_can_start_again(self, hub: Hub, jobs: Jobs, start: Start) -> None:
        jobs.is_free.set()
        worker = start()
        hub.activity("wait", 0)
        assert wait_until(hub.answered("0 done"))
        worker.stop()
        worker.start()
        hub.activity("wait_async", 1)

        assert wait_until(hub.answered("1 done"))


class TestErrors:
    @pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit("no")], ids=["exception", "exit"])
    def test_an_item_whose_handler_raises_is_abandoned(
        self, hub: Hub, jobs: Jobs, start: Start, caplog: pytest.LogCaptureFixture, error: BaseException
    ) -> None:
        logger = logging.getLogger("errors of work items")
        worker = start(limit=1, logger=logger)

        def fail(*_: Any) -> None:
            raise error

        handler, worker._execute_activity = worker._execute_activity, fail
        hub.activity("wait", 0)
        assert wait_until(hub.answered("0 abandoned"))
        worker._execute_activity = handler
        jobs.is_free.set()
        hub.activity("wait", 1)

        assert wait_until(hub.answered("1 done"))
        assert "Uncaught error while processing work item, item will be abandoned: no" in caplog.messages

    def test_a_handler_that_cannot_be_undone_holds_up_no_other(
        self,
        hub: Hub,
        jobs: Jobs,
        start: Start,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.delattr(Hub, "AbandonTaskActivityWorkItem")
        worker = start(limit=1, logger=logging.getLogger("errors of work items"))
        handler, worker._execute_activity = worker._execute_activity, None
        hub.activity("wait", 0)
        assert wait_until(lambda: any("Uncaught error while cancelling" in each for each in caplog.messages))
        worker._execute_activity = handler
        jobs.is_free.set()
        hub.activity("wait", 1)

        assert wait_until(hub.answered("1 done"))

    def test_an_async_activity_without_a_loop_is_abandoned(self, hub: Hub, jobs: Jobs, start: Start) -> None:
        """The user has closed the loop inside of `async with worker`."""
        worker = start()
        loop = asyncio.new_event_loop()
        loop.close()
        worker._binding().loop.attach(loop)
        hub.activity("wait_async", 0)
        assert wait_until(hub.answered("0 abandoned"))
        worker._binding().loop.detach()
        jobs.is_free.set()
        hub.activity("wait_async", 1)

        assert wait_until(hub.answered("1 done"))


class TestTheStream:
    def test_is_not_taken_for_dead_while_it_brings_work(self, hub: Hub, jobs: Jobs, start: Start) -> None:
        jobs.is_free.set()
        start(resiliency_options=GrpcWorkerResiliencyOptions(silent_disconnect_timeout_seconds=0.5))
        for number in range(15):
            hub.activity("wait", number)
            assert wait_until(hub.answered(f"{number} done"))
            time.sleep(0.1)

        assert hub.streams == 1

    def test_is_taken_for_dead_when_it_brings_nothing(self, hub: Hub, start: Start) -> None:
        start(
            resiliency_options=GrpcWorkerResiliencyOptions(
                silent_disconnect_timeout_seconds=0.1,
                reconnect_backoff_base_seconds=0.01,
                reconnect_backoff_cap_seconds=0.02,
            )
        )

        assert wait_until(lambda: hub.streams >= 2)

    def test_leaves_all_that_is_no_work_item_to_upstream(
        self, hub: Hub, start: Start, caplog: pytest.LogCaptureFixture
    ) -> None:
        logger = logging.getLogger("unexpected items")
        logger.setLevel(logging.DEBUG)
        start(logger=logger)
        hub.messages.put(pb.WorkItem(completionToken="none"))
        hub.messages.put(pb.WorkItem(healthPing=pb.HealthPing()))
        hub.turn("t")
        assert wait_until(hub.answered("t done"))

        # Upstream's loop may log a work item after it has been answered.
        expected = {
            "Unexpected work item type: None",
            'Received "healthPing" work item',
            'Received "orchestratorRequest" work item',
        }
        assert wait_until(lambda: expected <= set(caplog.messages))


def test_a_stub_of_a_users_test_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, hub: Hub, jobs: Jobs, start: Start
) -> None:
    """Its calls are none of gRPC's: they answer with anything."""
    stub = MagicMock()

    def make_stub(channel: Any) -> Any:
        real = grpc_stubs.TaskHubSidecarServiceStub(channel)
        stub.GetWorkItems.side_effect = real.GetWorkItems
        stub.CompleteActivityTask.side_effect = real.CompleteActivityTask
        return stub

    monkeypatch.setattr(upstream, "stubs", SimpleNamespace(TaskHubSidecarServiceStub=make_stub))
    jobs.is_free.set()
    start()
    hub.activity("wait", 1)

    assert wait_until(hub.answered("1 done"))
    stub.Hello.assert_called_once()
    stub.GetWorkItems.assert_called_once()
    stub.CompleteActivityTask.assert_called_once()


class TestTheChannel:
    """Upstream closes a channel that it has replaced once no work item needs it."""

    @pytest.fixture
    def trackers(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        trackers: list[Any] = []

        class Tracker(upstream._InFlightChannelTracker):
            def __init__(self) -> None:
                super().__init__()
                trackers.append(self)

        monkeypatch.setattr(upstream, "_InFlightChannelTracker", Tracker)
        return trackers

    @pytest.mark.parametrize("own_loop", [False, True], ids=["our run loop", "the run loop of a class"])
    def test_is_released_by_every_item(
        self, engine: LocalBackend, client: TaskHubGrpcClient, trackers: list[Any], own_loop: bool
    ) -> None:
        class WithLoop(TaskHubGrpcWorker):
            async def _async_run_loop(self) -> None:
                await super()._async_run_loop()

        def plain(ctx: Any, value: int) -> int:
            return value + 1

        async def coroutine(ctx: Any, value: int) -> int:
            return value + 1

        kind = WithLoop if own_loop else TaskHubGrpcWorker
        with kind(host_address=engine.address, logger=QUIET) as worker:
            worker.add_activity(plain)
            worker.add_activity(coroutine)
            worker.add_orchestrator(call_one)
            worker.start()
            results = [run(client, "call_one", [name, 1]).serialized_output for name in ("plain", "coroutine")]
            assert wait_until(lambda: not trackers[0]._states)

        assert results == ["2", "2"]

    def test_stays_with_upstream_if_the_class_has_a_run_loop(self) -> None:
        class WithLoop(TaskHubGrpcWorker):
            async def _async_run_loop(self) -> None: ...

        assert "_async_run_loop" not in vars(WithLoop(logger=QUIET))
        assert "_async_run_loop" in vars(TaskHubGrpcWorker(logger=QUIET))


def test_the_names_of_the_requests_are_upstreams() -> None:
    fields = {field.name for field in pb.WorkItem.DESCRIPTOR.oneofs_by_name["request"].fields}

    assert fields == {*_upstream.REQUESTS, "healthPing"}
