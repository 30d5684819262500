"""Scenarios that end in every way, for the tests of `durabletask-aio conformance`."""

from __future__ import annotations

import os
import sys
import time

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check_delivered
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


@scenario()
def works(run: ScenarioRun) -> None:
    """A workflow returns its input."""

    @run.orchestrator
    async def echo(ctx: AsyncWorkflowContext, value: int) -> int:
        return value

    print("what a scenario prints is no part of the report")
    assert run.output(echo, 1) == 1


@scenario()
async def works_async(run: ScenarioRun) -> None:
    """A scenario may be a coroutine function."""


@scenario()
def wrong(run: ScenarioRun) -> None:
    """A workflow fails."""

    @run.orchestrator
    async def fails(ctx: AsyncWorkflowContext) -> None:
        raise ValueError("no | such")

    run.output(fails)


@scenario()
def refused(run: ScenarioRun) -> None:
    """The engine refuses an event for an instance that does not exist."""
    run.client.raise_orchestration_event(run.new_id(), "event")


@scenario()
def waits(run: ScenarioRun) -> None:
    """A workflow waits for an event that is never raised."""

    @run.orchestrator
    async def forever(ctx: AsyncWorkflowContext) -> None:
        await ctx.wait_for_external_event("never")

    run.output(forever)


@scenario(time_factor=0.5)
def hangs(run: ScenarioRun) -> None:
    """The process never answers, and leaves an instance behind."""

    async def forever(ctx: AsyncWorkflowContext) -> None: ...

    run.schedule(run.orchestrator(forever))
    time.sleep(3600)


@scenario()
def dies(run: ScenarioRun) -> None:
    """The process ends before it has answered."""
    print("out of memory", file=sys.stderr)
    os._exit(3)


@scenario()
def lost(run: ScenarioRun) -> None:
    """An event is lost."""
    check_delivered([1, 3], [1, 2, 3], "events")


@scenario()
def doubled(run: ScenarioRun) -> None:
    """An event arrives twice."""
    check_delivered([1, 2, 2], [1, 2], "events")


@scenario(kills_engine=True)
def kills_engine(run: ScenarioRun) -> None:
    """The engine is killed, and answers again after it was started again."""
    run.kill_engine()
    run.start_engine()
    assert run.client.get_orchestration_state(run.new_id()) is None


@scenario(python=(99, 0))
def future_python(run: ScenarioRun) -> None:
    """This Python is too old."""
