"""What a worker held when it died, hung up or gave up comes to another worker."""

from __future__ import annotations

import json
import signal
import threading
import time

import pytest
from durabletask.client import OrchestrationStatus
from durabletask.entities import EntityInstanceId
from durabletask.history import TaskScheduledEvent

from durabletask_aio.testing.local import local_backend as start_backend


@pytest.fixture
def local_backend():
    """An engine that does not wait for a killed worker to come back."""
    with start_backend(reconnect_period=0.2) as backend:
        yield backend


def kinds(events):
    return [event.WhichOneof("eventType") for event in events]


@pytest.mark.parametrize(
    ("place", "executions"),
    [
        pytest.param("activity", {"activity": 3, "turn": 1}, id="while an activity runs"),
        pytest.param("turn", {"activity": 2, "turn": 2}, id="while a turn runs"),
    ],
)
def test_a_worker_killed_loses_nothing(place, executions, local_backend, client, worker_process, wait_until):
    worker_process.start(hang=place)
    instance_id = client.schedule_new_orchestration("orchestrator", input=40)
    wait_until(lambda: worker_process.reached(place), f"the worker to reach its {place}")
    worker_process.kill()

    worker_process.start()
    state = client.wait_for_orchestration_completion(instance_id, timeout=60)

    assert state.runtime_status is OrchestrationStatus.COMPLETED
    assert state.get_output()[0] == 42
    assert {what: worker_process.executions(what) for what in executions} == executions
    # One scheduling and one completion each, however often they were attempted.
    assert kinds(local_backend.history(instance_id).protobuf).count("taskScheduled") == 2
    assert kinds(local_backend.history(instance_id).protobuf).count("taskCompleted") == 2


@pytest.mark.parametrize("place", ["activity", "turn"])
def test_an_async_workflow_draws_the_same_numbers_after_its_worker_was_killed(
    place, local_backend, client, worker_process, wait_until
):
    worker_process.start(hang=place)
    instance_id = client.schedule_new_orchestration("drawing", input=40)
    wait_until(lambda: worker_process.reached(place), f"the worker to reach its {place}")
    before = [json.loads(step.input) for step in steps(local_backend.history(instance_id))]
    worker_process.kill()

    worker_process.start()
    result = client.wait_for_orchestration_completion(instance_id, timeout=60).get_output()

    recorded = [json.loads(step.input) for step in steps(local_backend.history(instance_id))]
    assert before[0] == recorded[0]
    assert recorded == [[40, *result[1:3]], [41, *result[1:]]]
    assert result[0] == 42
    assert len(set(result[1:])) == 4


def steps(history):
    return [event for event in history if isinstance(event, TaskScheduledEvent)]


def test_a_worker_killed_during_an_entity_operation_loses_nothing(client, worker_process, wait_until):
    counter = EntityInstanceId("counter", "one")
    worker_process.start(hang="entity")
    client.signal_entity(counter, "add", input=5)
    wait_until(lambda: worker_process.reached("entity"), "the operation to start")
    worker_process.kill()
    client.signal_entity(counter, "add", input=2)

    worker_process.start()
    wait_until(lambda: client.get_entity(counter).get_state() == "7", "both operations in order")

    assert worker_process.executions("entity") == 3


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
def test_a_worker_that_is_frozen_with_its_connection_open_loses_what_it_holds(
    local_backend, client, worker_process, wait_until
):
    worker_process.start(hang="activity")
    instance_id = client.schedule_new_orchestration("orchestrator", input=40)
    wait_until(lambda: worker_process.reached("activity"), "the worker to reach its activity")
    frozen = worker_process.process
    try:
        frozen.send_signal(signal.SIGSTOP)
        worker_process.start()
        state = client.wait_for_orchestration_completion(instance_id, timeout=120)
    finally:
        frozen.kill()
        frozen.wait()
    assert state.get_output()[0] == 42
    assert worker_process.executions("activity") == 3


@pytest.mark.slow
def test_a_worker_that_takes_long_keeps_what_it_holds(client, grpc_worker):
    runs = []

    def long(context, seconds):
        runs.append(seconds)
        time.sleep(seconds)

    def orchestrator(context, seconds):
        yield context.call_activity(long, input=seconds)

    for _ in range(2):
        grpc_worker(orchestrators=[orchestrator], activities=[long])
    instance_id = client.schedule_new_orchestration(orchestrator, input=25)  # longer than a ping may take
    client.wait_for_orchestration_completion(instance_id, timeout=120)
    assert runs == [25]


def test_a_worker_that_stops_in_order_delivers_what_it_had_begun(local_backend, client, grpc_worker, wait_until):
    """It gets nothing new, and keeps what it has begun until that is delivered."""
    begun, finish, runs = threading.Event(), threading.Event(), []

    def slow(context, value):
        runs.append(value)
        begun.set()
        assert finish.wait(60)
        return value

    def orchestrator(context, value):
        return (yield context.call_activity(slow, input=value))

    worker = grpc_worker(orchestrators=[orchestrator], activities=[slow])
    instance_id = client.schedule_new_orchestration(orchestrator, input=7)
    assert begun.wait(60)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    wait_until(lambda: any(each.is_leaving for each in local_backend.kernel.dispatcher.streams), "the worker to leave")
    finish.set()
    stopping.join()

    grpc_worker(orchestrators=[orchestrator], activities=[slow])
    state = client.wait_for_orchestration_completion(instance_id, timeout=60)

    assert state.get_output() == 7
    assert runs == [7]
