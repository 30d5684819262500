"""Sub-orchestrations."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from durabletask.client import OrchestrationStatus
from durabletask.task import ActivityContext
from durabletask.worker import OrchestrationWorkItemFilter, WorkItemFilters

from durabletask_aio.core import AsyncWorkflowContext, RetryPolicy, SubOrchestrationFailedError
from durabletask_aio.testing.conformance.outcomes import check, check_delivered, check_equal
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


@scenario()
def result(run: ScenarioRun) -> None:
    """A child's result reaches its parent; the child knows the parent's id."""

    @run.orchestrator
    async def child(ctx: AsyncWorkflowContext, number: int) -> list[Any]:
        return [number + 1, ctx.parent_instance_id]

    @run.orchestrator
    async def parent(ctx: AsyncWorkflowContext) -> list[Any]:
        return [ctx.instance_id, *await ctx.call_sub_orchestrator(child, input=1)]

    instance, number, parent_id = run.output(parent)
    check_equal([number, parent_id], [2, instance])


@scenario()
def given_id(run: ScenarioRun) -> None:
    """A child has the id that the parent gives it, and can be asked for by it."""

    @run.orchestrator
    async def child(ctx: AsyncWorkflowContext) -> str:
        return ctx.instance_id

    @run.orchestrator
    async def parent(ctx: AsyncWorkflowContext, instance: str) -> str:
        return str(await ctx.call_sub_orchestrator(child, instance_id=instance))

    instance = run.new_id("-child")
    check_equal(run.output(parent, instance), instance)
    check_equal(run.state(instance).runtime_status, OrchestrationStatus.COMPLETED, "status of the child")


@scenario()
def grandchildren(run: ScenarioRun) -> None:
    """Children have children of their own, five levels deep."""

    @run.orchestrator
    async def tree(ctx: AsyncWorkflowContext, depth: int) -> int:
        if depth == 0:
            return 1
        calls = [ctx.call_sub_orchestrator(tree, input=depth - 1) for _ in range(2)]
        return sum(await ctx.when_all(calls))

    check_equal(run.output(tree, 5), 32)


@scenario(time_factor=2)
def fifty(run: ScenarioRun) -> None:
    """Fifty children at once run once each, and their results come in the order of the calls."""
    runs: list[int] = []

    @run.activity
    def note(_: ActivityContext, number: int) -> int:
        runs.append(number)
        return number

    @run.orchestrator
    async def child(ctx: AsyncWorkflowContext, number: int) -> int:
        return await ctx.call_activity(note, input=number)

    @run.orchestrator
    async def parent(ctx: AsyncWorkflowContext, count: int) -> list[int]:
        return await asyncio.gather(*(ctx.call_sub_orchestrator(child, input=number) for number in range(count)))

    check_delivered(run.output(parent, 50), range(50), "results")
    check_delivered(sorted(runs), range(50), "runs")


@scenario()
def failure(run: ScenarioRun) -> None:
    """A child's failure reaches its parent with the type and the message of the child's exception."""

    @run.orchestrator
    async def child(ctx: AsyncWorkflowContext) -> None:
        raise ValueError("cannot ship")

    @run.orchestrator
    async def parent(ctx: AsyncWorkflowContext) -> list[str]:
        try:
            await ctx.call_sub_orchestrator(child)
        except SubOrchestrationFailedError as error:
            return [error.details.error_type, error.details.message]
        return []

    kind, message = run.output(parent)
    check("cannot ship" in message, f"the message is {message!r}")
    check(kind.rpartition(".")[2] == "ValueError", f"the type is {kind!r}")


@scenario()
def failure_of_a_grandchild(run: ScenarioRun) -> None:
    """A failure that no level catches fails all of them, and its message reaches the client."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, depth: int) -> None:
        if depth == 0:
            raise ValueError("cannot ship")
        await ctx.call_sub_orchestrator(flow, input=depth - 1)

    run.start_worker()
    details = run.wait(run.schedule(flow, 2), OrchestrationStatus.FAILED).failure_details
    check(details is not None and "cannot ship" in details.message, f"the failure is {details}")


@scenario()
def unregistered(run: ScenarioRun) -> None:
    """A call of a child that the worker does not have fails."""
    missing = f"{run.prefix}missing"

    @run.orchestrator
    async def parent(ctx: AsyncWorkflowContext) -> str:
        try:
            await ctx.call_sub_orchestrator(missing)
        except SubOrchestrationFailedError as error:
            return error.details.message
        return ""

    names = [OrchestrationWorkItemFilter(parent.__name__), OrchestrationWorkItemFilter(missing)]
    run.start_worker(filters=WorkItemFilters(orchestrations=names))
    message = run.output(parent)
    check("missing" in message, f"the message is {message!r}")


@scenario()
def retry(run: ScenarioRun) -> None:
    """A child with a retry policy is started again until it succeeds."""
    runs: list[int] = []

    @run.activity
    def flaky(_: ActivityContext, number: int) -> str:
        runs.append(number)
        if len(runs) < 3:
            raise ConnectionError("not yet")
        return "done"

    @run.orchestrator
    async def child(ctx: AsyncWorkflowContext) -> str:
        return await ctx.call_activity(flaky, input=0)

    @run.orchestrator
    async def parent(ctx: AsyncWorkflowContext) -> str:
        policy = RetryPolicy(first_retry_interval=timedelta(seconds=0.05), max_number_of_attempts=5)
        return str(await ctx.call_sub_orchestrator(child, retry_policy=policy))

    check_equal(run.output(parent), "done")
    check_delivered(runs, [0] * 3, "runs")


@scenario()
def detached(run: ScenarioRun) -> None:
    """A child that its parent does not wait for continues after the parent's end."""

    @run.orchestrator
    async def child(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.wait_for_external_event("go")

    @run.orchestrator
    async def parent(ctx: AsyncWorkflowContext, instance: str) -> str:
        ctx.call_sub_orchestrator(child, instance_id=instance)
        await ctx.sleep(0)
        return "ended"

    instance = run.new_id("-child")
    check_equal(run.output(parent, instance), "ended")
    run.client.raise_orchestration_event(instance, "go", data="alone")
    check_equal(run.wait(instance).get_output(), "alone")


@scenario()
def terminated(run: ScenarioRun) -> None:
    """The call of a child that is terminated fails in its parent."""

    @run.orchestrator
    async def child(ctx: AsyncWorkflowContext) -> None:
        await ctx.wait_for_external_event("never")

    @run.orchestrator
    async def parent(ctx: AsyncWorkflowContext, instance: str) -> str:
        try:
            await ctx.call_sub_orchestrator(child, instance_id=instance)
        except SubOrchestrationFailedError:
            return "failed"
        return "returned"

    run.start_worker()
    child_id = run.new_id("-child")
    instance = run.schedule(parent, child_id)
    run.wait_until(lambda: run.client.get_orchestration_state(child_id) is not None, "the child")
    run.wait_for_status(child_id, OrchestrationStatus.RUNNING)
    run.client.terminate_orchestration(child_id)
    run.wait(child_id, OrchestrationStatus.TERMINATED)
    check_equal(run.wait(instance).get_output(), "failed", "what the call of the child did")


@scenario()
def suspended(run: ScenarioRun) -> None:
    """A child that is suspended and resumed delays its parent, and nothing else."""

    @run.orchestrator
    async def child(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.wait_for_external_event("go")

    @run.orchestrator
    async def parent(ctx: AsyncWorkflowContext, instance: str) -> list[Any]:
        return await ctx.when_all(
            [ctx.call_sub_orchestrator(child, instance_id=instance), ctx.wait_for_external_event("own")]
        )

    run.start_worker()
    child_id = run.new_id("-child")
    instance = run.schedule(parent, child_id)
    run.wait_until(lambda: run.client.get_orchestration_state(child_id) is not None, "the child")
    run.wait_for_status(child_id, OrchestrationStatus.RUNNING)
    run.client.suspend_orchestration(child_id)
    run.wait_for_status(child_id, OrchestrationStatus.SUSPENDED)
    run.client.raise_orchestration_event(instance, "own", data=1)
    run.client.raise_orchestration_event(child_id, "go", data=2)
    run.client.resume_orchestration(child_id)
    check_equal(run.wait(instance).get_output(), [2, 1])
