"""Rewinding instances that have failed."""

from __future__ import annotations

from durabletask.client import OrchestrationStatus
from durabletask.task import ActivityContext

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check, check_delivered, check_equal
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


@scenario()
def activity(run: ScenarioRun) -> None:
    """A rewind runs the activity that failed again, and not those that succeeded."""
    runs: list[str] = []

    @run.activity
    def step(_: ActivityContext, name: str) -> str:
        runs.append(name)
        if name == "second" and runs.count(name) == 1:
            raise ConnectionError("down")
        return name

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[str]:
        return [await ctx.call_activity(step, input=name) for name in ("first", "second", "third")]

    run.start_worker()
    instance = run.schedule(flow)
    run.wait(instance, OrchestrationStatus.FAILED)
    run.client.rewind_orchestration(instance, reason="the service is up again")
    state = run.wait_for_status(instance, OrchestrationStatus.COMPLETED)
    check_equal(state.get_output(), ["first", "second", "third"])
    check_equal(state.failure_details, None, "failure")
    check_delivered(runs, ["first", "second", "second", "third"], "runs")


@scenario()
def child(run: ScenarioRun) -> None:
    """A rewind of a parent rewinds the child that failed, under the same id."""
    runs: list[str] = []

    @run.activity
    def step(_: ActivityContext, name: str) -> str:
        runs.append(name)
        if name == "second" and runs.count(name) == 1:
            raise ConnectionError("down")
        return name

    @run.orchestrator
    async def ship(ctx: AsyncWorkflowContext) -> list[str]:
        return [await ctx.call_activity(step, input=name) for name in ("first", "second")]

    @run.orchestrator
    async def parent(ctx: AsyncWorkflowContext, instance: str) -> list[str]:
        return list(await ctx.call_sub_orchestrator(ship, instance_id=instance))

    run.start_worker()
    child_id = run.new_id("-child")
    instance = run.schedule(parent, child_id)
    run.wait(instance, OrchestrationStatus.FAILED)
    run.client.rewind_orchestration(instance)
    check_equal(run.wait_for_status(instance, OrchestrationStatus.COMPLETED).get_output(), ["first", "second"])
    check_equal(run.state(child_id).runtime_status, OrchestrationStatus.COMPLETED, "status of the child")
    check_delivered(runs, ["first", "second", "second"], "runs")


@scenario()
def twice(run: ScenarioRun) -> None:
    """An instance that fails again after a rewind can be rewound again."""
    runs: list[int] = []

    @run.activity
    def step(_: ActivityContext, number: int) -> int:
        runs.append(number)
        if len(runs) < 3:
            raise ConnectionError(f"attempt {len(runs)}")
        return number

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> int:
        return await ctx.call_activity(step, input=1)

    run.start_worker()
    instance = run.schedule(flow)
    run.wait(instance, OrchestrationStatus.FAILED)
    for attempt in (2, 3):
        run.client.rewind_orchestration(instance)
        run.wait_until(lambda attempt=attempt: len(runs) == attempt, f"attempt {attempt}")  # type: ignore[misc]
        run.wait_for_status(instance, OrchestrationStatus.FAILED if attempt == 2 else OrchestrationStatus.COMPLETED)
    check_equal(run.state(instance).get_output(), 1)
    check_delivered(runs, [1] * 3, "runs")


@scenario()
def completed(run: ScenarioRun) -> None:
    """A rewind of an instance that has completed is refused, and changes nothing."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        return "done"

    run.start_worker()
    instance = run.schedule(flow)
    run.wait(instance)
    check(run.refused(lambda: run.client.rewind_orchestration(instance)) is not None, "it was accepted")
    check_equal(run.wait(instance).get_output(), "done")
