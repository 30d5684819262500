"""Async workflows on Dapr's executor in this process: equivalent generators, every replay, sessions, refusals."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import async_workflows
import generator_workflows
import pytest
from dapr.ext.workflow import RetryPolicy as DaprRetryPolicy
from dapr.ext.workflow import TaskFailedError
from dapr.ext.workflow._durabletask.internal import helpers, protos
from turns_in_process import Instance, replayed, serialized

from durabletask_aio.dapr import (
    ActivityFailedError,
    ChildWorkflowFailedError,
    RetryPolicy,
    WorkflowContext,
    WorkflowRuntime,
    WorkflowValidationError,
)
from durabletask_aio.dapr._upstream_dapr import MAX_INPUT_BYTES


def test_durabletask_is_never_imported():
    code = (
        "import sys, durabletask_aio.dapr, durabletask_aio.core.hosting\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'durabletask'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


# -- equivalent generators --------------------------------------------------------------------------------------------

Drive = Callable[[Instance], object]


def pass_a_stage(i: Instance) -> None:
    """Complete each thing that `stages` waits for; its last activity fails in all attempts."""

    def last() -> int:
        return i.actions[-1][-1].id

    i.event("go", "x")
    i.fire(last())
    i.turn(helpers.new_child_workflow_completed_event(last(), "1"))
    for action in i.actions[-1]:
        i.complete(action.id, 2)
    for _ in range(2):
        i.fail(last(), ValueError("broken"))
        i.fire(last())
    i.fail(last(), ValueError("broken"))


TWINS: dict[str, tuple[Any, Drive]] = {
    "stages": (1, pass_a_stage),
    "chain": (2, lambda i: (i.complete(1, 1), i.complete(2, 2))),
    "fan_out": (3, lambda i: (i.complete(2, 2), i.complete(1, 1), i.complete(3, 3))),
    "one_event": ("go", lambda i: i.event("go", "x")),
    "two_events": (None, lambda i: (i.event("number", 1), i.event("number", 2))),
    "buffered_event": (None, lambda i: (i.event("early", "e"), i.event("go"))),
    "parent": (1, lambda i: i.turn(helpers.new_child_workflow_completed_event(1, "2"))),
    "retried": (3, lambda i: (i.fail(1, ConnectionError("no")), i.fire(2), i.complete(3, 3))),
    "uncaught": ("boom", lambda i: i.fail(1, ValueError("boom"))),
    "caught": ("boom", lambda i: (i.fail(1, ValueError("boom")), i.complete(2, 2))),
    "counter": (0, lambda i: i.complete(1, 1)),
    "collector": ([], lambda i: i.turn(*[helpers.new_event_raised_event("item", f"{n}") for n in (7, 8)])),
    "status": (["a", "b"], lambda i: (i.complete(1, 1), i.complete(2, 1))),
    "patched": (None, lambda i: i.complete(1, 2)),
    "event_or_timeout": (50, lambda i: i.fire(1)),
}


def without_stack_traces(turns: list[list[Any]]) -> list[list[bytes]]:
    for action in (action for turn in turns for action in turn):
        action.completeWorkflow.failureDetails.ClearField("stackTrace") if action.HasField("completeWorkflow") else None
    return [serialized(turn) for turn in turns]


@pytest.mark.parametrize("sessions", [10, 0], ids=["sessions", "replay"])
@pytest.mark.parametrize("name", TWINS)
def test_an_async_workflow_emits_the_actions_of_its_generator(name: str, sessions: int):
    value, drive = TWINS[name]
    generator = Instance(getattr(generator_workflows, name), value, sessions=0)
    twin = Instance(getattr(async_workflows, name), value, sessions=sessions)
    drive(generator)
    drive(twin)
    assert without_stack_traces(twin.actions) == without_stack_traces(generator.actions)
    assert twin.status == generator.status
    assert twin.turns.stats.hits == (len(twin.actions) - 1 if sessions else 0)


@pytest.mark.parametrize("name", TWINS)
def test_a_replay_that_is_cut_anywhere_emits_what_the_live_turn_did(name: str):
    value, drive = TWINS[name]
    instance = Instance(getattr(async_workflows, name), value)
    drive(instance)
    assert without_stack_traces(
        [[protos.WorkflowAction.FromString(each) for each in turn] for turn in replayed(instance)]
    ) == (without_stack_traces(instance.actions))


@pytest.mark.parametrize("name", ["one_event", "two_events", "chain", "retried", "stages"])
def test_an_instance_that_a_generator_began_is_continued_by_its_async_twin(name: str):
    value, drive = TWINS[name]
    begun = Instance(getattr(generator_workflows, name), value)
    drive(begun)
    twin = Instance(getattr(async_workflows, name), value)
    begun.registry = twin.registry
    assert without_stack_traces(
        [[protos.WorkflowAction.FromString(each) for each in turn] for turn in replayed(begun)]
    ) == (without_stack_traces(begun.actions))


# -- what generators cannot do ----------------------------------------------------------------------------------------


def test_a_cancelled_timer_is_taken_back_before_it_is_sent_and_forgotten_after_that():
    async def workflow(ctx: WorkflowContext) -> str:
        unsent = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        unsent.cancel()
        timer = ctx.sleep(60)
        await ctx.call_activity("a")
        timer.cancel()
        await ctx.call_activity("b")
        return "done"

    instance = Instance(workflow)
    assert instance.kinds()[0] == [(1 + 1, "createTimer"), (3, "scheduleTask")] or instance.kinds()[0] == [
        (2, "createTimer"),
        (3, "scheduleTask"),
    ]
    instance.complete(3, None)
    instance.fire(2)
    instance.complete(4, None)
    assert instance.result == "done"


def test_a_cancelled_wait_does_not_consume_the_next_event():
    async def workflow(ctx: WorkflowContext) -> Any:
        ctx.wait_for_external_event("go").cancel()
        return await ctx.wait_for_external_event("go")

    instance = Instance(workflow)
    instance.event("go", "x")
    assert instance.result == "x"


@pytest.mark.parametrize("value", [0, "", False, []])
def test_falsy_payloads_are_carried_over_by_continue_as_new(value: Any):
    async def workflow(ctx: WorkflowContext) -> None:
        await ctx.wait_for_external_event("go")
        ctx.continue_as_new(1, save_events=True)

    instance = Instance(workflow)
    instance.turn(helpers.new_event_raised_event("kept", protos_json(value)), helpers.new_event_raised_event("go"))
    (carried,) = instance.end.carryoverEvents
    assert (carried.eventRaised.name, carried.eventRaised.input.value) == ("kept", protos_json(value))


def protos_json(value: Any) -> str:
    from dapr.ext.workflow._durabletask.internal import shared

    return shared.to_json(value)


def test_a_workflow_that_waits_for_nothing_fails_with_a_deadlock():
    async def workflow(ctx: WorkflowContext) -> None:
        await asyncio.Event().wait()

    instance = Instance(workflow)
    assert instance.end.failureDetails.errorType == "DeadlockError"


def test_a_request_to_cancel_reaches_the_workflow():
    async def workflow(ctx: WorkflowContext) -> str:
        try:
            await ctx.call_activity("a")
        except asyncio.CancelledError:
            await ctx.call_activity("undo")
            raise
        return "done"

    instance = Instance(workflow)
    instance.event("durabletask-aio.cancel", {"reason": "too late"})
    assert instance.kinds()[-1] == [(2, "scheduleTask")]
    instance.complete(2, None)
    assert instance.end.failureDetails.errorType == "WorkflowCancelledError"


# -- failures ---------------------------------------------------------------------------------------------------------


def test_a_failed_activity_raises_both_daprs_type_and_that_of_this_project():
    seen: list[Any] = []

    async def workflow(ctx: WorkflowContext) -> None:
        try:
            await ctx.call_activity("a")
        except TaskFailedError as error:
            seen.append(error)

    Instance(workflow, sessions=10).fail(1, ValueError("boom"))
    (error,) = seen
    assert isinstance(error, ActivityFailedError)
    assert (error.details.error_type, error.details.message) == ("ValueError", "boom")
    assert str(error).startswith("activity 'a' failed with ValueError: boom")


def test_a_failed_child_has_daprs_word_for_it():
    seen: list[Any] = []

    async def workflow(ctx: WorkflowContext) -> None:
        try:
            await ctx.call_child_workflow("child")
        except ChildWorkflowFailedError as error:
            seen.append(error.details.message)

    Instance(workflow).turn(helpers.new_child_workflow_failed_event(1, ValueError("boom")))
    assert seen == ["boom"]


@pytest.mark.parametrize("kind", [RetryPolicy, DaprRetryPolicy])
def test_both_retry_policies_are_taken(kind: Any):
    policy = kind(first_retry_interval=timedelta(seconds=2), max_number_of_attempts=2)

    async def workflow(ctx: WorkflowContext) -> Any:
        return await ctx.call_activity("a", input=1, retry_policy=policy)

    instance = Instance(workflow)
    instance.fail(1, ValueError("busy"))
    assert instance.kinds()[-1] == [(2, "createTimer")]
    instance.fire(2)
    assert instance.actions[-1][0].scheduleTask.input.value == "1"
    instance.fail(3, ValueError("busy"))
    assert instance.end.failureDetails.errorMessage.endswith("Activity task #3 failed: busy")


# -- routing and refusals ---------------------------------------------------------------------------------------------


def test_app_id_routes_activities_and_children_to_another_application():
    async def workflow(ctx: WorkflowContext) -> None:
        calls = [ctx.call_activity("a", app_id="other"), ctx.call_child_workflow("c", app_id="other")]
        await asyncio.gather(*calls, ctx.call_activity("b"))

    instance = Instance(workflow)
    assert [action.router.targetAppID for action in instance.actions[0]] == ["other", "other", ""]


REFUSED: dict[str, Callable[[Any], object]] = {
    "send_event": lambda ctx: ctx.send_event("i", "e"),
    "requests": lambda ctx: ctx.requests("status"),
    "run": lambda ctx: ctx.run(len, []),
    "deprecate_patch": lambda ctx: ctx.deprecate_patch("p"),
    "call_entity": lambda ctx: ctx.call_entity("e", "op"),
    "signal_entity": lambda ctx: ctx.signal_entity("e", "op"),
    "lock_entities": lambda ctx: ctx.lock_entities(["e"]),
    "get_metadata": lambda ctx: ctx.get_metadata(),
    "set_metadata": lambda ctx: ctx.set_metadata({}),
    "tags": lambda ctx: ctx.call_activity("a", tags={"a": "b"}),
    "version": lambda ctx: ctx.call_sub_orchestrator("c", version="2"),
    "cancel_children": lambda ctx: ctx.call_sub_orchestrator("c", cancel_children=True),
    "new_version": lambda ctx: ctx.continue_as_new(1, new_version="2"),
    "return_type": lambda ctx: ctx.call_activity("a", return_type=dict),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_dapr_lacks_is_refused_at_the_line_of_the_call(name: str):
    seen: list[WorkflowValidationError] = []

    async def workflow(ctx: WorkflowContext) -> None:
        try:
            REFUSED[name](ctx)
        except WorkflowValidationError as error:
            seen.append(error)

    instance = Instance(workflow)
    assert instance.result is None
    (error,) = seen
    assert name in error.message
    assert "Dapr" in error.message
    assert "test_dialect.py:" in error.message


@pytest.mark.parametrize("name", ["", None, 1])
def test_a_patch_without_a_name_is_refused(name: Any):
    async def workflow(ctx: WorkflowContext) -> str:
        with pytest.raises(WorkflowValidationError, match="the name of a patch is a string that is not empty"):
            ctx.patched(name)
        return "refused"

    assert Instance(workflow).result == "refused"


@pytest.mark.parametrize(
    "retry_policy",
    [None, RetryPolicy(first_retry_interval=timedelta(seconds=1), max_number_of_attempts=2)],
    ids=["once", "retried"],
)
def test_an_input_that_dapr_cannot_pass_on_is_refused_at_the_call(retry_policy: Any):
    async def workflow(ctx: WorkflowContext) -> str:
        largest = "x" * (MAX_INPUT_BYTES - len('""'))
        with pytest.raises(WorkflowValidationError, match=r"(?s)has 2,080,769 bytes as JSON, .*test_dialect\.py:"):
            ctx.call_activity("a", input=largest + "x", retry_policy=retry_policy)
        await ctx.call_activity("b", input=largest, retry_policy=retry_policy)
        return "done"

    instance = Instance(workflow)
    assert instance.kinds()[0] == [(2, "scheduleTask")]
    instance.complete(2, None)
    assert instance.result == "done"
    assert replayed(instance) == [serialized(turn) for turn in instance.actions]


# -- sessions ---------------------------------------------------------------------------------------------------------


async def two_patches(ctx: WorkflowContext) -> list[bool]:
    first = ctx.patched("first")
    await ctx.call_activity("a")
    second = ctx.patched("second")
    await ctx.call_activity("b")
    return [first, second, ctx.patched("first")]


def test_a_session_continues_after_patches_and_ends_if_the_history_has_others():
    live, other = Instance(two_patches), Instance(two_patches)
    for instance in (live, other):
        instance.complete(1, "a")
    assert live.turns.stats.hits == 1
    del other.history[-3].workflowStarted.version.patches[:]  # as if another worker, with older code, had run the turn
    for instance in (live, other):
        instance.complete(2, "b")
    assert (live.turns.stats.hits, live.turns.stats.misses) == (2, 0)
    assert (other.turns.stats.hits, other.turns.stats.misses) == (1, 1)
    assert live.result == [True, True, True]
    assert other.result == [True, False, True]


def test_a_session_of_a_named_version_is_continued():
    async def workflow(ctx: WorkflowContext) -> str:
        await ctx.call_activity("a")
        return "done"

    instance = Instance(workflow, version="v1")
    instance.complete(1, None)
    assert instance.result == "done"
    assert instance.turns.stats.hits == 1


def test_a_history_that_does_not_begin_with_what_the_instance_has_seen_is_replayed():
    async def workflow(ctx: WorkflowContext) -> list[Any]:
        return [await ctx.call_activity("a"), await ctx.call_activity("b")]

    instance = Instance(workflow)
    instance.complete(1, "lost")  # another worker's answer is committed in place of this one
    other = Instance(workflow, sessions=0)
    other.complete(1, "kept")
    instance.history = list(other.history)
    instance.complete(2, "b")
    assert instance.result == ["kept", "b"]
    assert (instance.turns.stats.hits, instance.turns.stats.misses) == (1, 1)


@pytest.mark.parametrize("version", [None, "v1"])
def test_a_session_expects_the_version_and_the_patches_that_the_sidecar_notes_in_the_history(version: str | None):
    async def workflow(ctx: WorkflowContext) -> list[bool]:
        found = [ctx.is_patched("first"), await ctx.call_activity("a"), await ctx.call_activity("b")]
        return [*found, ctx.is_patched("second")]

    instance = Instance(workflow, version=version)
    for number in (1, 2):
        instance.complete(number, True)
    assert instance.result == [True] * 4
    assert (instance.turns.stats.hits, instance.turns.stats.misses) == (2, 0)


def test_the_instance_that_was_used_longest_ago_is_evicted():
    closed: list[str] = []

    async def workflow(ctx: WorkflowContext) -> None:
        try:
            await ctx.call_activity("a")
        finally:
            closed.append("closed")

    instance = Instance(workflow, sessions=1)
    started = [helpers.new_workflow_started_event(instance.now), helpers.new_execution_started_event("workflow", "j")]
    import logging

    instance.turns.make_executor(instance.registry, logging.getLogger("turns")).execute("j", [], started)
    assert closed == ["closed"]
    instance.turns.close()
    assert closed == ["closed", "closed"]


def test_a_runtime_takes_async_workflows_and_generators():
    runtime = WorkflowRuntime(host="127.0.0.1", port="1")

    @runtime.workflow
    async def first(ctx: WorkflowContext) -> None:
        """An async one."""

    @runtime.workflow(name="renamed")
    async def second(ctx: WorkflowContext, value: int) -> int:
        return value

    @runtime.workflow
    def third(ctx: Any, value: int) -> Any:
        yield ctx.call_activity("a")

    with pytest.raises(ValueError, match="already exists"):
        runtime.register_workflow(first)
    assert first.__name__ == "first"
    assert second._dapr_alternate_name == "renamed"
