"""What a worker held when it went away comes to another one, and what an answer counts for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine_harness import Harness, activity, end, kinds, stores

from durabletask_aio.engine import abandoned
from durabletask_aio.engine._upstream import pb


@pytest.fixture(params=stores(), ids=lambda each: each.__name__)
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    store = request.param()
    harness = Harness(store)
    harness.start("one")
    yield harness
    store.close()


def test_a_turn_comes_back_unchanged_when_its_worker_goes(harness):
    gone = harness.connect()
    first = harness.take(gone)
    harness.kernel.close_stream(gone)
    second = harness.take()
    assert second.completionToken != first.completionToken
    assert second.orchestratorRequest == first.orchestratorRequest


def test_a_worker_that_has_gone_gets_nothing(harness):
    gone = harness.connect()
    harness.kernel.close_stream(gone)
    assert harness.take(gone) is None
    assert harness.take() is not None


def test_a_turn_delivered_twice_counts_once(harness):
    item = harness.take()
    harness.complete_turn(item, activity(1))
    harness.complete_turn(item, activity(1))
    assert kinds(harness.history("one")).count("taskScheduled") == 1


def test_of_two_workers_that_run_one_turn_the_first_answer_counts(harness):
    gone = harness.connect()
    first = harness.take(gone)
    harness.kernel.close_stream(gone)
    second = harness.take()
    harness.complete_turn(first, activity(1, "first"))
    harness.complete_turn(second, activity(1, "second"))
    names = [event.taskScheduled.name for event in harness.history("one") if event.HasField("taskScheduled")]
    assert names == ["first"]


def test_of_two_workers_that_run_one_activity_the_first_answer_counts(harness):
    harness.turn(activity(1))
    gone = harness.connect()
    first = harness.take(gone)
    harness.kernel.close_stream(gone)
    second = harness.take()
    for item, result in ((first, '"first"'), (second, '"second"'), (second, '"second"')):
        harness.complete_activity(item, result)
    results = [event.taskCompleted.result.value for event in harness.turn() if event.HasField("taskCompleted")]
    assert results == ['"first"']


def test_events_that_arrive_while_a_turn_is_out_are_in_it_when_it_comes_back(harness):
    gone = harness.connect()
    harness.take(gone)
    harness.raise_event("one")
    harness.kernel.close_stream(gone)
    assert kinds(harness.turn()) == ["orchestratorStarted", "executionStarted", "eventRaised"]


@pytest.mark.parametrize("kind", ["turn", "activity", "entity"])
def test_an_abandoned_item_is_offered_again_after_a_pause(harness, kind, monkeypatch):
    monkeypatch.setattr(abandoned, "ABANDON_PAUSE", 3600.0)
    if kind != "turn":
        harness.turn(activity(1))
    if kind == "entity":
        harness.take()  # the activity
        harness.call("SignalEntity", pb.SignalEntityRequest(instanceId="@counter@one", name="add"))
    method, request = {
        "turn": ("AbandonTaskOrchestratorWorkItem", pb.AbandonOrchestrationTaskRequest),
        "activity": ("AbandonTaskActivityWorkItem", pb.AbandonActivityTaskRequest),
        "entity": ("AbandonTaskEntityWorkItem", pb.AbandonEntityTaskRequest),
    }[kind]
    item = harness.take()
    harness.call(method, request(completionToken=item.completionToken))
    harness.kernel.dispatcher.check()
    assert harness.take() is None

    monkeypatch.setattr(harness.kernel.dispatcher, "_monotonic", lambda: float("inf"))
    harness.kernel.dispatcher.check()
    again = harness.take()
    assert again.WhichOneof("request") == item.WhichOneof("request")
    assert again.completionToken != item.completionToken


@pytest.mark.parametrize("how", ["resume", "terminate"])
def test_a_suspended_instance_is_woken_by_what_comes_during_its_turn(harness, how):
    harness.turn()
    harness.call("SuspendInstance", pb.SuspendRequest(instanceId="one"))
    item = harness.take()
    if how == "resume":
        harness.call("ResumeInstance", pb.ResumeRequest(instanceId="one"))
        status = pb.ORCHESTRATION_STATUS_COMPLETED
    else:
        harness.call("TerminateInstance", pb.TerminateRequest(instanceId="one"))
        status = pb.ORCHESTRATION_STATUS_TERMINATED
    assert harness.take() is None
    harness.complete_turn(item)
    assert kinds(harness.turn(end(status)))[-1] == ("executionResumed" if how == "resume" else "executionTerminated")
    assert harness.state("one").orchestrationStatus == status


def test_a_suspended_instance_gets_what_has_arrived_once_it_is_resumed(harness):
    harness.turn()
    harness.call("SuspendInstance", pb.SuspendRequest(instanceId="one"))
    harness.turn()
    harness.raise_event("one")
    assert harness.take() is None
    harness.call("ResumeInstance", pb.ResumeRequest(instanceId="one"))
    assert kinds(harness.turn()) == ["orchestratorStarted", "eventRaised", "executionResumed"]
