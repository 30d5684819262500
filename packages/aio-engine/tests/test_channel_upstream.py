"""Upstream's worker and clients on channels in this process, with the servicer of upstream's in-memory engine."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from channel_support import SECONDS, serving, wait_until
from durabletask import entities, task
from durabletask.client import OrchestrationStatus
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from durabletask.worker import TaskHubGrpcWorker

from durabletask_aio.engine._upstream import AsyncTaskHubGrpcClient, TaskHubGrpcClient
from durabletask_aio.engine.channel import InProcessAioChannel, InProcessChannel

QUIET = logging.getLogger("tests.quiet")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


def add(ctx: task.ActivityContext, numbers: list[int]) -> int:
    return sum(numbers)


def fail(ctx: task.ActivityContext, text: str) -> None:
    raise ValueError(text)


def chain(ctx: task.OrchestrationContext, count: int) -> Any:
    total = 0
    for number in range(count):
        total = yield ctx.call_activity(add, input=[total, number])
    return total


def fan_out(ctx: task.OrchestrationContext, count: int) -> Any:
    results = yield task.when_all([ctx.call_activity(add, input=[number, 1]) for number in range(count)])
    return results


def fails(ctx: task.OrchestrationContext, text: str) -> Any:
    yield ctx.call_activity(fail, input=text)


def approval(ctx: task.OrchestrationContext, _: None) -> Any:
    name = yield ctx.wait_for_external_event("approved")
    return f"approved by {name}"


def parent(ctx: task.OrchestrationContext, count: int) -> Any:
    return (yield ctx.call_sub_orchestrator(chain, input=count))


def counter(ctx: entities.EntityContext, amount: int) -> int:
    ctx.set_state(ctx.get_state(int, 0) + amount)
    return ctx.get_state(int, 0)


def counts(ctx: task.OrchestrationContext, _: None) -> Any:
    return (yield ctx.call_entity(entities.EntityInstanceId("counter", "c"), "add", 3))


@pytest.fixture
def engine() -> Iterator[InMemoryOrchestrationBackend]:
    engine = InMemoryOrchestrationBackend()
    yield engine
    engine._shutdown_event.set()


@pytest.fixture
def channel(engine: InMemoryOrchestrationBackend) -> Iterator[InProcessChannel]:
    with InProcessChannel(engine) as channel:
        yield channel


@pytest.fixture
def client(channel: InProcessChannel) -> TaskHubGrpcClient:
    return TaskHubGrpcClient(channel=channel, logger=QUIET)


@pytest.fixture
def worker(channel: InProcessChannel) -> Iterator[TaskHubGrpcWorker]:
    worker = TaskHubGrpcWorker(channel=channel, logger=QUIET)
    for orchestrator in (chain, fan_out, fails, approval, parent, counts):
        worker.add_orchestrator(orchestrator)
    for activity in (add, fail):
        worker.add_activity(activity)
    worker.add_entity(counter)
    worker.start()
    yield worker
    worker.stop()


def outcome(client: TaskHubGrpcClient, instance_id: str) -> Any:
    state = client.wait_for_orchestration_completion(instance_id, timeout=60)
    assert state is not None
    state.raise_if_failed()
    return state.get_output()


@pytest.mark.parametrize(
    ("orchestrator", "argument", "expected"),
    [(chain, 20, 190), (fan_out, 20, list(range(1, 21))), (parent, 5, 10), (counts, None, 3)],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.usefixtures("worker")
def test_a_worker_runs_orchestrations(
    client: TaskHubGrpcClient, orchestrator: Any, argument: Any, expected: object
) -> None:
    assert outcome(client, client.schedule_new_orchestration(orchestrator, input=argument)) == expected


@pytest.mark.usefixtures("worker")
def test_a_failure_reaches_the_client(client: TaskHubGrpcClient) -> None:
    state = client.wait_for_orchestration_completion(client.schedule_new_orchestration(fails, input="broken"))

    assert state is not None
    assert state.runtime_status is OrchestrationStatus.FAILED
    assert state.failure_details is not None
    assert "broken" in state.failure_details.message


@pytest.mark.usefixtures("worker")
def test_other_calls_of_the_client(client: TaskHubGrpcClient) -> None:
    instance_id = client.schedule_new_orchestration(approval)
    client.wait_for_orchestration_start(instance_id)
    with pytest.raises(TimeoutError):
        client.wait_for_orchestration_completion(instance_id, timeout=0.1)
    client.suspend_orchestration(instance_id)
    client.resume_orchestration(instance_id)
    client.raise_orchestration_event(instance_id, "approved", data="Ada")

    assert outcome(client, instance_id) == "approved by Ada"
    assert len(client.get_orchestration_history(instance_id)) > 3
    assert [state.instance_id for state in client.get_all_orchestration_states()] == [instance_id]
    assert client.purge_orchestration(instance_id).deleted_instance_count == 1
    assert client.get_orchestration_state(instance_id) is None


async def test_the_asynchronous_client(engine: InMemoryOrchestrationBackend, worker: TaskHubGrpcWorker) -> None:
    async with InProcessAioChannel(engine) as channel:
        client = AsyncTaskHubGrpcClient(channel=channel, logger=QUIET)
        instance_ids = [await client.schedule_new_orchestration(chain, input=count) for count in range(5)]
        waits = [client.wait_for_orchestration_completion(instance_id) for instance_id in instance_ids]
        states = await asyncio.gather(*waits)

        assert [state.get_output() for state in states if state] == [0, 0, 1, 3, 6]
        waiting = await client.schedule_new_orchestration(approval)
        with pytest.raises(TimeoutError):
            await client.wait_for_orchestration_completion(waiting, timeout=0.1)
        await client.raise_orchestration_event(waiting, "approved", data="Bob")
        state = await client.wait_for_orchestration_completion(waiting)
        assert state is not None
        assert state.get_output() == "approved by Bob"
        assert len(await client.get_orchestration_history(waiting)) > 2


@pytest.mark.usefixtures("worker")
def test_histories_are_those_of_a_socket(client: TaskHubGrpcClient) -> None:
    in_process = kinds_of_events(client)
    backend = InMemoryOrchestrationBackend()
    with serving(backend) as address, TaskHubGrpcWorker(host_address=address, logger=QUIET) as worker:
        worker.add_orchestrator(chain)
        worker.add_activity(add)
        worker.start()
        with TaskHubGrpcClient(host_address=address, logger=QUIET) as client_of_socket:
            over_a_socket = kinds_of_events(client_of_socket)
        backend._shutdown_event.set()

    assert in_process == over_a_socket


def kinds_of_events(client: TaskHubGrpcClient) -> list[str]:
    instance_id = client.schedule_new_orchestration(chain, input=3)
    assert outcome(client, instance_id) == 3
    return [type(event).__name__ for event in client.get_orchestration_history(instance_id)]


def test_stopping_a_worker_ends_its_stream(
    engine: InMemoryOrchestrationBackend, channel: InProcessChannel, client: TaskHubGrpcClient
) -> None:
    worker = TaskHubGrpcWorker(channel=channel, logger=QUIET)
    worker.add_orchestrator(chain)
    worker.add_activity(add)
    worker.start()
    assert outcome(client, client.schedule_new_orchestration(chain, input=2)) == 1
    worker.stop()

    wait_until(lambda: not channel._in_flight)


def test_a_worker_reconnects_after_its_stream_ends(engine: InMemoryOrchestrationBackend) -> None:
    streams = threading.Semaphore(0)

    class Breaking(InMemoryOrchestrationBackend):
        breaks = True

        def GetWorkItems(self, request: Any, context: Any) -> Iterator[Any]:
            streams.release()
            if self.breaks:
                self.breaks = False
                context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
            yield from super().GetWorkItems(request, context)

    breaking = Breaking()
    with InProcessChannel(breaking) as channel:
        worker = TaskHubGrpcWorker(channel=channel, logger=QUIET)
        worker.add_orchestrator(chain)
        worker.add_activity(add)
        worker.start()
        for _ in range(2):
            assert streams.acquire(timeout=SECONDS)
        client = TaskHubGrpcClient(channel=channel, logger=QUIET)
        assert outcome(client, client.schedule_new_orchestration(chain, input=2)) == 1
        worker.stop()
