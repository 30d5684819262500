"""What belongs to one execution reaches that execution and no other; and what an action says arrives."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone

from durabletask.client import OrchestrationStatus
from durabletask.task import when_any

from durabletask_aio.testing import handouts
from durabletask_aio.testing._upstream import pb
from durabletask_aio.testing.clock import VirtualClock
from durabletask_aio.testing.engine import Engine
from durabletask_aio.testing.environment import WorkflowEnvironment
from durabletask_aio.testing.handouts import Taker


def started(history):
    return next(event.executionStarted for event in history if event.HasField("executionStarted"))


class TestTags:
    def test_tags_travel_from_the_client_over_the_parent_to_activity_and_child(self, local_backend, client):
        seen = {}

        def take(taker, filters, _take=local_backend.engine.take):
            handout = _take(taker, filters)
            if handout is not None and handout.kind == "activity":
                seen.update(handout.message.activityRequest.tags)
            return handout

        local_backend.engine.take = take
        from durabletask.worker import TaskHubGrpcWorker

        def act(context, _):
            return 1

        def child(context, _):
            return 2
            yield

        def parent(context, _):
            yield context.call_activity(act, tags={"to": "activity"})
            return (yield context.call_sub_orchestrator(child, instance_id="child"))

        with TaskHubGrpcWorker(host_address=local_backend.address) as worker:
            worker.add_orchestrator(parent)
            worker.add_orchestrator(child)
            worker.add_activity(act)
            worker.start()
            client.schedule_new_orchestration(parent, instance_id="parent", tags={"from": "client"})
            client.wait_for_orchestration_completion("parent", timeout=60)

        history = local_backend.history("parent").protobuf
        assert dict(started(history).tags) == {"from": "client"}
        assert seen == {"to": "activity"}
        scheduled = next(event.taskScheduled for event in history if event.HasField("taskScheduled"))
        assert dict(scheduled.tags) == {"to": "activity"}

    def test_a_restarted_instance_has_its_tags_again(self, local_backend, client, grpc_worker):
        def at_once(context, _):
            return 1
            yield

        grpc_worker(orchestrators=[at_once])
        client.schedule_new_orchestration(at_once, instance_id="one", tags={"a": "b"})
        client.wait_for_orchestration_completion("one", timeout=60)
        other = client.restart_orchestration("one", restart_with_new_instance_id=True)
        client.wait_for_orchestration_completion(other, timeout=60)
        assert dict(started(local_backend.history(other).protobuf).tags) == {"a": "b"}

    def test_tags_survive_continue_as_new(self, local_backend, client, grpc_worker):
        def twice(context, rounds):
            if rounds:
                context.continue_as_new(rounds - 1)
                return None
            return "end"
            yield

        grpc_worker(orchestrators=[twice])
        client.schedule_new_orchestration(twice, instance_id="one", input=2, tags={"a": "b"})
        assert client.wait_for_orchestration_completion("one", timeout=60).get_output() == "end"
        assert dict(started(local_backend.history("one").protobuf).tags) == {"a": "b"}


class Harness:
    """An engine on a virtual clock, and the few things a worker would send."""

    def __init__(self):
        self.clock = VirtualClock(datetime(2024, 1, 1, tzinfo=timezone.utc))
        self.engine = Engine(self.clock)
        self.taker = Taker()

    def start(self, instance_id, **fields):
        self.engine.StartInstance(pb.CreateInstanceRequest(instanceId=instance_id, name="any", **fields), None)

    def turn(self, *actions):
        """Take the next turn, answer with the actions, return the events that were new in it."""
        handout = self.engine.take(self.taker)
        assert handout.kind == "orchestration"
        request = handout.message.orchestratorRequest
        self.engine.CompleteOrchestratorTask(
            pb.OrchestratorResponse(instanceId=request.instanceId, completionToken=handout.token, actions=actions),
            None,
        )
        return request.newEvents

    def complete_activity(self, handout, result="1"):
        request = handout.message.activityRequest
        response = pb.ActivityResponse(
            instanceId=request.orchestrationInstance.instanceId, taskId=request.taskId, completionToken=handout.token
        )
        response.result.value = result
        self.engine.CompleteActivityTask(response, None)

    def timer(self, timer_id, seconds):
        action = pb.OrchestratorAction(id=timer_id, createTimer=pb.CreateTimerAction())
        action.createTimer.fireAt.FromDatetime(self.clock.now() + timedelta(seconds=seconds))
        return action


def activity(task_id, **fields):
    return pb.OrchestratorAction(id=task_id, scheduleTask=pb.ScheduleTaskAction(name="act", **fields))


def child(task_id, instance_id="child", **fields):
    asked = pb.CreateSubOrchestrationAction(name="child", instanceId=instance_id, **fields)
    return pb.OrchestratorAction(id=task_id, createSubOrchestration=asked)


def end(status=pb.ORCHESTRATION_STATUS_COMPLETED):
    return pb.OrchestratorAction(
        id=99, completeOrchestration=pb.CompleteOrchestrationAction(orchestrationStatus=status)
    )


CONTINUE = end(pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW)


class TestExecutions:
    def test_a_late_result_does_not_reach_the_next_execution(self):
        harness = Harness()
        harness.start("one")
        harness.turn(activity(1))
        late = harness.engine.take(harness.taker)
        harness.engine.RaiseEvent(pb.RaiseEventRequest(instanceId="one", name="again"), None)
        harness.turn(CONTINUE)
        harness.turn(activity(1))
        harness.complete_activity(late, '"of the first execution"')
        harness.complete_activity(harness.engine.take(harness.taker), '"of the second"')
        results = [each.taskCompleted.result.value for each in harness.turn() if each.HasField("taskCompleted")]
        assert results == ['"of the second"']

    def test_the_next_execution_knows_parent_and_span_of_the_first(self):
        span = pb.TraceContext(traceParent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        harness = Harness()
        harness.start("one")
        harness.turn(child(1, parentTraceContext=span))
        first = started(harness.turn(CONTINUE))
        second = started(harness.turn())
        assert first.parentInstance.orchestrationInstance.instanceId == "one"
        assert second.parentInstance == first.parentInstance
        assert second.parentTraceContext == first.parentTraceContext == span

    def test_a_timer_does_not_fire_into_the_next_execution(self):
        harness = Harness()
        harness.start("one")
        harness.turn(harness.timer(1, seconds=10))
        harness.engine.RaiseEvent(pb.RaiseEventRequest(instanceId="one", name="again"), None)
        harness.turn(CONTINUE)
        harness.turn(harness.timer(1, seconds=60))
        assert harness.clock.advance_to(harness.clock.now() + timedelta(seconds=30))
        assert harness.engine.take(harness.taker) is None
        harness.clock.advance_to(harness.clock.now() + timedelta(seconds=60))
        assert [each.timerFired.timerId for each in harness.turn() if each.HasField("timerFired")] == [1]

    def test_an_instance_that_has_ended_is_not_woken_by_a_late_result(self):
        harness = Harness()
        harness.start("one")
        harness.turn(activity(1), end())
        before = harness.engine.history_of("one")
        harness.complete_activity(harness.engine.take(harness.taker))
        assert harness.engine.take(harness.taker) is None
        assert harness.engine.history_of("one") == before

    def test_a_new_instance_of_the_same_id_does_not_get_the_old_ones_result(self):
        harness = Harness()
        harness.start("one")
        harness.turn(activity(1), end())
        late = harness.engine.take(harness.taker)
        harness.start(
            "one",
            orchestrationIdReusePolicy=pb.OrchestrationIdReusePolicy(
                replaceableStatus=[pb.ORCHESTRATION_STATUS_COMPLETED]
            ),
        )
        harness.turn(activity(1))
        harness.complete_activity(late)
        assert harness.engine.take(harness.taker).kind == "activity"
        assert harness.engine.take(harness.taker) is None

    def test_an_instance_replaced_while_its_turn_is_out_starts_at_once(self):
        harness = Harness()
        harness.start("one")
        old = harness.engine.take(harness.taker)
        policy = pb.OrchestrationIdReusePolicy(replaceableStatus=[pb.ORCHESTRATION_STATUS_PENDING])
        harness.start("one", orchestrationIdReusePolicy=policy)
        new = harness.engine.take(harness.taker)
        assert new is not None
        response = pb.OrchestratorResponse(instanceId="one", completionToken=old.token, actions=[end()])
        harness.engine.CompleteOrchestratorTask(response, None)
        assert harness.engine.history_of("one") == []


class TestActivities:
    def test_tags_version_and_trace_context_reach_the_request_and_the_event(self):
        harness = Harness()
        harness.start("one")
        action = activity(1, tags={"a": "b"}, parentTraceContext=pb.TraceContext(traceParent="00-1-2-01"))
        action.scheduleTask.version.value = "1.2"
        harness.turn(action)
        request = harness.engine.take(harness.taker).message.activityRequest
        event = next(each for each in harness.engine.history_of("one") if each.HasField("taskScheduled"))
        for carrier in (request, event.taskScheduled):
            assert dict(carrier.tags) == {"a": "b"}
            assert carrier.version.value == "1.2"
            assert carrier.parentTraceContext.traceParent == "00-1-2-01"


class TestSubOrchestrations:
    def test_a_child_knows_its_parent_and_has_the_tags_and_trace_of_the_action(self):
        harness = Harness()
        harness.start("parent")
        trace = pb.TraceContext(traceParent="00-1-2-01")
        harness.turn(child(4, tags={"a": "b"}, parentTraceContext=trace))
        event = started(harness.turn())
        assert event.parentInstance.orchestrationInstance.instanceId == "parent"
        assert event.parentInstance.taskScheduledId == 4
        assert event.parentInstance.name.value == "any"
        assert dict(event.tags) == {"a": "b"}
        assert event.parentTraceContext.traceParent == "00-1-2-01"
        created = harness.engine.history_of("parent")[2].subOrchestrationInstanceCreated
        assert dict(created.tags) == {"a": "b"}
        assert created.parentTraceContext.traceParent == "00-1-2-01"

    def test_a_child_under_a_name_that_is_taken_fails_in_the_parent_and_leaves_the_other_alone(self):
        harness = Harness()
        harness.start("child")
        harness.start("parent")
        harness.turn(harness.timer(1, 10))
        harness.turn(child(1, tags={"a": "b"}))
        failed = [each for each in harness.turn() if each.HasField("subOrchestrationInstanceFailed")]
        assert "already exists" in failed[0].subOrchestrationInstanceFailed.failureDetails.errorMessage
        assert not started(harness.engine.history_of("child")).HasField("parentInstance")

    def test_a_child_that_takes_longer_than_thirty_seconds_still_reports(self):
        harness = Harness()
        harness.start("parent")
        harness.turn(child(1))
        harness.turn(harness.timer(1, seconds=3600))
        harness.clock.advance_to(harness.clock.now() + timedelta(hours=2))
        harness.turn(end())
        assert any(each.HasField("subOrchestrationInstanceCompleted") for each in harness.turn())

    def test_recursive_termination_reaches_the_children(self):
        harness = Harness()
        harness.start("parent")
        harness.turn(child(1))
        harness.turn(child(1, "grandchild"))
        harness.turn()
        harness.engine.TerminateInstance(pb.TerminateRequest(instanceId="parent", recursive=True), None)
        for _ in range(3):
            assert any(each.HasField("executionTerminated") for each in harness.turn())

    def test_termination_that_is_not_recursive_leaves_the_children(self):
        harness = Harness()
        harness.start("parent")
        harness.turn(child(1))
        harness.turn()
        harness.engine.TerminateInstance(pb.TerminateRequest(instanceId="parent", recursive=False), None)
        harness.turn(end(pb.ORCHESTRATION_STATUS_TERMINATED))
        assert harness.engine.take(harness.taker) is None


class TestScheduledStart:
    def test_an_instance_scheduled_for_later_starts_later(self):
        harness = Harness()
        when = harness.clock.now() + timedelta(hours=1)
        request = pb.CreateInstanceRequest(instanceId="later", name="any")
        request.scheduledStartTimestamp.FromDatetime(when)
        harness.engine.StartInstance(request, None)
        assert harness.engine.take(harness.taker) is None
        harness.clock.advance_to(harness.clock.now() + timedelta(hours=1))
        new = harness.turn()
        assert new[0].timestamp.ToDatetime(tzinfo=timezone.utc) == when

    async def test_an_event_that_comes_before_the_start_waits_for_it(self):
        async def receives(ctx):
            return [await ctx.wait_for_external_event("go"), ctx.now().isoformat()]

        async with WorkflowEnvironment(orchestrators=[receives]) as env:
            when = env.now + timedelta(days=1)
            handle = await env.start(receives, start_at=when)
            await handle.raise_event("go", "early")
            assert handle.status is OrchestrationStatus.PENDING
            assert await handle.result() == ["early", when.isoformat()]
            assert env.now == when

    async def test_one_that_has_not_started_can_be_terminated(self):
        async def never(ctx):
            await ctx.wait_for_external_event("go")

        async with WorkflowEnvironment(orchestrators=[never]) as env:
            handle = await env.start(never, start_at=env.now + timedelta(days=1))
            await handle.terminate("enough")
            assert handle.status is OrchestrationStatus.TERMINATED

    async def test_executions_that_follow_one_scheduled_for_later_have_random_values_of_their_own(self):
        started_at, drawn = [], []

        async def rounds(ctx, left):
            started_at.append(ctx.now())
            drawn.append(ctx.uuid4())
            if left:
                ctx.continue_as_new(left - 1)

        async with WorkflowEnvironment(orchestrators=[rounds], verify=False) as env:
            when = env.now + timedelta(days=1)
            handle = await env.start(rounds, input=2, start_at=when)
            await handle.result()

        assert len(set(drawn)) == 3
        assert started_at == [when + n * timedelta(microseconds=1) for n in range(3)]


class TestEntities:
    def signal(self, harness, when):
        request = pb.SignalEntityRequest(instanceId="@counter@one", name="add", requestId="1")
        request.scheduledTime.FromDatetime(when)
        harness.engine.SignalEntity(request, None)

    def test_a_delayed_signal_of_an_orchestrator_waits_for_the_engines_clock(self):
        harness = Harness()
        harness.start("one")
        signaled = pb.EntityOperationSignaledEvent(requestId="1", operation="add")
        signaled.targetInstanceId.value = "@counter@one"
        signaled.scheduledTime.FromDatetime(harness.clock.now() + timedelta(days=2))
        message = pb.SendEntityMessageAction(entityOperationSignaled=signaled)
        harness.turn(pb.OrchestratorAction(id=1, sendEntityMessage=message))
        assert harness.engine.take(harness.taker) is None
        harness.clock.advance_to(harness.clock.now() + timedelta(days=1))
        assert harness.engine.take(harness.taker) is None
        harness.clock.advance_to(harness.clock.now() + timedelta(days=1))
        assert harness.engine.take(harness.taker).kind == "entity"


def test_losing_a_race_leaves_the_history_with_one_ending(local_backend, client, grpc_worker, wait_until):
    """On upstream's engine the loser's late result wakes the ended instance, which then ends a second time."""
    finish, finished = threading.Event(), threading.Event()

    def slow(context, _):
        finish.wait(60)
        finished.set()

    def race(context, _):
        loser = context.call_activity(slow)
        winner = context.create_timer(timedelta(milliseconds=10))
        yield when_any([loser, winner])
        return "won"

    grpc_worker(orchestrators=[race], activities=[slow])
    instance_id = client.schedule_new_orchestration(race)
    state = client.wait_for_orchestration_completion(instance_id, timeout=60)
    assert state.runtime_status is OrchestrationStatus.COMPLETED
    finish.set()
    assert finished.wait(60)
    wait_until(lambda: not local_backend.engine._handouts, "the late result")
    endings = [event for event in local_backend.history(instance_id).protobuf if event.HasField("executionCompleted")]
    assert len(endings) == 1


async def test_results_that_come_together_are_each_looked_at_a_few_times(monkeypatch):
    looked_at = 0

    def count(event, _is_stamped=handouts.is_stamped):
        nonlocal looked_at
        looked_at += 1
        return _is_stamped(event)

    monkeypatch.setattr(handouts, "is_stamped", count)

    async def fan_out(ctx):
        return len(await ctx.gather(*(ctx.call_activity("act") for _ in range(500))))

    async with WorkflowEnvironment(orchestrators=[fan_out], verify=False) as env:
        env.stub("act", returns=1)
        assert await env.execute(fan_out) == 500
    assert looked_at < 20 * 500


async def test_every_event_says_when_it_happened_also_behind_the_start_of_the_next_execution():
    async def rounds(ctx, number):
        ctx.set_custom_status("waiting")
        await ctx.wait_for_external_event("go")
        await ctx.sleep(60)
        if number < 3:
            ctx.continue_as_new(number + 1, save_events=True)

    async with WorkflowEnvironment(orchestrators=[rounds]) as env:
        handle = await env.start(rounds, input=1)
        for _ in range(3):
            await handle.raise_event("go")
        await handle.result()
        assert len(env.histories) == 3
        for history in env.histories:
            started, execution = history.protobuf[:2]
            assert started.timestamp == execution.timestamp
            assert all(
                env.now - timedelta(minutes=3) <= event.timestamp.replace(tzinfo=timezone.utc) for event in history
            )
