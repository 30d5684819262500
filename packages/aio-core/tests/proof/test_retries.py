"""What a retry is: the same call again, at a time that the history decides."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from durabletask import task
from durabletask.aio import as_orchestrator
from durabletask.internal import orchestrator_service_pb2 as pb
from replays import assert_replays
from turns import Instance

from durabletask_aio.core import _upstream_retries
from durabletask_aio.core.metadata import decode

POLICY = task.RetryPolicy(first_retry_interval=timedelta(seconds=10), max_number_of_attempts=3)


def test_a_retried_call_carries_the_metadata_of_the_moment_it_was_made():
    async def retries(ctx: Any, _: Any) -> Any:
        ctx.set_metadata({"tenant": "acme"})
        calls = [
            ctx.call_activity("unsteady", retry_policy=POLICY),
            ctx.call_sub_orchestrator("unsteady", retry_policy=POLICY),
        ]
        ctx.set_metadata({"tenant": "other"})
        return await ctx.gather(*calls, return_exceptions=True) and None

    instance = Instance(as_orchestrator(retries)).start()
    sent = [*instance.turns[0]]
    for _ in range(2):
        instance.turn(instance.failed(1, ValueError("again")), instance.failed(2, ValueError("again")))
        sent += instance.turn(*(instance.fired(step) for step in instance.steps("createTimer")))

    tags = [
        each.scheduleTask.tags if each.HasField("scheduleTask") else each.createSubOrchestration.tags for each in sent
    ]
    assert [decode(dict(each)) for each in tags] == [{"tenant": "acme"}] * 6
    assert_replays(instance)


IMPATIENT = task.RetryPolicy(
    first_retry_interval=timedelta(seconds=10), max_number_of_attempts=9, retry_timeout=timedelta(seconds=25)
)


async def impatient(ctx: Any, _: Any) -> Any:
    await ctx.call_activity("unsteady", retry_policy=IMPATIENT)


async def impatient_with_a_child(ctx: Any, _: Any) -> Any:
    await ctx.call_sub_orchestrator("unsteady", retry_policy=IMPATIENT, version="2.1")


def next_turn(instance: Instance) -> list[pb.OrchestratorAction]:
    """Let what is outstanding fail, or its timer fire."""
    [step] = instance.outstanding
    if instance.outstanding[step].HasField("createTimer"):
        return instance.turn(instance.fired(step))
    return instance.turn(instance.failed(step, ValueError("again")))


@pytest.mark.parametrize("workflow", [impatient, impatient_with_a_child], ids=lambda function: function.__name__)
def test_retry_timeout_is_measured_on_the_clock_of_the_workflow(workflow: Any):
    # Which is long before the wall's here, so that upstream would not try again at all.
    instance = Instance(as_orchestrator(workflow)).start()
    kinds = [action.WhichOneof("orchestratorActionType") for action in instance.turns[0]]
    while instance.outcome is None:
        kinds += [action.WhichOneof("orchestratorActionType") for action in next_turn(instance)]

    # After 0, 10 and 20 seconds.  Another one is planned when the third fails, at 20, and would begin after the 25.
    call = kinds[0]
    assert kinds == [call, "createTimer", call, "createTimer", call, "createTimer", "completeOrchestration"]
    assert instance.failure.errorType == "durabletask.task.TaskFailedError"
    assert instance.failure.innerFailure.errorMessage.endswith("again")
    assert_replays(instance)


@pytest.mark.not_replayed("the release is changed half-way")
def test_an_attempt_that_an_earlier_release_began_too_late_is_replayed(monkeypatch: pytest.MonkeyPatch):
    instance = Instance(as_orchestrator(impatient)).start()
    with monkeypatch.context() as earlier:
        earlier.setattr(_upstream_retries, "control_retries", lambda context: None)
        for _ in range(6):
            next_turn(instance)
    assert instance.outstanding[1].HasField("scheduleTask"), "the fourth attempt, at 30 seconds"
    next_turn(instance)

    assert instance.failure.errorType == "durabletask.task.TaskFailedError"
    assert instance.failure.innerFailure.errorMessage == "again"


@pytest.mark.parametrize("policy", [POLICY, IMPATIENT], ids=["without timeout", "with timeout"])
def test_every_attempt_of_a_sub_orchestration_has_the_version_of_the_first(policy: Any):
    async def retries(ctx: Any, _: Any) -> Any:
        await ctx.call_sub_orchestrator("child", version="2.1", retry_policy=policy)

    instance = Instance(as_orchestrator(retries)).start()
    while instance.outcome is None:
        next_turn(instance)

    versions = [
        action.createSubOrchestration.version.value
        for turn in instance.turns
        for action in turn
        if action.HasField("createSubOrchestration")
    ]
    assert versions == ["2.1"] * 3
    assert_replays(instance)
