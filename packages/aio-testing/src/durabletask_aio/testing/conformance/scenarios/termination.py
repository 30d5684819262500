"""Terminating instances in every state."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

from durabletask.client import OrchestrationStatus
from durabletask.task import ActivityContext

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check, check_equal
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


@scenario()
def pending(run: ScenarioRun) -> None:
    """An instance that no worker has started is terminated, at the latest when a worker comes."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        await ctx.wait_for_external_event("never")

    instance = run.schedule(flow)
    run.client.terminate_orchestration(instance)
    run.start_worker()
    run.wait(instance, OrchestrationStatus.TERMINATED)


@scenario()
def waiting(run: ScenarioRun) -> None:
    """An instance that waits is terminated, with the output that was given."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        await ctx.wait_for_external_event("never")

    run.start_worker()
    instance = run.schedule(flow)
    run.wait_for_status(instance, OrchestrationStatus.RUNNING)
    run.client.terminate_orchestration(instance, output={"reason": "test"})
    check_equal(run.wait(instance, OrchestrationStatus.TERMINATED).get_output(), {"reason": "test"})


@scenario()
def during_an_activity(run: ScenarioRun) -> None:
    """An instance is terminated while its activity runs; the activity's result changes nothing."""
    log: list[str] = []

    @run.activity
    def slow(_: ActivityContext, seconds: float) -> None:
        log.append("started")
        time.sleep(seconds)
        log.append("ended")

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        await ctx.call_activity(slow, input=1.0)
        return "went on"

    run.start_worker()
    instance = run.schedule(flow)
    run.wait_until(lambda: "started" in log, "the activity to start")
    run.client.terminate_orchestration(instance, output="ended")
    run.wait(instance, OrchestrationStatus.TERMINATED)
    run.wait_until(lambda: "ended" in log, "the activity to end")
    run.check_stays(lambda: run.state(instance).get_output() == "ended", "the result has changed the output", 0.3)
    check_equal(run.state(instance).runtime_status, OrchestrationStatus.TERMINATED, "status")


@scenario()
def suspended(run: ScenarioRun) -> None:
    """A suspended instance is terminated."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        await ctx.wait_for_external_event("never")

    run.start_worker()
    instance = run.schedule(flow)
    run.client.suspend_orchestration(instance)
    run.wait_for_status(instance, OrchestrationStatus.SUSPENDED)
    run.client.terminate_orchestration(instance)
    run.wait(instance, OrchestrationStatus.TERMINATED)


@scenario()
def scheduled_for_later(run: ScenarioRun) -> None:
    """An instance that would start in an hour is terminated now, and runs nothing."""
    runs: list[str] = []

    @run.activity
    def note(_: ActivityContext, name: str) -> None:
        runs.append(name)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        await ctx.call_activity(note, input="ran")

    run.start_worker()
    instance = run.schedule(flow, start_at=datetime.now(timezone.utc) + timedelta(hours=1))
    run.client.terminate_orchestration(instance)
    run.wait(instance, OrchestrationStatus.TERMINATED)
    check_equal(runs, [], "activities that ran")


@scenario()
def completed(run: ScenarioRun) -> None:
    """Terminating an instance that has ended is refused or ignored, and changes nothing."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        return "done"

    run.start_worker()
    instance = run.schedule(flow)
    run.wait(instance)
    run.refused(lambda: run.client.terminate_orchestration(instance, output="terminated"))
    run.check_stays(
        lambda: run.state(instance).runtime_status is OrchestrationStatus.COMPLETED, "the status has changed", 0.3
    )
    check_equal(run.state(instance).get_output(), "done")


@scenario()
def missing(run: ScenarioRun) -> None:
    """Terminating, suspending and resuming what does not exist is refused or ignored, and creates nothing."""
    instance = run.new_id()
    run.refused(lambda: run.client.terminate_orchestration(instance))
    run.refused(lambda: run.client.suspend_orchestration(instance))
    run.refused(lambda: run.client.resume_orchestration(instance))
    check(run.client.get_orchestration_state(instance) is None, "an instance was created")


def _family(run: ScenarioRun, depth: int) -> list[str]:
    """Start a chain of parents and children that wait for an event; returns their ids."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, ids: list[str]) -> Any:
        if not ids:
            return await ctx.wait_for_external_event("go")
        return await ctx.call_sub_orchestrator(flow, input=ids[1:], instance_id=ids[0])

    ids = [run.new_id(f"-level-{level}") for level in range(depth)]
    run.start_worker()
    run.schedule(flow, ids[1:], instance_id=ids[0])
    run.wait_until(lambda: run.client.get_orchestration_state(ids[-1]) is not None, "the last child")
    run.wait_for_status(ids[-1], OrchestrationStatus.RUNNING)
    return ids


@scenario()
def recursive(run: ScenarioRun) -> None:
    """Recursive termination ends children and grandchildren."""
    ids = _family(run, 3)
    run.client.terminate_orchestration(ids[0], recursive=True)
    for each in ids:
        run.wait(each, OrchestrationStatus.TERMINATED)


@scenario()
def not_recursive(run: ScenarioRun) -> None:
    """Termination that is not recursive leaves the children alone."""
    ids = _family(run, 2)
    run.client.terminate_orchestration(ids[0], recursive=False)
    run.wait(ids[0], OrchestrationStatus.TERMINATED)
    run.client.raise_orchestration_event(ids[1], "go", data=1)
    check_equal(run.wait(ids[1]).get_output(), 1)


@scenario()
def without_waiting(run: ScenarioRun) -> None:
    """A terminated instance starts nothing more, although events for it are outstanding."""
    runs: list[int] = []

    @run.activity
    def note(_: ActivityContext, number: int) -> None:
        runs.append(number)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        while True:
            await ctx.call_activity(note, input=await ctx.wait_for_external_event("number"))

    run.start_worker()
    instance = run.schedule(flow)
    run.wait_for_status(instance, OrchestrationStatus.RUNNING)
    run.client.terminate_orchestration(instance)
    run.wait(instance, OrchestrationStatus.TERMINATED)
    run.refused(lambda: run.client.raise_orchestration_event(instance, "number", data=1))
    run.check_stays(lambda: not runs, "an activity ran after the end", 0.3)
