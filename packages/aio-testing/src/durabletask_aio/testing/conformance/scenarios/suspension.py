"""Suspending and resuming instances in every state."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

from durabletask.client import OrchestrationStatus
from durabletask.task import ActivityContext

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check_delivered, check_equal
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


def _check_stays_suspended(run: ScenarioRun, instance: str) -> None:
    run.check_stays(
        lambda: run.state(instance).runtime_status is OrchestrationStatus.SUSPENDED, "it did not stay suspended", 0.5
    )


@scenario()
def waiting(run: ScenarioRun) -> None:
    """Events that arrive while an instance is suspended are kept, and it continues with them when it is resumed."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        return [await ctx.wait_for_external_event("number") for _ in range(5)]

    run.start_worker()
    instance = run.schedule(flow)
    run.wait_for_status(instance, OrchestrationStatus.RUNNING)
    run.client.suspend_orchestration(instance)
    run.wait_for_status(instance, OrchestrationStatus.SUSPENDED)
    for number in range(5):
        run.client.raise_orchestration_event(instance, "number", data=number)
    _check_stays_suspended(run, instance)
    run.client.resume_orchestration(instance)
    check_delivered(run.wait(instance).get_output(), range(5), "events")


@scenario()
def during_an_activity(run: ScenarioRun) -> None:
    """The result of an activity that ends while its instance is suspended is there when it is resumed."""
    runs: list[str] = []

    @run.activity
    async def slow(_: ActivityContext, seconds: float) -> int:
        runs.append("started")
        await asyncio.sleep(seconds)
        runs.append("ended")
        return 1

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> int:
        return await ctx.call_activity(slow, input=0.5) + await ctx.call_activity(slow, input=0.0)

    run.start_worker()
    instance = run.schedule(flow)
    run.wait_until(lambda: "started" in runs, "the activity to start")
    run.client.suspend_orchestration(instance)
    run.wait_for_status(instance, OrchestrationStatus.SUSPENDED)
    run.wait_until(lambda: "ended" in runs, "the activity to end")
    _check_stays_suspended(run, instance)
    check_equal(runs, ["started", "ended"], "what ran while it was suspended")
    run.client.resume_orchestration(instance)
    check_equal(run.wait(instance).get_output(), 2)
    check_delivered(runs, ["started", "ended"] * 2, "runs")


@scenario()
def timer(run: ScenarioRun) -> None:
    """A timer that is due while its instance is suspended fires when it is resumed."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        await ctx.sleep(0.6)
        return "done"

    run.start_worker()
    instance = run.schedule(flow)
    run.client.suspend_orchestration(instance)
    run.wait_for_status(instance, OrchestrationStatus.SUSPENDED)
    run.check_stays(
        lambda: run.state(instance).runtime_status is OrchestrationStatus.SUSPENDED, "it did not stay suspended"
    )
    run.client.resume_orchestration(instance)
    check_equal(run.wait(instance).get_output(), "done")


@scenario()
def pending(run: ScenarioRun) -> None:
    """An instance that is suspended before a worker has started it waits to be resumed."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.wait_for_external_event("go")

    instance = run.schedule(flow)
    run.client.suspend_orchestration(instance)
    run.client.raise_orchestration_event(instance, "go", data=1)
    run.start_worker()
    run.wait_for_status(instance, OrchestrationStatus.SUSPENDED)
    _check_stays_suspended(run, instance)
    run.client.resume_orchestration(instance)
    check_equal(run.wait(instance).get_output(), 1)


@scenario()
def scheduled_for_later(run: ScenarioRun) -> None:
    """An instance that is suspended before its scheduled start runs when it is due and resumed."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.wait_for_external_event("go")

    run.start_worker()
    instance = run.schedule(flow, start_at=datetime.now(timezone.utc) + timedelta(seconds=1))
    run.client.suspend_orchestration(instance)
    run.client.raise_orchestration_event(instance, "go", data=1)
    run.check_stays(
        lambda: run.state(instance).runtime_status is not OrchestrationStatus.COMPLETED, "it did not wait", 1.5
    )
    run.client.resume_orchestration(instance)
    check_equal(run.wait(instance).get_output(), 1)


@scenario()
def twice(run: ScenarioRun) -> None:
    """An instance that is suspended twice continues when it is resumed once."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.wait_for_external_event("go")

    run.start_worker()
    instance = run.schedule(flow)
    run.client.suspend_orchestration(instance)
    run.client.suspend_orchestration(instance)
    run.wait_for_status(instance, OrchestrationStatus.SUSPENDED)
    run.client.resume_orchestration(instance)
    run.wait_for_status(instance, OrchestrationStatus.RUNNING)
    run.client.raise_orchestration_event(instance, "go", data=1)
    check_equal(run.wait(instance).get_output(), 1)


@scenario()
def resume_of_a_running_instance(run: ScenarioRun) -> None:
    """Resuming an instance that is not suspended is refused or ignored, and changes nothing."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.wait_for_external_event("go")

    run.start_worker()
    instance = run.schedule(flow)
    run.wait_for_status(instance, OrchestrationStatus.RUNNING)
    run.refused(lambda: run.client.resume_orchestration(instance))
    run.client.raise_orchestration_event(instance, "go", data=1)
    check_equal(run.wait(instance).get_output(), 1)


@scenario()
def completed(run: ScenarioRun) -> None:
    """Suspending and resuming an instance that has ended is refused or ignored, and changes nothing."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        return "done"

    run.start_worker()
    instance = run.schedule(flow)
    run.wait(instance)
    for call in (run.client.suspend_orchestration, run.client.resume_orchestration):
        run.refused(lambda call=call: call(instance))  # type: ignore[misc]
        run.check_stays(
            lambda: run.state(instance).runtime_status is OrchestrationStatus.COMPLETED, "the status has changed", 0.3
        )


@scenario()
def again_and_again(run: ScenarioRun) -> None:
    """An instance with a loop of activities that is suspended and resumed many times runs each of them once."""
    runs: list[int] = []

    @run.activity
    async def note(_: ActivityContext, number: int) -> None:
        runs.append(number)
        await asyncio.sleep(0.01)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        for number in range(40):
            await ctx.call_activity(note, input=number)

    run.start_worker()
    instance = run.schedule(flow)
    for _ in range(6):
        run.client.suspend_orchestration(instance)
        run.client.resume_orchestration(instance)
    run.wait(instance)
    check_delivered(runs, range(40), "runs")
