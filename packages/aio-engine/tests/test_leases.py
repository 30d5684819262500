"""Leases of workers with names, as seen over gRPC and over restarts of the engine."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from channel_support import wait_until
from google.protobuf.empty_pb2 import Empty

from durabletask_aio.engine._upstream import pb, pb_grpc
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.tokens import parse
from durabletask_aio.engine.worker_calls import ENGINE, HELD_LEASES, KEPT_LEASES, LEAVING, LOST_LEASES


class Worker:
    """A worker as the engine sees it: calls of upstream's service, made by hand."""

    def __init__(self, address: str, name: str) -> None:
        self.name = name
        self.channel = grpc.insecure_channel(address)
        self.stub = pb_grpc.TaskHubSidecarServiceStub(self.channel)

    def connect(self, *holding: str, leaving: bool = False, filler: int = 0) -> Any:
        leases = b"".join(bytes.fromhex(parse(token).lease) for token in holding) + secrets.token_bytes(8 * filler)
        metadata: list[tuple[str, str | bytes]] = [(HELD_LEASES, leases)]
        if leaving:
            metadata.append((LEAVING, "1"))
        request = pb.GetWorkItemsRequest(worker_instance_id=self.name)
        return self.stub.GetWorkItems(request, metadata=metadata, timeout=30)

    def turn(self, item: Any, *activities: str) -> None:
        """Answer a turn with activities, or with its end if there are none."""
        request = item.orchestratorRequest
        response = pb.OrchestratorResponse(instanceId=request.instanceId, completionToken=item.completionToken)
        for number, name in enumerate(activities, 1):
            response.actions.add(id=number, scheduleTask=pb.ScheduleTaskAction(name=name))
        if not activities:
            done = pb.CompleteOrchestrationAction(orchestrationStatus=pb.ORCHESTRATION_STATUS_COMPLETED)
            response.actions.add(id=1, completeOrchestration=done)
        self.stub.CompleteOrchestratorTask(response)

    def answer(self, item: Any) -> None:
        request = item.activityRequest
        self.stub.CompleteActivityTask(
            pb.ActivityResponse(
                instanceId=request.orchestrationInstance.instanceId,
                taskId=request.taskId,
                completionToken=item.completionToken,
            )
        )


@contextmanager
def connected(engine: Engine, *names: str) -> Iterator[list[Worker]]:
    address = f"127.0.0.1:{engine.listen().port}"
    workers = [Worker(address, name) for name in names]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.channel.close()


def schedule(engine: Engine) -> str:
    return engine.client().schedule_new_orchestration("workflow")


def is_completed(engine: Engine, instance_id: str) -> bool:
    state = engine.client().wait_for_orchestration_completion(instance_id, timeout=20)
    return state is not None and state.runtime_status.name == "COMPLETED"


def out(engine: Engine) -> int:
    with engine.kernel.locked():
        return engine.kernel.dispatcher.out("activity")


def kept(engine: Engine) -> list[tuple[int, str, str]]:
    with engine.kernel.locked() as store:
        return list(store.leases())


def test_hello_says_that_the_engine_knows_of_leases() -> None:
    with Engine() as engine, connected(engine, "w") as (worker,):
        _, call = worker.stub.Hello.with_call(Empty(), timeout=10)
        assert (ENGINE, "1") in [tuple(each) for each in call.trailing_metadata()]


def test_a_worker_can_list_tens_of_thousands_of_leases() -> None:
    with Engine() as engine, connected(engine, "w") as (worker,):
        schedule(engine)
        items = worker.connect(filler=50_000)
        assert next(items).HasField("orchestratorRequest")
        assert dict(items.initial_metadata()) == {KEPT_LEASES: b""}  # the answer that is shorter


def test_a_worker_that_leaves_gets_no_items_and_is_told_that_it_is_known() -> None:
    with Engine() as engine, connected(engine, "w", "other") as (worker, other):
        first = schedule(engine)
        items = worker.connect()
        item = next(items)
        last = worker.connect(leaving=True)
        assert dict(last.initial_metadata()) == {LOST_LEASES: b""}  # returns once the engine has taken the leases over

        again = other.connect()
        assert next(again).orchestratorRequest.instanceId == item.orchestratorRequest.instanceId == first
        with pytest.raises(StopIteration):
            next(items)  # the stream before has ended


class TestARestart:
    """The engine is stopped without any word of its workers, as when it is killed."""

    def prepared(self, path: Path, *activities: str) -> tuple[str, list[Any]]:
        """An engine that has ended while a worker had activities for a while."""
        with Engine(path) as engine, connected(engine, "w") as (worker,):
            instance_id = schedule(engine)
            items = worker.connect()
            worker.turn(next(items), *activities)
            held = [next(items) for _ in activities]
            wait_until(lambda: len(kept(engine)) == len(held))
        return instance_id, held

    def test_leaves_a_long_activity_to_the_worker_that_comes_back_with_it(self, tmp_path: Path) -> None:
        path = tmp_path / "engine.db"
        instance_id, (item,) = self.prepared(path, "long")
        with Engine(path) as engine, connected(engine, "w", "other") as (worker, other):
            assert engine.kernel.loaded == (0, 1, 0)
            others = other.connect()
            wait_until(lambda: len(engine.kernel.dispatcher.streams) == 1)  # the first of two with room gets an item
            items = worker.connect(item.completionToken)
            worker.answer(item)
            turn = next(others)  # and not the activity, which was there before it
            assert turn.HasField("orchestratorRequest")
            other.turn(turn)
            assert is_completed(engine, instance_id)
            assert kept(engine) == []
            items.cancel()

    def test_takes_the_result_before_the_worker_has_a_stream(self, tmp_path: Path) -> None:
        path = tmp_path / "engine.db"
        instance_id, (item,) = self.prepared(path, "long")
        with Engine(path) as engine, connected(engine, "w") as (worker,):
            worker.answer(item)
            assert out(engine) == 0
            worker.turn(next(worker.connect()))
            assert is_completed(engine, instance_id)

    def test_dispatches_again_what_the_worker_comes_back_without(self, tmp_path: Path) -> None:
        path = tmp_path / "engine.db"
        _, held = self.prepared(path, "long", "longer")
        with Engine(path) as engine, connected(engine, "w") as (worker,):
            items = worker.connect(held[0].completionToken)
            assert next(items).activityRequest.name == "longer"
            assert out(engine) == 2
            items.cancel()

    def test_gives_to_others_what_nobody_comes_back_with(self, tmp_path: Path) -> None:
        path = tmp_path / "engine.db"
        self.prepared(path, "long")
        with Engine(path, reconnect_period=0.3) as engine, connected(engine, "other") as (other,):
            item = next(other.connect())
            assert item.activityRequest.name == "long"

    def test_of_which_a_worker_without_a_name_knew_nothing_queues_its_activity(self, tmp_path: Path) -> None:
        path = tmp_path / "engine.db"
        with Engine(path) as engine, connected(engine, "") as (worker,):
            schedule(engine)
            items = worker.connect()
            worker.turn(next(items), "long")
            next(items)
        with Engine(path) as engine, connected(engine, "other") as (other,):
            assert next(other.connect()).activityRequest.name == "long"

    def test_finds_no_lease_on_an_activity_that_is_done_or_purged(self, tmp_path: Path) -> None:
        path = tmp_path / "engine.db"
        instance_id, (first, _second) = self.prepared(path, "one", "two")
        with Engine(path) as engine, connected(engine, "w") as (worker,):
            assert len(kept(engine)) == 2
            worker.answer(first)
            assert len(kept(engine)) == 1
            client = engine.client()
            client.terminate_orchestration(instance_id)
            items = worker.connect()
            worker.turn(next(item for item in items if item.HasField("orchestratorRequest")))
            client.wait_for_orchestration_completion(instance_id, timeout=20)
            client.purge_orchestration(instance_id)
            assert kept(engine) == []


def test_a_worker_that_goes_while_it_comes_leaves_no_stream() -> None:
    """Its call is cancelled before the engine has answered which of its leases have ended."""

    class Gone:
        def peer(self) -> str:
            return "nobody"

        def invocation_metadata(self) -> list[tuple[str, bytes]]:
            return [(HELD_LEASES, b"")]

        def send_initial_metadata(self, metadata: Any) -> None:
            raise RuntimeError("the call has been cancelled")

    with Engine() as engine:
        service = engine.listen().service
        with pytest.raises(RuntimeError, match="has been cancelled"):
            next(service.GetWorkItems(pb.GetWorkItemsRequest(worker_instance_id="w"), cast("Any", Gone())))

        assert list(engine.kernel.dispatcher.streams) == []
