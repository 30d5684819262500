"""A request to cancel: recognised on arrival, delivered as asyncio delivers a cancellation, recorded as a failure."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any

import pytest
import turns
from durabletask.aio import (
    RetryPolicy,
    WorkflowCancelledError,
    WorkflowValidationError,
    as_orchestrator,
    request_cancellation,
)
from surface import complete, failure_of, kinds, records_of, result_of, seconds
from turns import CONTINUED, Instance, new_executor, replay

from durabletask_aio.core.cancellation import CANCEL_EVENT, CANCELLED_TYPE, cancellation_reason, is_cancellation
from durabletask_aio.core.hosting import turn_scope

NEEDS_UNCANCEL = pytest.mark.skipif(sys.version_info < (3, 11), reason="Task.uncancel came with Python 3.11")
TWICE = RetryPolicy(first_retry_interval=timedelta(seconds=10), max_number_of_attempts=2)
TWICE_UNLESS_SOLD_OUT = RetryPolicy(
    first_retry_interval=timedelta(seconds=10), max_number_of_attempts=2, non_retryable=["shop.SoldOut"]
)
STOP = (1, CANCEL_EVENT, {"reason": "stop"})
"""A request one second after the start."""


def cancel(reason: str | None = None) -> Any:
    return Instance.raised(CANCEL_EVENT, None if reason is None else {"reason": reason})


class TestTheWorkflow:
    def test_gets_a_cancelled_error_with_the_reason(self):
        async def workflow(ctx):
            try:
                await ctx.wait_for_external_event("never")
            except asyncio.CancelledError as error:
                return [list(error.args), seconds()]

        assert result_of(workflow, events=[STOP]) == [["stop"], 1.0]

    def test_gets_one_without_a_message_if_there_is_no_reason(self):
        async def workflow(ctx):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError as error:
                return list(error.args)

        assert result_of(workflow, events=[(1, CANCEL_EVENT, None)]) == []

    def test_cleans_up_with_durable_operations(self):
        log = []

        async def workflow(ctx):
            ctx.add_cleanup(lambda: ctx.call_activity("double", input=3))
            try:
                await ctx.call_activity("double", input=1)
                await ctx.wait_for_external_event("never")
            except asyncio.CancelledError:
                log.append(await ctx.call_activity("double", input=2))
                raise
            finally:
                await ctx.sleep(5)

        instance = complete(workflow, events=[STOP])
        assert [kinds(turn) for turn in instance.turns] == [
            ["scheduleTask"],
            [],
            ["scheduleTask"],
            ["createTimer"],
            ["scheduleTask"],
            ["completeOrchestration"],
        ]
        assert set(log) == {4}
        assert instance.failure.errorType == CANCELLED_TYPE == "durabletask.aio.WorkflowCancelledError"
        assert instance.failure.errorMessage == "stop"

    def test_is_recorded_without_a_reason_too(self):
        async def workflow(ctx):
            await asyncio.sleep(100)

        failure = failure_of(workflow, events=[(1, CANCEL_EVENT, None)])
        assert failure.errorType == CANCELLED_TYPE
        assert failure.errorMessage == WorkflowCancelledError.NO_REASON

    @pytest.mark.parametrize("payload", ["stop", {"reason": "stop", "more": 1}])
    def test_takes_the_payload_of_other_senders(self, payload):
        async def workflow(ctx):
            await asyncio.sleep(100)

        assert failure_of(workflow, events=[(1, CANCEL_EVENT, payload)]).errorMessage == "stop"

    @pytest.mark.parametrize("payload", [7, [], {"reason": 7}, {}, "", {"reason": ""}])
    def test_takes_a_payload_without_a_reason(self, payload):
        async def workflow(ctx):
            await asyncio.sleep(100)

        failure = failure_of(workflow, events=[(1, CANCEL_EVENT, payload)])
        assert failure.errorMessage == WorkflowCancelledError.NO_REASON

    def test_can_return_a_result_all_the_same(self):
        async def workflow(ctx):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                return "as far as it came"

        assert result_of(workflow, events=[STOP]) == "as far as it came"

    def test_fails_with_what_its_cleanup_raises(self):
        async def workflow(ctx):
            try:
                await asyncio.sleep(100)
            finally:
                await ctx.call_activity("fail", input="the cleanup")

        assert "the cleanup" in failure_of(workflow, events=[STOP]).errorMessage

    def test_that_is_cancelled_by_itself_is_recorded_as_before(self):
        async def workflow(ctx):
            asyncio.current_task().cancel("own")
            await asyncio.sleep(100)

        failure = failure_of(workflow)
        assert failure.errorType == "durabletask.task.TaskCancelledError"
        # Up to 3.10 the message does not leave the task.
        own = ": own" if sys.version_info >= (3, 11) else ""
        assert failure.errorMessage == f"the workflow was cancelled{own}"

    def test_shields_what_must_not_be_interrupted(self):
        async def workflow(ctx):
            work = asyncio.ensure_future(ctx.call_activity("double", input=2))
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                return await work

        instance = Instance(as_orchestrator(workflow)).start()
        instance.turn(cancel("stop"))
        instance.turn(instance.completed(1, 4))
        assert instance.result == 4
        replay(instance)

    def test_tasks_of_a_gather_get_the_reason(self):
        seen = []

        async def workflow(ctx):
            async def part():
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError as error:
                    seen.append(error.args)
                    raise

            await asyncio.gather(part(), part())

        assert failure_of(workflow, events=[STOP]).errorMessage == "stop"
        assert set(seen) == {("stop",)}

    def test_a_child_task_that_takes_the_cancellation_keeps_it(self):
        async def workflow(ctx):
            async def part():
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    return "taken"

            return await asyncio.create_task(part())

        assert result_of(workflow, events=[STOP]) == "taken"

    def test_takes_back_what_it_waits_for(self):
        async def workflow(ctx):
            try:
                await ctx.wait_for_external_event("go")
            except asyncio.CancelledError:
                return await ctx.wait_for_external_event("go")

        assert result_of(workflow, events=[STOP, (2, "go", "kept")]) == "kept"


class TestFurtherRequests:
    def test_do_not_interrupt_the_cleanup(self):
        async def workflow(ctx):
            try:
                await asyncio.sleep(100)
            finally:
                await ctx.sleep(10)

        instance = complete(workflow, events=[STOP, (2, CANCEL_EVENT, {"reason": "again"})])
        assert instance.failure.errorMessage == "stop"

    @NEEDS_UNCANCEL
    def test_are_delivered_after_uncancel(self):
        async def workflow(ctx):
            reasons = []
            for _ in range(2):
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError as error:
                    reasons.append(str(error))
                    assert asyncio.current_task().uncancel() == 0
            return [*reasons, seconds()]

        result = result_of(workflow, events=[STOP, (2, CANCEL_EVENT, {"reason": "again"})])
        assert result == ["stop", "again", 2.0]

    @NEEDS_UNCANCEL
    def test_after_uncancel_a_cancellation_of_its_own_is_no_request(self):
        async def workflow(ctx):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()
            raise asyncio.CancelledError("own")

        assert failure_of(workflow, events=[STOP]).errorType == "durabletask.task.TaskCancelledError"

    @NEEDS_UNCANCEL
    def test_a_request_during_the_cancellation_of_a_timeout_is_delivered(self):
        async def workflow(ctx):
            log: list[Any] = []
            try:
                async with asyncio.timeout(1):
                    try:
                        await asyncio.sleep(100)
                    finally:
                        try:
                            await asyncio.sleep(100)
                        except asyncio.CancelledError as error:
                            log.append(str(error))
                            raise
            except TimeoutError:
                log.append("timeout")
            except asyncio.CancelledError:
                log.append(asyncio.current_task().cancelling())
            return log

        assert result_of(workflow, events=[(2, CANCEL_EVENT, {"reason": "stop"})]) == ["stop", 1]


class TestEarlyRequests:
    def test_in_the_batch_of_the_start_arrive_at_the_first_await(self):
        async def workflow(ctx):
            try:
                await ctx.call_activity("double", input=1)
            except asyncio.CancelledError as error:
                return str(error)

        instance = Instance(as_orchestrator(workflow))
        instance.turn(instance.started, cancel("at once"))
        assert instance.result == "at once"
        replay(instance)

    def test_before_the_start_cancel_a_workflow_that_has_nothing_to_clean_up(self):
        ran = []

        async def workflow(ctx):
            ran.append(1)

        instance = Instance(as_orchestrator(workflow))
        instance.turn(cancel("before"), cancel("again"), instance.started)
        assert instance.failure.errorMessage == "before"
        assert not ran
        replay(instance)

    def test_of_a_suspended_instance_wait_for_the_resume(self):
        from durabletask.internal import orchestrator_service_pb2 as pb

        async def workflow(ctx):
            await asyncio.sleep(100)

        instance = Instance(as_orchestrator(workflow)).start()
        instance.turn(pb.HistoryEvent(eventId=-1, executionSuspended=pb.ExecutionSuspendedEvent()))
        instance.turn(cancel("stop"))
        assert instance.outcome is None
        instance.turn(pb.HistoryEvent(eventId=-1, executionResumed=pb.ExecutionResumedEvent()))
        assert instance.failure.errorMessage == "stop"


class TestContinueAsNew:
    @pytest.mark.parametrize("save_events", [False, True])
    def test_carries_a_request_over_that_came_after_it(self, save_events):
        async def workflow(ctx):
            await ctx.wait_for_external_event("go")
            ctx.continue_as_new(1, save_events=save_events)

        instance = Instance(as_orchestrator(workflow)).start()
        instance.turn(instance.raised("go"), instance.raised("other", 1), cancel("stop"))
        assert instance.outcome.orchestrationStatus == CONTINUED
        carried = [event.eventRaised for event in instance.outcome.carryoverEvents]
        names = [event.name for event in carried]
        assert names == (["other", CANCEL_EVENT] if save_events else [CANCEL_EVENT])
        assert json.loads(carried[-1].input.value) == {"reason": "stop"}
        replay(instance)

        following = Instance(as_orchestrator(workflow))
        following.turn(following.started, *instance.outcome.carryoverEvents)
        assert following.failure.errorMessage == "stop"

    def test_carries_nothing_else_over(self):
        async def workflow(ctx):
            await ctx.wait_for_external_event("go")
            ctx.continue_as_new(1)

        instance = Instance(as_orchestrator(workflow)).start()
        instance.turn(instance.raised("go"), instance.raised("other", 1))
        assert not instance.outcome.carryoverEvents

    def test_does_not_repeat_a_request_that_was_delivered(self):
        async def workflow(ctx):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                ctx.continue_as_new(1)

        instance = complete(workflow, events=[STOP])
        assert instance.outcome.orchestrationStatus == CONTINUED
        assert not instance.outcome.carryoverEvents


class TestTheEvent:
    def test_leaves_a_deadlock_one(self):
        async def workflow(ctx):
            await asyncio.Event().wait()

        instance = Instance(as_orchestrator(workflow)).start()
        assert instance.failure.errorType == "durabletask.aio.DeadlockError"

    def test_is_no_action_and_changes_no_number(self):
        async def workflow(ctx):
            try:
                await ctx.call_activity("double", input=1)
                await ctx.wait_for_external_event("never")
            finally:
                await ctx.call_activity("double", input=2)

        instance = complete(workflow, events=[STOP])
        assert [(action.id, kinds([action])) for turn in instance.turns for action in turn] == [
            (1, ["scheduleTask"]),
            (2, ["scheduleTask"]),
            (3, ["completeOrchestration"]),
        ]

    @pytest.mark.parametrize("method", ["wait_for_external_event", "events"])
    def test_cannot_be_waited_for(self, method):
        async def workflow(ctx):
            getattr(ctx, method)(CANCEL_EVENT)

        failure = failure_of(workflow)
        assert failure.errorType == "durabletask.aio.WorkflowValidationError"
        assert f"the event '{CANCEL_EVENT}' is reserved" in failure.errorMessage

    def test_has_a_name_in_lower_case_that_urls_can_have(self):
        assert CANCEL_EVENT.casefold() == CANCEL_EVENT
        assert CANCEL_EVENT.replace("-", "").replace(".", "").isalnum()


def child_cancelled(reason: str) -> Exception:
    return WorkflowCancelledError(reason)


class TestChildren:
    """Of calls with `cancel_children=True`; the engine's part is in the tests of the worker."""

    @staticmethod
    async def parent(ctx):
        try:
            return await ctx.call_sub_orchestrator("child", instance_id="c1", cancel_children=True)
        except asyncio.CancelledError as error:
            await ctx.call_activity("double", input=1)
            raise asyncio.CancelledError(f"after the child: {error}") from None

    def asked(self, workflow: Any = None) -> Instance:
        """A parent that has passed its cancellation on to its child."""
        instance = Instance(as_orchestrator(workflow or self.parent)).start()
        instance.turn(cancel("stop"))
        return instance

    def test_get_the_request_and_the_parent_waits_for_their_end(self):
        instance = self.asked()
        (action,) = instance.turns[-1]
        assert (action.sendEvent.instance.instanceId, action.sendEvent.name) == ("c1", CANCEL_EVENT)
        assert json.loads(action.sendEvent.data.value) == {"reason": "stop"}
        assert instance.outcome is None

        instance.turn(instance.failed(1, child_cancelled("stop")))
        assert kinds(instance.turns[-1]) == ["scheduleTask"]
        instance.turn(instance.completed(3))
        assert instance.failure.errorType == CANCELLED_TYPE
        assert instance.failure.errorMessage == "stop"
        replay(instance)

    def test_are_cancelled_on_engines_that_tell_only_the_message(self):
        instance = self.asked()
        instance.turn(instance.failed(1, Exception("stop")))
        assert kinds(instance.turns[-1]) == ["scheduleTask"]

    def test_that_complete_all_the_same_have_their_result(self):
        instance = self.asked()
        instance.turn(instance.completed(1, "done"))
        assert instance.result == "done"
        replay(instance)

    @pytest.mark.parametrize("error", [ValueError("stop"), Exception("another")])
    def test_that_fail_have_their_failure(self, error):
        instance = self.asked()
        instance.turn(instance.failed(1, error))
        assert instance.failure.errorType == "durabletask.task.TaskFailedError"

    def test_that_are_cancelled_by_others_have_failed_for_the_parent(self):
        instance = Instance(as_orchestrator(self.parent)).start()
        instance.turn(instance.failed(1, child_cancelled("by others")))
        assert instance.failure.errorType == "durabletask.task.TaskFailedError"
        assert instance.failure.innerFailure.errorType == CANCELLED_TYPE

    def test_get_one_request_for_several_cancellations(self):
        async def workflow(ctx):
            child = ctx.call_sub_orchestrator("child", cancel_children=True)
            results = [child.cancel("one"), child.cancel("two"), child.done()]
            try:
                await child
            except asyncio.CancelledError as error:
                return [*results, str(error), child.cancel()]

        instance = Instance(as_orchestrator(workflow)).start()
        assert kinds(instance.turns[0]) == ["createSubOrchestration", "sendEvent"]
        instance.turn(instance.failed(1, child_cancelled("one")))
        assert instance.result == [True, True, False, "two", False]
        replay(instance)

    def test_of_a_time_limit_end_before_it_does(self):
        async def workflow(ctx):
            try:
                await ctx.with_timeout(ctx.call_sub_orchestrator("child", cancel_children=True), 5)
            except TimeoutError:
                return seconds()

        instance = Instance(as_orchestrator(workflow)).start()
        instance.turn(instance.fired(2))
        (action,) = instance.turns[-1]
        assert not action.sendEvent.data.value
        instance.turn(instance.failed(1, child_cancelled(WorkflowCancelledError.NO_REASON)))
        assert instance.result == 5.0
        replay(instance)

    def test_that_wait_for_their_next_attempt_are_not_tried_again(self):
        async def workflow(ctx):
            await ctx.call_sub_orchestrator("child", retry_policy=TWICE, cancel_children=True)

        instance = Instance(as_orchestrator(workflow)).start()
        instance.turn(instance.failed(1, ValueError("first")))
        instance.turn(cancel("stop"))
        assert kinds(instance.turns[-1]) == ["completeOrchestration"]
        assert instance.failure.errorMessage == "stop"
        replay(instance)

    def test_that_are_cancelled_in_an_attempt_have_no_other_one(self):
        async def workflow(ctx):
            await ctx.call_sub_orchestrator("child", retry_policy=TWICE, cancel_children=True)

        instance = self.asked(workflow)
        instance.turn(instance.failed(1, child_cancelled("stop")))
        assert instance.failure.errorMessage == "stop"
        replay(instance)

    @pytest.mark.parametrize("policy", [TWICE, TWICE_UNLESS_SOLD_OUT])
    def test_that_are_cancelled_by_others_are_not_tried_again(self, policy):
        async def workflow(ctx):
            await ctx.call_sub_orchestrator("child", retry_policy=policy)

        instance = Instance(as_orchestrator(workflow)).start()
        instance.turn(instance.failed(1, child_cancelled("by others")))
        assert instance.failure.innerFailure.errorType == CANCELLED_TYPE
        replay(instance)

    def test_that_nothing_waits_for_get_the_request_when_the_parent_ends(self):
        async def workflow(ctx):
            ctx.call_sub_orchestrator("first", instance_id="c1", cancel_children=True)
            ctx.call_sub_orchestrator("second", instance_id="c2")
            ctx.call_sub_orchestrator("third", instance_id="c3", cancel_children=True)
            await asyncio.sleep(100)

        instance = self.asked(workflow)
        assert kinds(instance.turns[-1]) == ["sendEvent", "sendEvent", "completeOrchestration"]
        assert [action.sendEvent.instance.instanceId for action in instance.turns[-1][:2]] == ["c1", "c3"]
        replay(instance)

    def test_that_have_ended_get_none(self):
        async def workflow(ctx):
            await ctx.call_sub_orchestrator("child", cancel_children=True)
            await asyncio.sleep(100)

        instance = Instance(as_orchestrator(workflow)).start()
        instance.turn(instance.completed(1))
        instance.turn(cancel("stop"))
        assert kinds(instance.turns[-1]) == ["completeOrchestration"]

    def test_of_calls_without_it_continue(self):
        async def workflow(ctx):
            await ctx.call_sub_orchestrator("child")

        assert kinds(self.asked(workflow).turns[-1]) == ["completeOrchestration"]


class Recorder:
    """A client that keeps what it is asked to raise."""

    def __init__(self) -> None:
        self.raised: list[tuple[str, str, Any]] = []

    def raise_orchestration_event(self, instance_id: str, event_name: str, *, data: Any = None) -> None:
        self.raised.append((instance_id, event_name, data))


class AsyncRecorder:
    def __init__(self) -> None:
        self.raised: list[tuple[str, str, Any]] = []

    async def raise_orchestration_event(self, instance_id: str, event_name: str, *, data: Any = None) -> None:
        self.raised.append((instance_id, event_name, data))


class TestGenerators:
    @staticmethod
    def generator(ctx, _):
        yield ctx.wait_for_external_event("go")
        return "done"

    def warnings_of(self, *events: Any) -> list[str]:
        instance = Instance(self.generator)
        executor = new_executor(instance)
        with turn_scope(), records_of(turns.LOGGER.name) as messages:
            executor.execute(instance.instance_id, [], instance.batch(instance.started, *events))
        return messages

    def test_ignore_a_request_and_the_worker_says_so(self):
        (message,) = self.warnings_of(cancel("stop"))
        assert "instance-1: the request to cancel this instance is ignored" in message
        assert "'generator' is a generator orchestrator" in message

    def test_that_end_in_the_same_turn_have_no_warning(self):
        assert self.warnings_of(cancel("stop"), Instance.raised("go")) == []

    def test_other_events_have_no_warning(self):
        assert self.warnings_of(Instance.raised("other")) == []


class TestRequesting:
    def test_with_a_client(self):
        client = Recorder()
        request_cancellation(client, "order-7", "out of stock")
        request_cancellation(client, "order-7")
        assert client.raised == [
            ("order-7", CANCEL_EVENT, {"reason": "out of stock"}),
            ("order-7", CANCEL_EVENT, None),
        ]

    async def test_with_an_asynchronous_client(self):
        client = AsyncRecorder()
        await request_cancellation(client, "order-7", "out of stock")
        assert client.raised == [("order-7", CANCEL_EVENT, {"reason": "out of stock"})]

    def test_with_a_reason_that_is_no_text(self):
        with pytest.raises(WorkflowValidationError, match="is a string or None, and not 7"):
            request_cancellation(Recorder(), "order-7", 7)  # type: ignore[call-overload]


class Failed:
    def __init__(self, error_type, message):
        self.error_type = error_type
        self.message = message


class TestReading:
    def test_a_cancelled_instance(self):
        assert is_cancellation(Failed(CANCELLED_TYPE, "stop"))
        assert cancellation_reason(Failed(CANCELLED_TYPE, "stop")) == "stop"
        assert cancellation_reason(Failed(CANCELLED_TYPE, WorkflowCancelledError.NO_REASON)) is None

    @pytest.mark.parametrize("failure", [None, Failed("builtins.ValueError", "stop")])
    def test_one_that_was_not(self, failure):
        assert not is_cancellation(failure)
        assert cancellation_reason(failure) is None

    def test_the_error(self):
        assert WorkflowCancelledError("stop", instance_id="i", workflow_name="w").reason == "stop"
        assert WorkflowCancelledError(WorkflowCancelledError.NO_REASON).reason is None
