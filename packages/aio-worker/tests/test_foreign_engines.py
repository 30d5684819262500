"""Engines of other projects: what they refuse, lack or lose, and what the worker says about it."""

from __future__ import annotations

import asyncio
import logging
import queue
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
import durabletask.internal.orchestrator_service_pb2_grpc as grpc_stubs
import grpc
import pytest
from durabletask.client import TaskHubGrpcClient
from durabletask.entities import EntityInstanceId
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from durabletask.worker import VersionFailureStrategy, VersioningOptions, VersionMatchStrategy
from google.protobuf.empty_pb2 import Empty
from worker_support import QUIET, run, wait_until

from durabletask_aio.engine.channel import InProcessChannel
from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker import dapr
from durabletask_aio.worker.binding import binding_of
from durabletask_aio.worker.worker import TaskHubGrpcWorker

TOO_MUCH = 5_000_000


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def logger(warnings: list[str]) -> logging.Logger:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                warnings.append(record.getMessage())

    made = logging.Logger("test.foreign")  # noqa: LOG001 - not to be found by name
    made.addHandler(Handler())
    return made


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Upstream's in-memory engine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    backend = InMemoryOrchestrationBackend(port=port)
    backend.start()
    yield f"127.0.0.1:{port}"
    backend.stop()


@pytest.fixture
def client(address: str) -> Iterator[TaskHubGrpcClient]:
    with TaskHubGrpcClient(host_address=address, logger=QUIET) as client:
        yield client


@pytest.fixture
def start(address: str, logger: logging.Logger) -> Iterator[Callable[..., Any]]:
    workers: list[Any] = []

    def start(*orchestrators: Any, activities: Any = (), entities: Any = (), **options: Any) -> Any:
        worker = TaskHubGrpcWorker(**{"host_address": address, "logger": logger, **options})
        for each in orchestrators:
            worker.add_orchestrator(each)
        for each in activities:
            worker.add_activity(each)
        for each in entities:
            worker.add_entity(each)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop()


# -- answers that are refused -----------------------------------------------------------------------------------------


def big(ctx: Any, size: int) -> str:
    return "x" * size


async def big_async(ctx: Any, size: int) -> str:
    return "x" * size


async def one_step(ctx: Any, arguments: list[Any]) -> int:
    return len(await ctx.call_activity(arguments[0], input=arguments[1]))


async def output(ctx: Any, size: int) -> str:
    return "x" * size


async def large_input(ctx: Any, size: int) -> Any:
    await ctx.sleep(0.01)
    return await ctx.call_activity("big", input="x" * size)


class TestAnAnswerOverTheLimit:
    @pytest.mark.parametrize("name", ["big", "big_async"])
    def test_of_an_activity_is_a_failure_with_size_and_limit(
        self, start: Any, client: TaskHubGrpcClient, warnings: list[str], name: str
    ) -> None:
        start(one_step, activities=(big, big_async))
        failure = run(client, one_step, [name, TOO_MUCH]).failure_details

        assert failure is not None
        assert f"the result of activity '{name}' has 5,000,0" in failure.message
        assert "bytes, and the engine takes at most 4,194,304: keep large data in a store" in failure.message
        assert any("the result of activity" in line for line in warnings)
        assert run(client, one_step, [name, 3]).get_output() == 3

    @pytest.mark.parametrize(
        ("workflow", "what"), [(output, "the result of the workflow"), (large_input, "the input of 'big'")]
    )
    def test_of_a_workflow_fails_the_instance(
        self, start: Any, client: TaskHubGrpcClient, workflow: Any, what: str
    ) -> None:
        worker = start(workflow, activities=(big,))
        failure = run(client, workflow, TOO_MUCH).failure_details

        assert failure is not None
        assert failure.error_type == "durabletask.aio.AsyncWorkflowError"
        assert failure.message.startswith(f"a turn that is mostly {what} has 5,000,")
        assert wait_until(lambda: worker.extended_session_stats.live == 0)

    def test_of_an_entity_fails_the_operations(self, start: Any, client: TaskHubGrpcClient) -> None:
        def hoard(ctx: Any, size: int) -> int:
            ctx.set_state("x" * size)
            return size

        async def caller(ctx: Any, sizes: list[int]) -> list[str]:
            entity = EntityInstanceId("hoard", ctx.instance_id)
            found = []
            for size in sizes:
                try:
                    found.append(str(await ctx.call_entity(entity, "add", size)))
                except Exception as error:
                    found.append(str(error))
            return found

        start(caller, entities=(hoard,))
        small, large, again = run(client, caller, [5, TOO_MUCH, 6]).get_output()

        assert (small, again) == ("5", "6")
        assert "the state and the results of an entity has 5,000," in large


# -- leftovers --------------------------------------------------------------------------------------------------------


async def slow(ctx: Any, text: str) -> str:
    await asyncio.sleep(0.3)
    return text


async def hurried(ctx: Any, number: int) -> str:
    if number == 0:
        await ctx.when_any([ctx.call_activity("slow", input="one"), ctx.sleep(0.05)])
        ctx.continue_as_new(1)
    return "done"


async def approvals(ctx: Any, number: int) -> float:
    began = ctx.now()
    try:
        await ctx.with_timeout(ctx.wait_for_external_event("go"), 1 if number == 0 else 2)
    except TimeoutError:
        return float((ctx.now() - began).total_seconds())
    ctx.continue_as_new(number + 1)
    return 0.0


def test_what_is_outstanding_at_continue_as_new_is_named(
    start: Any, client: TaskHubGrpcClient, warnings: list[str]
) -> None:
    start(hurried, activities=(slow,))
    state = run(client, hurried, 0)

    (line,) = [line for line in warnings if "continues as new" in line]
    assert line.startswith(
        f"{state.instance_id}: workflow hurried continues as new while activity 'slow' is outstanding: this engine may"
    )


def test_an_engine_of_this_project_confuses_nothing_and_nothing_is_said(
    start: Any, engine: LocalBackend, warnings: list[str]
) -> None:
    start(hurried, activities=(slow,), host_address=engine.address)
    with TaskHubGrpcClient(host_address=engine.address, logger=QUIET) as client:
        run(client, hurried, 0)

    assert warnings == []


def test_a_timer_of_the_previous_execution_does_not_end_the_next_ones(start: Any, client: TaskHubGrpcClient) -> None:
    start(approvals)
    instance_id = client.schedule_new_orchestration(approvals, input=0)
    client.wait_for_orchestration_start(instance_id, timeout=10)
    client.raise_orchestration_event(instance_id, "go")
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)

    assert state is not None
    assert state.get_output() == pytest.approx(2.0, abs=0.1)


# -- the first protocol -----------------------------------------------------------------------------------------------


class FirstProtocol(grpc_stubs.TaskHubSidecarServiceServicer):
    """An engine whose work items have no completion tokens, and which knows no call to abandon them."""

    def __init__(self) -> None:
        self.messages: queue.Queue[pb.WorkItem] = queue.Queue()
        self.turns: queue.Queue[pb.OrchestratorResponse] = queue.Queue()

    def Hello(self, request: Any, context: Any) -> Empty:
        return Empty()

    def GetWorkItems(self, request: Any, context: Any) -> Iterator[pb.WorkItem]:
        while context.is_active():
            try:
                yield self.messages.get(timeout=0.02)
            except queue.Empty:
                continue

    def CompleteOrchestratorTask(self, request: Any, context: Any) -> Any:
        self.turns.put(request)
        return pb.CompleteTaskResponse()

    def first_turn(self, name: str, **started: Any) -> pb.OrchestratorResponse:
        events = [pb.HistoryEvent(), pb.HistoryEvent(executionStarted=pb.ExecutionStartedEvent(name=name, **started))]
        events[0].orchestratorStarted.SetInParent()
        self.messages.put(pb.WorkItem(orchestratorRequest=pb.OrchestratorRequest(instanceId="i", newEvents=events)))
        return self.turns.get(timeout=30)


def failure_in(response: pb.OrchestratorResponse) -> str:
    (action,) = response.actions
    assert action.completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED
    return action.completeOrchestration.failureDetails.errorMessage


class TestAnEngineOfTheFirstProtocol:
    @pytest.fixture
    def engine(self) -> FirstProtocol:
        return FirstProtocol()

    @pytest.fixture
    def address(self) -> str:
        return "unused:1"

    def test_is_named_once(self, engine: FirstProtocol, start: Any, warnings: list[str]) -> None:
        async def flow(ctx: Any, _: Any) -> None: ...

        start(flow, channel=InProcessChannel(engine))
        for _ in range(3):
            assert engine.first_turn("flow").actions[0].HasField("completeOrchestration")

        (line,) = warnings
        assert line.startswith("The engine speaks the first version of the protocol")
        assert "It drops versions, tags and metadata, work item filters and start_at" in line

    def test_is_not_sent_what_would_end_it(self, engine: FirstProtocol, start: Any) -> None:
        async def calling(ctx: Any, _: Any) -> None:
            await ctx.call_entity(EntityInstanceId("counter", "one"), "add", 1)

        start(calling, channel=InProcessChannel(engine))

        message = failure_in(engine.first_turn("calling"))
        assert message.startswith("entities need an engine with the second version of the protocol")

    def test_gets_a_failure_where_an_instance_would_be_given_back(self, engine: FirstProtocol, start: Any) -> None:
        async def flow(ctx: Any, _: Any) -> None: ...

        worker = start(channel=InProcessChannel(engine))
        worker.stop()
        worker.add_orchestrator(flow)
        worker.use_versioning(
            VersioningOptions(
                version="2",
                match_strategy=VersionMatchStrategy.STRICT,
                failure_strategy=VersionFailureStrategy.REJECT,
            )
        )
        worker.start()

        message = failure_in(engine.first_turn("flow"))
        assert message.startswith("VersionFailureStrategy.REJECT needs an engine with the second version")

    def test_is_warned_of_ids_of_children_that_repeat(
        self, engine: FirstProtocol, start: Any, warnings: list[str]
    ) -> None:
        async def parent(ctx: Any, _: Any) -> None:
            ctx.call_sub_orchestrator("child")
            ctx.continue_as_new(None)

        async def careful(ctx: Any, _: Any) -> None:
            ctx.call_sub_orchestrator("child", instance_id=ctx.new_uuid())
            ctx.continue_as_new(None)

        start(parent, careful, channel=InProcessChannel(engine))
        for name in ("careful", "parent", "parent"):
            engine.first_turn(name)

        (line,) = [line for line in warnings if "ids" in line]
        assert line.startswith(
            "i: workflow parent calls sub-orchestrations and continues as new: their ids (i:0001, ...)"
        )
        assert "give each an instance_id of its own" in line


# -- Dapr -------------------------------------------------------------------------------------------------------------


def metadata(version: str) -> bytes:
    """A `GetMetadataResponse` with an id, a list of features and a version."""
    fields = [b"\x0a\x03app", b"\x12\x02ab", b"\x20\x07"]
    encoded = version.encode()
    return b"".join([*fields, bytes([8 << 3 | 2, len(encoded)]), encoded])


class Sidecar(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
    """Answers as a Dapr sidecar does: to `Hello` and `GetMetadata`, and with a stream that brings nothing."""

    def __init__(self, version: str) -> None:
        self._version = version

    def service(self, details: Any) -> Any:
        if details.method == dapr.METADATA_METHOD:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: metadata(self._version))
        if details.method.endswith("/Hello"):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
        return None


@contextmanager
def running_sidecar(version: str) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Sidecar(version),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0)


@pytest.fixture
def sidecar() -> Iterator[str]:
    with running_sidecar("1.16.2") as address:
        yield address


class TestADaprSidecar:
    SENTENCE = (
        "The address of this worker is that of a Dapr sidecar (1.16.2), which does not run workflows of durabletask"
    )

    def test_is_refused_with_a_sentence(self, sidecar: str, start: Any, warnings: list[str]) -> None:
        worker = start(hurried, host_address=sidecar)
        binding = binding_of(worker)
        assert binding is not None

        refusal = str(binding.refusal.exception(timeout=20))
        assert refusal.startswith(self.SENTENCE)
        assert "Install durabletask-aio-dapr and run the workflows with the WorkflowRuntime" in refusal
        assert sum(self.SENTENCE in line for line in warnings) >= 1
        begin = time.monotonic()
        worker.stop()
        assert time.monotonic() - begin < 5

    def test_ends_run(self, sidecar: str) -> None:
        worker = TaskHubGrpcWorker(host_address=sidecar, logger=QUIET)
        worker.add_orchestrator(hurried)

        with pytest.raises(RuntimeError, match="that of a Dapr sidecar"):
            asyncio.run(asyncio.wait_for(worker.run(), 20))

    def test_without_a_version_is_recognised_too(self) -> None:
        assert dapr.runtime_version(b"") == ""
        assert dapr.runtime_version(metadata("1.17.0")[:-3]) == "1.1"
        assert dapr.runtime_version(b"\x80") == ""
        assert "that of a Dapr sidecar, which" in dapr.refusal("")

    def test_of_a_version_that_speaks_this_protocol_is_named_in_a_warning(
        self, start: Any, warnings: list[str]
    ) -> None:
        with running_sidecar("1.15.3") as address:
            worker = start(hurried, host_address=address)
            assert wait_until(lambda: bool(warnings))
            binding = binding_of(worker)
            assert binding is not None
            worker.stop()

        assert not binding.refusal.done()
        assert warnings[0].startswith("The engine is a Dapr sidecar (1.15.3): it drops the events that ctx.send_event")

    def test_speaks_this_protocol_in_two_versions(self) -> None:
        speak = ("1.14.0", "1.15.9", "v1.15.0-rc.2", "1.14")
        do_not = ("", "1.13.0", "1.16.0", "1.18.2", "1.140.0", "2.14.0", "edge", "11.14.0")

        assert [dapr.speaks_this_protocol(version) for version in (*speak, *do_not)] == [True] * 4 + [False] * 8

    def test_another_engine_is_asked_once(self, start: Any, client: TaskHubGrpcClient) -> None:
        worker = start(output)
        assert run(client, output, 2).get_output() == "xx"
        binding = binding_of(worker)
        assert binding is not None
        assert not binding.refusal.done()
