"""What a worker held when it died, hung up or gave up comes to another worker."""

from __future__ import annotations

import json
import signal
import threading
import time
from datetime import timedelta

import pytest
from durabletask.client import OrchestrationStatus
from durabletask.entities import EntityInstanceId
from durabletask.history import TaskScheduledEvent
from durabletask.internal import helpers

from durabletask_aio.testing._upstream import pb
from durabletask_aio.testing.clock import VirtualClock
from durabletask_aio.testing.engine import Engine
from durabletask_aio.testing.handouts import Taker


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
    """Its stream ends first, so its activity is free for others; as no other worker has taken it, the result counts."""
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
    wait_until(lambda: bool(local_backend.engine._activity_queue), "the activity to be offered to others")
    finish.set()
    stopping.join()

    grpc_worker(orchestrators=[orchestrator], activities=[slow])
    state = client.wait_for_orchestration_completion(instance_id, timeout=60)

    assert state.get_output() == 7
    assert runs == [7]


class TestTokens:
    """The rules, on an engine without a server."""

    @pytest.fixture
    def engine(self, instant):
        engine = Engine(VirtualClock(instant))
        engine.StartInstance(pb.CreateInstanceRequest(instanceId="one", name="orchestrator"), None)
        return engine

    @pytest.fixture
    def instant(self):
        from datetime import datetime, timezone

        return datetime(2024, 1, 1, tzinfo=timezone.utc)

    def complete(self, engine, handout, *actions):
        response = pb.OrchestratorResponse(instanceId="one", completionToken=handout.token, actions=actions)
        engine.CompleteOrchestratorTask(response, None)

    schedule = pb.OrchestratorAction(id=1, scheduleTask=pb.ScheduleTaskAction(name="act"))

    def test_a_turn_comes_back_unchanged_when_its_taker_goes(self, engine):
        gone, other = Taker(), Taker()
        first = engine.take(gone)
        engine.release(gone)
        second = engine.take(other)

        assert second.token != first.token
        assert list(second.message.orchestratorRequest.newEvents) == list(first.message.orchestratorRequest.newEvents)

    def test_a_taker_that_has_gone_gets_nothing(self, engine):
        gone = Taker()
        engine.release(gone)
        assert engine.take(gone) is None

    def test_the_result_of_a_turn_that_another_worker_has_by_now_is_ignored(self, engine):
        gone, other = Taker(), Taker()
        first = engine.take(gone)
        engine.release(gone)
        second = engine.take(other)
        self.complete(engine, first, self.schedule)
        assert engine.history_of("one") == []
        assert engine.take(Taker()) is None, "the instance must stay with the second worker"

        self.complete(engine, second, self.schedule)
        assert kinds(engine.history_of("one")).count("taskScheduled") == 1

    def test_a_turn_delivered_twice_counts_once(self, engine):
        handout = engine.take(Taker())
        self.complete(engine, handout, self.schedule)
        self.complete(engine, handout, self.schedule)
        assert kinds(engine.history_of("one")).count("taskScheduled") == 1

    def test_of_two_workers_that_finish_one_activity_the_one_that_holds_it_counts(self, engine):
        self.complete(engine, engine.take(Taker()), self.schedule)
        gone, other = Taker(), Taker()
        first = engine.take(gone)
        engine.release(gone)
        second = engine.take(other)
        for handout, result in ((first, '"late"'), (second, '"right"'), (second, '"twice"')):
            response = pb.ActivityResponse(instanceId="one", taskId=1, completionToken=handout.token)
            response.result.value = result
            engine.CompleteActivityTask(response, None)

        events = engine.take(Taker()).message.orchestratorRequest.newEvents
        assert [event.taskCompleted.result.value for event in events if event.HasField("taskCompleted")] == ['"right"']

    def test_events_that_arrive_while_a_turn_is_out_follow_it(self, engine):
        gone = Taker()
        engine.take(gone)
        engine.RaiseEvent(pb.RaiseEventRequest(instanceId="one", name="early"), None)
        engine.release(gone)
        events = engine.take(Taker()).message.orchestratorRequest.newEvents
        assert kinds(events) == ["orchestratorStarted", "executionStarted", "eventRaised"]

    @pytest.mark.parametrize("kind", ["turn", "activity", "entity"])
    def test_an_abandoned_item_is_offered_again_after_a_pause(self, engine, kind):
        if kind != "turn":
            self.complete(engine, engine.take(Taker()), self.schedule)
        if kind == "entity":
            engine.take(Taker())  # the activity
            engine.SignalEntity(pb.SignalEntityRequest(instanceId="@counter@one", name="add"), None)
        abandon, request = {
            "turn": (engine.AbandonTaskOrchestratorWorkItem, pb.AbandonOrchestrationTaskRequest),
            "activity": (engine.AbandonTaskActivityWorkItem, pb.AbandonActivityTaskRequest),
            "entity": (engine.AbandonTaskEntityWorkItem, pb.AbandonEntityTaskRequest),
        }[kind]
        handout = engine.take(Taker())
        abandon(request(completionToken=handout.token), None)
        assert engine.take(Taker()) is None

        engine.clock.advance_to(engine.clock.now() + timedelta(seconds=1))
        again = engine.take(Taker())
        assert again.kind == handout.kind
        assert again.token != handout.token


@pytest.mark.parametrize(("end", "status"), [("resume", "COMPLETED"), ("terminate", "TERMINATED")])
def test_a_suspended_instance_is_woken_by_what_comes_during_its_turn(end, status, local_backend, client):
    taker = Taker()
    engine = local_backend.engine
    instance_id = client.schedule_new_orchestration("anything")

    def turn(*actions):
        handout = engine.take(taker)
        assert handout is not None
        message = handout.message
        return pb.OrchestratorResponse(
            instanceId=instance_id, actions=actions, completionToken=message.completionToken
        ), kinds(message.orchestratorRequest.newEvents)

    engine.CompleteOrchestratorTask(turn()[0], None)
    client.suspend_orchestration(instance_id)
    response, _ = turn()
    if end == "resume":
        client.resume_orchestration(instance_id)
    else:
        client.terminate_orchestration(instance_id)
    assert engine.take(taker) is None
    engine.CompleteOrchestratorTask(response, None)
    completed = helpers.new_complete_orchestration_action(
        1, pb.ORCHESTRATION_STATUS_COMPLETED if end == "resume" else pb.ORCHESTRATION_STATUS_TERMINATED
    )
    response, events = turn(completed)
    engine.CompleteOrchestratorTask(response, None)

    assert events[-1] == ("executionResumed" if end == "resume" else "executionTerminated")
    assert client.get_orchestration_state(instance_id).runtime_status.name == status
