"""What belongs to one execution reaches that execution and no other, for workflows and clients.

The engine's own tests have the same for the state machine alone.
"""

from __future__ import annotations

import threading
from datetime import timedelta, timezone

from durabletask.client import OrchestrationStatus
from durabletask.task import when_any

from durabletask_aio.testing.environment import WorkflowEnvironment


def started(history):
    return next(event.executionStarted for event in history if event.HasField("executionStarted"))


class TestTags:
    def test_tags_travel_from_the_client_to_the_start_and_from_the_action_to_the_activity(
        self, local_backend, client, grpc_worker
    ):
        def act(context, _):
            return 1

        def tagged(context, _):
            yield context.call_activity(act, tags={"to": "activity"})

        grpc_worker(orchestrators=[tagged], activities=[act])
        client.schedule_new_orchestration(tagged, instance_id="one", tags={"from": "client"})
        client.wait_for_orchestration_completion("one", timeout=60)

        history = local_backend.history("one").protobuf
        assert dict(started(history).tags) == {"from": "client"}
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


class TestScheduledStart:
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
    wait_until(lambda: not local_backend.kernel.is_busy, "the late result")
    endings = [event for event in local_backend.history(instance_id).protobuf if event.HasField("executionCompleted")]
    assert len(endings) == 1


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
