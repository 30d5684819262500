"""What a rewind takes out of a history: the failure that ended the instance, and nothing that was handled."""

import asyncio
from datetime import timedelta

import durabletask.internal.orchestrator_service_pb2 as pb
import pytest
from durabletask.aio import as_orchestrator
from durabletask.internal import helpers
from durabletask.task import RetryPolicy
from turns import Instance, new_executor
from workflows import boom

from durabletask_aio.core.hosting import describe_failure
from durabletask_aio.core.rewinding import events_to_remove

TWICE = RetryPolicy(first_retry_interval=timedelta(seconds=1), max_number_of_attempts=2)


def failed_history(workflow, *, described, activities=None):
    """The history of an instance that has failed, as an engine keeps it."""
    instance = Instance(as_orchestrator(workflow), name="w").run(activities or {"boom": boom, "fine": lambda _: "ok"})
    details = instance.failure
    if described:
        executor = new_executor(instance)
        begin = instance.batch_begin(instance.cuts[-1])
        executor.execute(instance.instance_id, instance.history[:begin], instance.history[begin : instance.cuts[-1]])
        action = helpers.new_complete_orchestration_action(1, pb.ORCHESTRATION_STATUS_FAILED, None, details)
        describe_failure([action], executor.error)
        details = action.completeOrchestration.failureDetails
    end = pb.ExecutionCompletedEvent(orchestrationStatus=pb.ORCHESTRATION_STATUS_FAILED, failureDetails=details)
    return [*instance.history, pb.HistoryEvent(eventId=-1, executionCompleted=end)]


def removed_of(history):
    positions = events_to_remove(history, "instance-1")
    return None if positions is None else [history[at].WhichOneof("eventType") for at in sorted(positions)]


async def uncaught(ctx):
    await ctx.call_activity("boom", input=1)


async def caught_before(ctx):
    try:
        await ctx.call_activity("boom", input=1)
    except Exception:
        await ctx.call_activity("fine")
    raise ValueError("a bug")


async def caught_and_then_another(ctx):
    try:
        await ctx.call_activity("boom", input=1)
    except Exception:
        await ctx.call_activity("fine")
    await ctx.call_activity("boom", input=2)


async def in_vain(ctx):
    await ctx.call_activity("boom", input=1, retry_policy=TWICE)


async def wrapped(ctx):
    try:
        await ctx.call_activity("boom", input=1)
    except Exception as error:
        raise OSError("wrapped") from error


async def child(ctx):
    await ctx.call_sub_orchestrator("boom", input=1)


@pytest.mark.parametrize("described", [False, True], ids=["upstream's message", "this project's message"])
@pytest.mark.parametrize(
    ("workflow", "removed"),
    [
        (uncaught, ["taskScheduled", "taskFailed"]),
        (caught_before, []),
        (caught_and_then_another, ["taskScheduled", "taskFailed"]),
        (in_vain, ["taskScheduled", "taskFailed"]),
        (wrapped, ["taskScheduled", "taskFailed"]),
        (child, ["subOrchestrationInstanceFailed"]),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_failed_the_instance_is_taken_out(workflow, removed, described):
    history = failed_history(workflow, described=described)

    assert removed_of(history) == [*removed, "executionCompleted"]


def test_of_several_failures_the_one_that_was_not_handled_is_taken_out():
    history = failed_history(caught_and_then_another, described=True)
    positions = events_to_remove(history, "instance-1")
    assert positions is not None

    kept = [event for at, event in enumerate(history) if at not in positions]
    assert [event.taskFailed.taskScheduledId for event in kept if event.HasField("taskFailed")] == [1]


def test_all_failures_of_a_group_are_taken_out():
    async def workflow(ctx):
        async with asyncio.TaskGroup() as group:
            for number in range(2):
                group.create_task(ctx.call_activity("boom", input=number))

    if not hasattr(asyncio, "TaskGroup"):
        pytest.skip("needs Python 3.11")
    history = failed_history(workflow, described=True)

    assert "taskFailed" in removed_of(history)


def end_of(kind, message):
    details = pb.TaskFailureDetails(errorType=kind, errorMessage=message)
    end = pb.ExecutionCompletedEvent(orchestrationStatus=pb.ORCHESTRATION_STATUS_FAILED, failureDetails=details)
    return pb.HistoryEvent(eventId=-1, executionCompleted=end)


def scheduled(number):
    return pb.HistoryEvent(eventId=number, taskScheduled=pb.TaskScheduledEvent(name="a"))


def turn():
    return pb.HistoryEvent(eventId=-1, orchestratorStarted=pb.OrchestratorStartedEvent())


def test_what_diverging_code_has_asked_for_is_taken_out():
    history = [turn(), scheduled(1), turn(), scheduled(1), scheduled(2)]
    history.append(end_of("durabletask.aio.HistoryDivergenceError", "history and code diverge"))

    assert events_to_remove(history, "instance-1") == {3, 4, 5}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("durabletask.task.TaskFailedError", "something in the words of another SDK"),
        ("durabletask.task.TaskFailedError", "another-1: Activity task #1 failed: no"),
        ("durabletask.task.TaskFailedError", "x [workflow 'w', instance 'another-1', step 1]"),
    ],
)
def test_an_operation_whose_number_is_not_known_is_upstreams_business(kind, message):
    assert events_to_remove([turn(), scheduled(1), end_of(kind, message)], "instance-1") is None


def test_a_history_without_a_described_end_is_upstreams_business():
    assert events_to_remove([turn(), scheduled(1)], "instance-1") is None
