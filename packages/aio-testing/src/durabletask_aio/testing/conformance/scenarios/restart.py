"""Restarting instances that have ended."""

from __future__ import annotations

from typing import Any

from durabletask.client import OrchestrationStatus

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check, check_equal
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


@scenario()
def same_id(run: ScenarioRun) -> None:
    """A restart under the same id runs the workflow again, with the same input, from the beginning."""
    runs: list[int] = []

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, number: int) -> list[int]:
        if not ctx.is_replaying:
            runs.append(number)
        await ctx.sleep(0)
        return [number, await ctx.wait_for_external_event("number")]

    run.start_worker()
    instance = run.schedule(flow, 7)
    run.client.raise_orchestration_event(instance, "number", data=1)
    check_equal(run.wait(instance).get_output(), [7, 1])
    check_equal(run.client.restart_orchestration(instance), instance, "id")
    run.wait_for_status(instance, OrchestrationStatus.RUNNING)
    run.client.raise_orchestration_event(instance, "number", data=2)
    check_equal(run.wait(instance).get_output(), [7, 2])
    check_equal(runs, [7, 7], "runs")


@scenario()
def new_id(run: ScenarioRun) -> None:
    """A restart under a new id leaves the old instance, and runs one with the same name and input."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, number: int) -> int:
        return number

    run.start_worker()
    instance = run.schedule(flow, 7)
    run.wait(instance)
    other = run.client.restart_orchestration(instance, restart_with_new_instance_id=True)
    check(other != instance, "the id is that of the old instance")
    try:
        state = run.wait(other)
        check_equal([state.name, state.get_input(), state.get_output()], [flow.__name__, 7, 7])
        check_equal(run.state(instance).get_output(), 7)
    finally:
        run.client.purge_orchestration(other)


@scenario()
def failed(run: ScenarioRun) -> None:
    """An instance that has failed can be restarted, and its failure is forgotten."""
    attempts: list[bool] = []

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        attempts.append(True)
        if len(attempts) == 1:
            raise ValueError("the first attempt fails")
        return "done"

    run.start_worker()
    instance = run.schedule(flow)
    run.wait(instance, OrchestrationStatus.FAILED)
    run.client.restart_orchestration(instance)
    run.wait_for_status(instance, OrchestrationStatus.COMPLETED)
    check_equal(run.state(instance).failure_details, None, "failure")


@scenario()
def running(run: ScenarioRun) -> None:
    """A restart of an instance that runs is refused, and changes nothing."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.wait_for_external_event("go")

    run.start_worker()
    instance = run.schedule(flow)
    run.wait_for_status(instance, OrchestrationStatus.RUNNING)
    check(run.refused(lambda: run.client.restart_orchestration(instance)) is not None, "it was accepted")
    run.client.raise_orchestration_event(instance, "go", data=1)
    check_equal(run.wait(instance).get_output(), 1)


@scenario()
def missing(run: ScenarioRun) -> None:
    """A restart of an instance that does not exist is refused."""
    check(run.refused(lambda: run.client.restart_orchestration(run.new_id())) is not None, "it was accepted")
