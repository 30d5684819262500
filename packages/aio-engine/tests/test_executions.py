"""What belongs to one execution reaches that execution and no other; and what an action says arrives."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from engine_harness import CONTINUE, START, Harness, activity, child, end, kinds, started, stores

from durabletask_aio.engine import events
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.streams import TURN

REPLACE_PENDING = pb.OrchestrationIdReusePolicy(replaceableStatus=[pb.ORCHESTRATION_STATUS_PENDING])
TRACE = pb.TraceContext(traceParent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


@pytest.fixture(params=stores(), ids=lambda each: each.__name__)
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    store = request.param()
    yield Harness(store)
    store.close()


class TestExecutions:
    def test_a_late_result_does_not_reach_the_next_execution(self, harness):
        harness.start("one")
        harness.turn(activity(1))
        late = harness.take()
        harness.raise_event("one")
        harness.turn(CONTINUE)
        harness.turn(activity(1))
        harness.complete_activity(late, '"of the first execution"')
        harness.complete_activity(harness.take(), '"of the second"')
        results = [each.taskCompleted.result.value for each in harness.turn() if each.HasField("taskCompleted")]
        assert results == ['"of the second"']

    def test_the_next_execution_knows_parent_and_span_of_the_first(self, harness):
        harness.start("one")
        harness.turn(child(1, parentTraceContext=TRACE))
        first = started(harness.turn(CONTINUE))
        second = started(harness.turn())
        assert first.parentInstance.orchestrationInstance.instanceId == "one"
        assert second.parentInstance == first.parentInstance
        assert second.parentTraceContext == first.parentTraceContext == TRACE

    def test_the_next_execution_has_the_tags_of_the_first_and_its_own(self, harness):
        harness.start("one", tags={"a": "1", "b": "1"})
        again = pb.OrchestratorAction()
        again.CopyFrom(CONTINUE)
        again.completeOrchestration.tags.update({"b": "2"})
        harness.turn(again)
        assert dict(started(harness.turn()).tags) == {"a": "1", "b": "2"}

    def test_what_is_carried_over_says_when_it_happened(self, harness):
        harness.start("one")
        again = pb.OrchestratorAction()
        again.CopyFrom(CONTINUE)
        old = pb.HistoryEvent(timestamp=events.timestamp(5), eventRaised=pb.EventRaisedEvent(name="old"))
        again.completeOrchestration.carryoverEvents.extend(
            [old, pb.HistoryEvent(eventId=-1, eventRaised=pb.EventRaisedEvent(name="go"))]
        )
        harness.turn(again)
        carried = harness.turn()[2:]
        assert [each.eventRaised.name for each in carried] == ["old", "go"]
        assert [events.microseconds(each.timestamp) for each in carried] == [5, START + 1]

    def test_a_restarted_instance_has_its_tags_again(self, harness):
        harness.start("one", tags={"a": "b"})
        harness.turn(end())
        request = pb.RestartInstanceRequest(instanceId="one", restartWithNewInstanceId=True)
        assert harness.call("RestartInstance", request).instanceId != "one"
        assert dict(started(harness.turn()).tags) == {"a": "b"}

    def test_a_timer_does_not_fire_into_the_next_execution(self, harness):
        harness.start("one")
        harness.turn(harness.timer(1, seconds=10))
        harness.raise_event("one")
        harness.turn(CONTINUE)
        harness.turn(harness.timer(1, seconds=60))
        harness.advance(timedelta(seconds=30))
        assert harness.take() is None
        harness.advance(timedelta(seconds=60))
        assert [each.timerFired.timerId for each in harness.turn() if each.HasField("timerFired")] == [1]

    def test_an_instance_that_has_ended_is_not_woken_by_a_late_result(self, harness):
        harness.start("one")
        harness.turn(activity(1), end())
        before = harness.history("one")
        harness.complete_activity(harness.take())
        assert harness.take() is None
        assert harness.history("one") == before

    def test_a_new_instance_of_the_same_id_does_not_get_the_old_ones_result(self, harness):
        harness.start("one")
        harness.turn(activity(1), end())
        late = harness.take()
        replaceable = [pb.ORCHESTRATION_STATUS_COMPLETED]
        harness.start("one", orchestrationIdReusePolicy=pb.OrchestrationIdReusePolicy(replaceableStatus=replaceable))
        harness.turn(activity(1))
        harness.complete_activity(late)
        assert harness.take().HasField("activityRequest")
        assert harness.take() is None

    def test_an_instance_replaced_while_its_turn_is_out_starts_at_once(self, harness):
        harness.start("one")
        old = harness.take()
        harness.start("one", orchestrationIdReusePolicy=REPLACE_PENDING)
        new = harness.take()
        harness.complete_turn(old, end())
        assert harness.history("one") == []
        harness.complete_turn(new, end())
        assert kinds(harness.history("one"))[:2] == ["orchestratorStarted", "executionStarted"]

    def test_an_instance_purged_while_its_turn_is_out_may_start_again_at_once(self, harness):
        gone = harness.connect()
        harness.start("one")
        old = harness.take(gone)
        batch = pb.InstanceBatch(instanceIds=["one"])
        harness.call(
            "SkipGracefulOrchestrationTerminations",
            pb.SkipGracefulOrchestrationTerminationsRequest(instanceBatch=batch),
        )
        harness.call("PurgeInstances", pb.PurgeInstancesRequest(instanceId="one"))
        harness.start("one")
        new = harness.take()
        assert new is not None
        harness.kernel.close_stream(gone)
        assert harness.take() is None, "the turn of the execution that was purged has come back"
        harness.complete_turn(old, end())
        harness.complete_turn(new, end())
        assert harness.take() is None

    def test_a_worker_that_serves_another_name_gets_the_instance_that_has_the_id_by_now(self, harness):
        worker = harness.connect()
        worker.names = {TURN: {"other": frozenset()}}
        harness.start("one")
        harness.start("one", orchestrationIdReusePolicy=REPLACE_PENDING, name="other")
        assert harness.take(worker).orchestratorRequest.newEvents[1].executionStarted.name == "other"

    def test_no_two_executions_start_at_one_time(self, harness):
        harness.start("one")
        harness.turn(CONTINUE)
        harness.turn(CONTINUE)
        third = harness.turn()
        assert events.microseconds(third[0].timestamp) == START + 2
        assert harness.clock.now() == START

    def test_a_history_may_be_longer_than_upstreams_ten_thousand_events(self, harness):
        harness.start("one")
        for number in range(10_001):
            harness.raise_event("one", str(number))
        harness.turn(end())
        assert kinds(harness.history("one")).count("eventRaised") == 10_001


class TestActivities:
    def test_tags_version_and_trace_context_reach_the_request_and_the_event(self, harness):
        harness.start("one")
        action = activity(1, tags={"a": "b"}, parentTraceContext=TRACE)
        action.scheduleTask.version.value = "1.2"
        harness.turn(action)
        request = harness.take().activityRequest
        event = next(each for each in harness.history("one") if each.HasField("taskScheduled"))
        for carrier in (request, event.taskScheduled):
            assert dict(carrier.tags) == {"a": "b"}
            assert carrier.version.value == "1.2"
            assert carrier.parentTraceContext == TRACE

    def test_a_failure_without_a_message_is_a_failure(self, harness):
        harness.start("one")
        harness.turn(activity(1))
        item = harness.take()
        response = pb.ActivityResponse(instanceId="one", taskId=1, completionToken=item.completionToken)
        response.failureDetails.errorType = "builtins.ValueError"
        harness.call("CompleteActivityTask", response)
        assert kinds(harness.turn()) == ["orchestratorStarted", "taskFailed"]

    def test_no_result_is_not_an_empty_result(self, harness):
        harness.start("one")
        harness.turn(activity(1))
        item = harness.take()
        response = pb.ActivityResponse(instanceId="one", taskId=1, completionToken=item.completionToken)
        harness.call("CompleteActivityTask", response)
        completed = harness.turn()[1].taskCompleted
        assert not completed.HasField("result")
        assert not item.activityRequest.HasField("input")
        assert not started(harness.history("one")).HasField("input")


class TestSubOrchestrations:
    def test_a_child_knows_its_parent_and_has_the_tags_and_trace_of_the_action(self, harness):
        harness.start("parent")
        harness.turn(child(4, tags={"a": "b"}, parentTraceContext=TRACE))
        event = started(harness.turn())
        assert event.parentInstance.orchestrationInstance.instanceId == "parent"
        assert event.parentInstance.taskScheduledId == 4
        assert event.parentInstance.name.value == "any"
        assert dict(event.tags) == {"a": "b"}
        assert event.parentTraceContext == TRACE
        created = harness.history("parent")[2].subOrchestrationInstanceCreated
        assert dict(created.tags) == {"a": "b"}
        assert created.parentTraceContext == TRACE

    def test_a_child_whose_id_is_taken_fails_and_leaves_the_other_instance_alone(self, harness):
        harness.start("child")
        harness.turn()
        harness.start("parent")
        harness.turn(child(1))
        failed = harness.turn()[-1].subOrchestrationInstanceFailed
        assert failed.failureDetails.errorMessage == "Orchestration instance 'child' already exists"
        assert not started(harness.history("child")).HasField("parentInstance")

    def test_a_child_reports_however_long_it_takes(self, harness):
        harness.start("parent")
        harness.turn(child(1))
        harness.turn(harness.timer(1, seconds=3600))
        harness.advance(timedelta(hours=2))
        harness.turn(end())
        assert kinds(harness.turn()) == ["orchestratorStarted", "subOrchestrationInstanceCompleted"]

    def test_the_failure_of_a_child_keeps_its_type_and_its_causes(self, harness):
        harness.start("parent")
        harness.turn(child(1))
        failed = end(pb.ORCHESTRATION_STATUS_FAILED)
        details = failed.completeOrchestration.failureDetails
        details.errorType, details.errorMessage = "shop.OutOfStock", "no more tea"
        details.innerFailure.errorType = "builtins.KeyError"
        harness.turn(failed)
        assert harness.turn()[-1].subOrchestrationInstanceFailed.failureDetails == details

    def test_recursive_termination_reaches_the_children(self, harness):
        harness.start("parent")
        harness.turn(child(1))
        harness.turn(child(1, "grandchild"))
        harness.turn()
        harness.call("TerminateInstance", pb.TerminateRequest(instanceId="parent", recursive=True))
        for instance_id in ("parent", "child", "grandchild"):
            item = harness.take()
            assert item.orchestratorRequest.instanceId == instance_id
            assert "executionTerminated" in kinds(item.orchestratorRequest.newEvents)
            harness.complete_turn(item, end(pb.ORCHESTRATION_STATUS_TERMINATED))

    def test_termination_that_is_not_recursive_leaves_the_children(self, harness):
        harness.start("parent")
        harness.turn(child(1))
        harness.turn()
        harness.call("TerminateInstance", pb.TerminateRequest(instanceId="parent", recursive=False))
        harness.turn(end(pb.ORCHESTRATION_STATUS_TERMINATED))
        assert harness.take() is None


class TestScheduledStart:
    def test_an_instance_scheduled_for_later_starts_later(self, harness):
        when = harness.clock.now() + 3600 * events.MICROSECONDS
        harness.start("later", scheduledStartTimestamp=events.timestamp(when))
        assert harness.take() is None
        harness.advance(timedelta(hours=1))
        assert events.microseconds(harness.turn()[0].timestamp) == when

    def test_what_comes_before_the_start_waits_for_it(self, harness):
        when = harness.clock.now() + 3600 * events.MICROSECONDS
        harness.start("later", scheduledStartTimestamp=events.timestamp(when))
        harness.raise_event("later")
        assert harness.take() is None
        harness.advance(timedelta(hours=1))
        assert kinds(harness.turn()) == ["orchestratorStarted", "executionStarted", "eventRaised"]


class TestEntities:
    def test_a_delayed_signal_of_an_orchestrator_waits_for_the_engines_clock(self, harness):
        harness.start("one")
        when = harness.clock.now() + 2 * 86400 * events.MICROSECONDS
        signaled = pb.EntityOperationSignaledEvent(requestId="1", operation="add", scheduledTime=events.timestamp(when))
        signaled.targetInstanceId.value = "@counter@one"
        message = pb.SendEntityMessageAction(entityOperationSignaled=signaled)
        harness.turn(pb.OrchestratorAction(id=1, sendEntityMessage=message))
        assert harness.take() is None
        harness.advance(timedelta(days=1))
        assert harness.take() is None
        harness.advance(timedelta(days=1))
        assert harness.take().HasField("entityRequestV2")


class TestForgetting:
    def test_all_of_it(self, harness):
        harness.start("one")
        harness.turn(activity(1), activity(2), harness.timer(3, seconds=10), child(4))
        out = harness.take()
        harness.call("SignalEntity", pb.SignalEntityRequest(instanceId="@counter@one", name="add"))
        harness.kernel.execute(lambda transaction: transaction.clear())
        harness.complete_turn(out)
        assert harness.take() is None
        assert harness.kernel.next_due() is None
        with harness.kernel.reading() as reader:
            assert reader.instance("one") is None
            assert reader.entity("@counter@one") is None

    def test_what_is_out_counts_no_more(self, harness):
        harness.start("one")
        harness.turn(activity(1))
        item = harness.take()
        harness.kernel.execute(lambda transaction: transaction.clear())
        harness.start("one")
        harness.turn(activity(1))
        harness.complete_activity(item, '"old"')
        harness.complete_activity(harness.take(), '"new"')
        assert harness.turn()[-1].taskCompleted.result.value == '"new"'
