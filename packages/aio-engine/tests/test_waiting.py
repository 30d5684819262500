"""Waiting for an instance: deadlines of any size, purges and the end of the engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest
from durabletask.aio.engine import Engine
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal import orchestrator_service_pb2_grpc as pb_grpc


@pytest.fixture(params=["socket", "in process"])
def engine_and_stub(request: pytest.FixtureRequest) -> Iterator[tuple[Engine, pb_grpc.TaskHubSidecarServiceStub]]:
    with Engine() as engine:
        if request.param == "in process":
            yield engine, pb_grpc.TaskHubSidecarServiceStub(engine.channel)
        else:
            with grpc.insecure_channel(engine.listen().address) as channel:
                yield engine, pb_grpc.TaskHubSidecarServiceStub(channel)


def start(stub: pb_grpc.TaskHubSidecarServiceStub) -> pb.GetInstanceRequest:
    stub.StartInstance(pb.CreateInstanceRequest(instanceId="a", name="nobody_runs_this"))
    return pb.GetInstanceRequest(instanceId="a")


def test_an_instance_that_does_not_exist_is_not_waited_for(engine_and_stub) -> None:
    _, stub = engine_and_stub
    assert not stub.WaitForInstanceCompletion(pb.GetInstanceRequest(instanceId="none"), timeout=10).exists


def test_the_deadline_ends_a_wait(engine_and_stub) -> None:
    _, stub = engine_and_stub
    request = start(stub)
    with pytest.raises(grpc.RpcError) as caught:
        stub.WaitForInstanceCompletion(request, timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("timeout", [None, 60.0, 1e10])
def test_a_deadline_may_be_in_any_future(engine_and_stub, timeout: float | None) -> None:
    """The JavaScript SDK sends one that no clock of the operating system can wait for."""
    engine, stub = engine_and_stub
    if timeout == 1e10:  # which Python's client does not get over a socket
        stub = pb_grpc.TaskHubSidecarServiceStub(engine.channel)
    waiting = stub.WaitForInstanceCompletion.future(start(stub), timeout=timeout)
    stub.SkipGracefulOrchestrationTerminations(
        pb.SkipGracefulOrchestrationTerminationsRequest(instanceBatch=pb.InstanceBatch(instanceIds=["a"]))
    )
    state = waiting.result(30).orchestrationState
    assert state.orchestrationStatus == pb.ORCHESTRATION_STATUS_TERMINATED


def test_the_end_of_the_engine_ends_a_wait(engine_and_stub) -> None:
    engine, stub = engine_and_stub
    waiting = stub.WaitForInstanceCompletion.future(start(stub), timeout=60)
    stopping = threading.Thread(target=engine.stop)
    stopping.start()
    with pytest.raises(grpc.RpcError) as caught:
        waiting.result(30)
    stopping.join()
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
