"""Requests that are read when they are needed, and sessions that recognise their history by the bytes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
import grpc
import pytest
from durabletask.client import TaskHubGrpcClient
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from google.protobuf.message import DecodeError
from session_hub import Hub, Recorder
from worker_support import QUIET, finished, run, wait_until

from durabletask_aio.testing.local import local_backend
from durabletask_aio.worker import raw_requests, work_items
from durabletask_aio.worker.binding import binding_of
from durabletask_aio.worker.raw_requests import RawRequest, RawWorkItem, read_work_item
from durabletask_aio.worker.worker import TaskHubGrpcWorker


@pytest.fixture(autouse=True)
def sessions_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the whole suite runs with few of them or none."""
    monkeypatch.delenv("DT_MAX_EXTENDED_SESSIONS", raising=False)


def event(number: int, **of_kind: Any) -> pb.HistoryEvent:
    return pb.HistoryEvent(eventId=number, **of_kind)


STARTED = event(-1, executionStarted=pb.ExecutionStartedEvent(name="flow", tags={"a": "b"}))
TURN = event(-1, orchestratorStarted=pb.OrchestratorStartedEvent())
# Longer than what a length of one byte can say.
RAISED = event(-1, eventRaised=pb.EventRaisedEvent(name="x" * 1000))


def request_of(**fields: Any) -> pb.OrchestratorRequest:
    request = pb.OrchestratorRequest(instanceId="instance", pastEvents=[TURN, STARTED], newEvents=[RAISED, TURN])
    request.executionId.value = "execution"
    request.MergeFrom(pb.OrchestratorRequest(**fields))
    return request


def serialized(message: Any) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


class TestReading:
    def test_of_a_turn_parses_nothing_but_id_and_token(self) -> None:
        request = request_of()
        item = read_work_item(serialized(pb.WorkItem(orchestratorRequest=request, completionToken="token")))

        assert isinstance(item, RawWorkItem)
        assert (item.WhichOneof("request"), item.completionToken) == ("orchestratorRequest", "token")
        assert item.orchestratorRequest.instanceId == "instance"
        assert item.orchestratorRequest._message is None
        assert item.orchestratorRequest.whole() == request

    def test_a_field_is_that_of_the_message(self) -> None:
        raw = RawRequest(serialized(request_of()))

        assert raw.executionId.value == "execution"
        assert len(raw.newEvents) == 2

    def test_of_anything_else_is_a_message(self) -> None:
        for item in (
            pb.WorkItem(activityRequest=pb.ActivityRequest(name="work"), completionToken="token"),
            pb.WorkItem(healthPing=pb.HealthPing()),
            pb.WorkItem(orchestratorRequest=pb.OrchestratorRequest(), completionToken="token"),
            pb.WorkItem(),
        ):
            assert read_work_item(serialized(item)) == item

    def test_of_another_order_of_fields_is_a_message(self) -> None:
        request, token = request_of(), pb.WorkItem(completionToken="token")
        item = pb.WorkItem(orchestratorRequest=request, completionToken="token")

        assert read_work_item(serialized(token) + serialized(pb.WorkItem(orchestratorRequest=request))) == item

    def test_a_request_in_two_parts_is_put_together(self) -> None:
        parts = (pb.OrchestratorRequest(instanceId="instance"), pb.OrchestratorRequest(newEvents=[TURN]))
        item = read_work_item(b"".join(serialized(pb.WorkItem(orchestratorRequest=part)) for part in parts))

        assert item.orchestratorRequest == pb.OrchestratorRequest(instanceId="instance", newEvents=[TURN])

    def test_of_what_is_cut_off_is_an_error(self) -> None:
        data = serialized(pb.WorkItem(orchestratorRequest=request_of()))

        with pytest.raises(DecodeError):
            read_work_item(data[:-1])


class TestTheStart:
    def test_is_found_among_the_past_events_without_the_rest(self) -> None:
        raw = RawRequest(serialized(request_of()))

        assert raw.started == STARTED.executionStarted
        assert raw._message is None

    def test_is_found_among_the_new_events_without_the_rest(self) -> None:
        raw = RawRequest(serialized(pb.OrchestratorRequest(instanceId="instance", newEvents=[TURN, STARTED])))

        assert raw.started == STARTED.executionStarted
        assert raw._message is None

    def test_is_found_wherever_it_is(self) -> None:
        request = pb.OrchestratorRequest(instanceId="instance", newEvents=[TURN, STARTED])
        request.orchestrationTraceContext.spanID.value = "span"
        ids, rest = pb.OrchestratorRequest(instanceId="instance"), request
        rest.ClearField("instanceId")
        events, span = pb.OrchestratorRequest(newEvents=rest.newEvents), rest
        del span.newEvents[:]

        assert RawRequest(b"".join(map(serialized, (ids, span, events)))).started == STARTED.executionStarted

    def test_is_empty_if_there_is_none(self) -> None:
        request = pb.OrchestratorRequest(instanceId="instance", newEvents=[TURN])
        request.orchestrationTraceContext.spanID.value = "span"

        assert RawRequest(serialized(request)).started == pb.ExecutionStartedEvent()


class TestParts:
    def test_are_the_history_and_what_it_will_be_followed_by(self) -> None:
        request = request_of(requiresHistoryStreaming=True)
        request.properties["key"].string_value = "value"
        request.orchestrationTraceContext.spanID.value = "span"
        sections = RawRequest(serialized(request)).sections()
        history = pb.OrchestratorRequest(instanceId="instance", executionId=request.executionId)
        history.pastEvents.extend(request.pastEvents)

        assert sections is not None
        assert serialized(request)[: sections.history_end] == serialized(history)
        history.pastEvents.extend(request.newEvents)
        assert serialized(request)[: sections.history_end] + sections.appended == serialized(history)

    @pytest.mark.parametrize(
        "more",
        [
            serialized(pb.OrchestratorRequest(pastEvents=[TURN])),
            serialized(pb.OrchestratorRequest(executionId=pb.OrchestratorRequest().executionId)),
            b"\x7a\x01x",
            b"\x82\x01\x01x",
        ],
        ids=["a past event after the new ones", "the ids at the end", "an unknown field", "a number over 15"],
    )
    def test_are_unknown_with(self, more: bytes) -> None:
        assert RawRequest(serialized(request_of()) + more).sections() is None

    def test_without_the_history_have_ids_and_new_events(self) -> None:
        request = request_of()
        raw = RawRequest(serialized(request))
        sections = raw.sections()
        assert sections is not None
        rest = raw.after(sections.history_end)

        del request.pastEvents[:]
        assert rest == request


# -- a session -------------------------------------------------------------------------------------------------------


async def chain(ctx: Any, count: int) -> int:
    for index in range(count):
        await ctx.call_activity("same", input=index)
    return count


async def collect(ctx: Any, names: list[str]) -> list[Any]:
    return [await ctx.wait_for_external_event(name) for name in names]


async def everything(ctx: Any, round: int) -> Any:
    ctx.set_custom_status({"round": round})
    both = await ctx.gather(*[ctx.call_activity("same", input=index) for index in range(3)])
    child = await ctx.call_sub_orchestrator(chain, input=2, instance_id=f"{ctx.instance_id}-{round}")
    await ctx.sleep(0.01)
    if round < 2:
        ctx.continue_as_new(round + 1, save_events=True)
        return None
    return [both, child, await ctx.wait_for_external_event("go")]


def step() -> bool:
    raise NotImplementedError  # The test has its own.


async def steps(ctx: Any, _: Any) -> Any:
    await ctx.call_activity("same", input=1)
    return await ctx.run(lambda: step(), name="step")


def same(ctx: Any, value: Any) -> Any:
    return value


def register(worker: TaskHubGrpcWorker) -> None:
    for workflow in (chain, collect, everything, steps):
        worker.add_orchestrator(workflow)
    worker.add_activity(same)


class Reads:
    """How many requests were parsed as a whole, and how many in part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.whole: list[RawRequest] = []
        self.parts = 0
        whole, after = RawRequest.whole, RawRequest.after

        def count_whole(request: RawRequest) -> pb.OrchestratorRequest:
            if request not in self.whole:
                self.whole.append(request)
            return whole(request)

        def count_part(request: RawRequest, position: int) -> pb.OrchestratorRequest:
            self.parts += 1
            return after(request, position)

        monkeypatch.setattr(RawRequest, "whole", count_whole)
        monkeypatch.setattr(RawRequest, "after", count_part)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def in_another_layout(data: bytes) -> bytes:
    """Write a turn as an engine does that writes a committed event in another way than a new one.

    The fields of each committed event are in the reverse order.
    """
    item = pb.WorkItem.FromString(data)
    if item.WhichOneof("request") != "orchestratorRequest":
        return data
    request = item.orchestratorRequest
    history = b""
    for past in request.pastEvents:
        content = b"".join(
            serialized(pb.HistoryEvent(**{field.name: value})) for field, value in reversed(past.ListFields())
        )
        wrapped = serialized(pb.WorkItem(completionToken="x" * len(content)))
        history += b"\x1a" + wrapped[1 : -len(content)] + content
    ids = pb.OrchestratorRequest(instanceId=request.instanceId)
    if request.HasField("executionId"):
        ids.executionId.CopyFrom(request.executionId)
    for name in ("instanceId", "executionId", "pastEvents"):
        request.ClearField(name)
    body = serialized(ids) + history + serialized(request)
    head = serialized(pb.ActivityRequest(name="x" * len(body)))
    return b"\x0a" + head[1 : -len(body)] + body + serialized(pb.WorkItem(completionToken=item.completionToken))


class TestASession:
    @pytest.fixture
    def hub(self, monkeypatch: pytest.MonkeyPatch) -> Hub:
        monkeypatch.setattr(Hub, "proof", "raw")
        return Hub(register)

    def test_has_the_history_parsed_once(self, hub: Hub, reads: Reads) -> None:
        hub.start("chain", "5")
        hub.drain()

        assert (len(reads.whole), reads.parts) == (1, 5)
        assert hub.workers[0].extended_session_stats.hits == 5

    def test_that_is_gone_has_it_parsed_once_more(self, hub: Hub, reads: Reads) -> None:
        hub.start("collect", '["a", "b", "c"]')
        hub.drain()
        hub.evict()
        for name in ("a", "b", "c"):
            hub.raise_event(name, "1")
            hub.drain()

        assert (len(reads.whole), reads.parts) == (2, 2)

    def test_is_proven_by_what_was_parsed_if_the_bytes_are_others(
        self, hub: Hub, reads: Reads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written = hub.write
        monkeypatch.setattr(hub, "write", lambda item: in_another_layout(written(item)))
        hub.start("chain", "5")
        hub.drain()

        stats = hub.workers[0].extended_session_stats
        assert (stats.hits, stats.misses) == (5, {})
        assert (len(reads.whole), reads.parts) == (6, 0)

    def test_looks_at_bytes_that_differ_once(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        written = hub.write
        monkeypatch.setattr(hub, "write", lambda item: in_another_layout(written(item)))
        hub.start("collect", '["a", "b"]')
        hub.drain()
        binding = binding_of(hub.workers[0])
        assert binding is not None
        fingerprints = []
        for name in ("a", "b"):
            session = binding.turns.sessions.checkout("instance")
            assert session is not None
            fingerprints.append(session.fingerprint.raw)
            binding.turns.sessions.store(session)
            hub.raise_event(name, "1")
            hub.drain()

        assert fingerprints[0] is not None
        assert fingerprints[1] is None

    def test_survives_bytes_that_change_once(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        """As by another release of the engine: what is parsed is the same."""
        hub.start("collect", '["a", "b", "c"]')
        hub.drain()
        written = hub.write
        for name in ("a", "b", "c"):
            monkeypatch.setattr(
                hub, "write", (lambda item: in_another_layout(written(item))) if name == "b" else written
            )
            hub.raise_event(name, "1")
            hub.drain()

        assert hub.output() == "[1, 1, 1]"
        assert hub.workers[0].extended_session_stats.hits == 3

    def test_that_has_diverged_is_given_back_with_its_whole_history(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another attempt has no session."""
        monkeypatch.setattr(Hub, "proof", "raw")
        hub = Hub(register, on_divergence="retry")
        hub.start("chain", "1")
        hub.turn()
        hub.turn()
        item = hub.take()
        assert item is not None
        item.orchestratorRequest.newEvents.add(eventId=77).timerCreated.SetInParent()
        binding = binding_of(hub.workers[0])
        assert binding is not None
        added: list[pb.OrchestratorRequest] = []
        monkeypatch.setattr(binding.turns.diverged, "add", lambda request, *_: added.append(request))
        hub.run(item, hub.workers[0], Recorder())

        assert hub.workers[0].extended_session_stats.hits == 1
        assert added == [item.orchestratorRequest]


# -- over gRPC -------------------------------------------------------------------------------------------------------


class Engine:
    """An engine that sends the whole history with each turn."""

    def __init__(self, address: str, whole_reads: Callable[[int], int]) -> None:
        self.address = address
        self.whole_reads = whole_reads
        """How many requests a worker parses as a whole, by the number of turns of an instance."""


@pytest.fixture(params=["own", "upstream", "another layout"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    if request.param == "upstream":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        backend = InMemoryOrchestrationBackend(port=port)
        backend.start()
        yield Engine(f"127.0.0.1:{port}", lambda turns: 1)
        backend.stop()
        return
    # An engine of this project would send less otherwise.
    monkeypatch.setattr(work_items.WorkItems, "stream_metadata", lambda self, answer: None)
    if request.param == "another layout":
        monkeypatch.setattr(work_items, "read_work_item", lambda data: read_work_item(in_another_layout(data)))
    with local_backend() as own:
        yield Engine(own.address, lambda turns: 1 if request.param == "own" else turns)


@pytest.fixture
def start(engine: Engine) -> Iterator[Callable[..., TaskHubGrpcWorker]]:
    workers: list[TaskHubGrpcWorker] = []

    def start(**options: Any) -> TaskHubGrpcWorker:
        worker = TaskHubGrpcWorker(host_address=engine.address, logger=QUIET, **options)
        register(worker)
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        worker.stop()


@pytest.fixture
def client(engine: Engine) -> Iterator[TaskHubGrpcClient]:
    with TaskHubGrpcClient(host_address=engine.address, logger=QUIET) as client:
        yield client


class TestOverGrpc:
    def test_every_turn_after_the_first_is_of_a_session(
        self, engine: Engine, start: Any, client: TaskHubGrpcClient, reads: Reads
    ) -> None:
        worker = start()

        assert run(client, chain, 10).get_output() == 10
        stats = worker.extended_session_stats
        assert (stats.hits, stats.misses) == (10, {})
        assert len(reads.whole) == engine.whole_reads(11)

    def test_all_that_a_workflow_does_has_its_results(self, start: Any, client: TaskHubGrpcClient) -> None:
        worker = start()
        instance_id = client.schedule_new_orchestration(everything, input=0)
        client.raise_orchestration_event(instance_id, "go", data="gone")
        state = finished(client, instance_id)

        assert state.get_output() == [[0, 1, 2], 2, "gone"]
        assert state.get_custom_status() == {"round": 2}
        assert set(worker.extended_session_stats.misses) <= {"restarted"}

    @pytest.mark.parametrize("option", ["shadow_replay_rate", "interceptors"])
    def test_messages_are_parsed_at_once_for(
        self, start: Any, client: TaskHubGrpcClient, monkeypatch: pytest.MonkeyPatch, option: str
    ) -> None:
        class Interceptor(grpc.UnaryStreamClientInterceptor):  # type: ignore[misc, unused-ignore]
            def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
                return continuation(details, request)

        monkeypatch.setattr(raw_requests, "RawWorkItem", lambda *_: pytest.fail("not parsed"))
        worker = start(**{option: 1.0 if option == "shadow_replay_rate" else [Interceptor()]})

        assert run(client, chain, 3).get_output() == 3
        assert worker.extended_session_stats.hits == 3
        assert worker.extended_session_stats.divergences == 0

    @pytest.mark.parametrize("engine", ["own"], indirect=True)
    def test_a_turn_that_waits_for_a_step_continues(
        self, start: Any, client: TaskHubGrpcClient, reads: Reads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        binding = binding_of(start())
        assert binding is not None

        def is_paused() -> bool:
            return wait_until(lambda: bool(binding.turns.paused._turns))

        monkeypatch.setitem(globals(), "step", is_paused)

        assert run(client, steps).get_output() is True
        assert (len(reads.whole), reads.parts) == (1, 1)
