"""Long histories, and many instances at once."""

from __future__ import annotations

import asyncio

from durabletask.task import ActivityContext

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check_equal, check_once
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


@scenario(time_factor=5)
def two_thousand_steps(run: ScenarioRun) -> None:
    """A workflow with two thousand activities, one after the other, runs each of them once."""
    runs: list[int] = []

    @run.activity
    async def add(_: ActivityContext, number: int) -> int:
        runs.append(number)
        return number + 1

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> int:
        number = 0
        while number < 2000:
            number = await ctx.call_activity(add, input=number)
        return number

    check_equal(run.output(flow), 2000)
    check_once(runs, range(2000))


@scenario(time_factor=5)
def full_replays(run: ScenarioRun) -> None:
    """A workflow with three hundred steps works on a worker that replays its whole history in each turn."""

    @run.activity
    async def add(_: ActivityContext, number: int) -> int:
        return number + 1

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> int:
        number = 0
        while number < 300:
            number = await ctx.call_activity(add, input=number)
        return number

    run.start_worker(max_extended_sessions=0)
    check_equal(run.output(flow), 300)


@scenario(time_factor=5)
def thousand_at_once(run: ScenarioRun) -> None:
    """A thousand activities at once run once each, and all results arrive."""
    runs: list[int] = []

    @run.activity
    async def square(_: ActivityContext, number: int) -> int:
        runs.append(number)
        return number * number

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> int:
        results = await asyncio.gather(*(ctx.call_activity(square, input=number) for number in range(1000)))
        return sum(results)

    check_equal(run.output(flow), sum(number * number for number in range(1000)))
    check_once(runs, range(1000))


@scenario(time_factor=5)
def hundreds_of_instances(run: ScenarioRun) -> None:
    """Three hundred instances at once, with activities, timers and events, all end with their own results."""

    @run.activity
    async def add(_: ActivityContext, number: int) -> int:
        return number + 1

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, number: int) -> list[int]:
        event = ctx.wait_for_external_event("number", data_type=int)
        await ctx.sleep(0.05)
        return [await ctx.call_activity(add, input=number), await event]

    run.start_worker()
    ids = [run.schedule(flow, number) for number in range(300)]
    for number, each in enumerate(ids):
        run.client.raise_orchestration_event(each, "number", data=-number)
    for number, each in enumerate(ids):
        check_equal(run.wait(each).get_output(), [number + 1, -number], f"result of {run.short(each)}")
