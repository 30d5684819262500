"""`continue_as_new`: what goes with it, and what does not."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

from durabletask.task import ActivityContext

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check, check_delivered, check_equal
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


@scenario()
def state(run: ScenarioRun) -> None:
    """Each execution starts with the input of the one before, under the same id."""

    @run.activity
    def add(_: ActivityContext, number: int) -> int:
        return number + 1

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, number: int) -> list[Any]:
        number = await ctx.call_activity(add, input=number)
        if number < 10:
            ctx.continue_as_new(number)
            return []
        return [number, ctx.instance_id]

    run.start_worker()
    instance = run.schedule(flow, 0)
    check_equal(run.wait(instance).get_output(), [10, instance])


@scenario(time_factor=2)
def many(run: ScenarioRun) -> None:
    """An instance continues two hundred times, and its history is that of the last execution."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, number: int) -> int:
        await ctx.sleep(0)
        if number < 200:
            ctx.continue_as_new(number + 1)
        return number

    run.start_worker()
    instance = run.schedule(flow, 0)
    check_equal(run.wait(instance).get_output(), 200)
    length = len(run.client.get_orchestration_history(instance))
    check(length < 20, f"the history has {length} events")


@scenario()
def timer_outstanding(run: ScenarioRun) -> None:
    """A timer of the old execution does not end a timer of the new one."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, first: bool) -> float:
        if first:
            ctx.sleep(1.0)
            await ctx.wait_for_external_event("go")
            ctx.continue_as_new(False)
            return 0.0
        before = ctx.now()
        await ctx.sleep(2.0)
        return (ctx.now() - before).total_seconds()

    run.start_worker()
    instance = run.schedule(flow, True)
    run.client.raise_orchestration_event(instance, "go")
    took = run.wait(instance).get_output()
    check(took >= 2.0, f"the new execution's timer of 2 s took {took:.2f} s")


@scenario()
def activity_outstanding(run: ScenarioRun) -> None:
    """The result of an activity of the old execution does not reach the new one."""

    @run.activity
    async def slow(_: ActivityContext, given: list[Any]) -> str:
        seconds, name = given
        await asyncio.sleep(seconds)
        return str(name)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, first: bool) -> str:
        if first:
            ctx.call_activity(slow, input=[1.0, "old"])
            await ctx.sleep(0.1)
            ctx.continue_as_new(False)
            return ""
        return await ctx.call_activity(slow, input=[2.5, "new"])

    check_equal(run.output(flow, True), "new")


@scenario()
def child_outstanding(run: ScenarioRun) -> None:
    """The result of a child of the old execution does not reach the new one."""

    @run.orchestrator
    async def child(ctx: AsyncWorkflowContext, given: list[Any]) -> str:
        seconds, name = given
        await ctx.sleep(seconds)
        return str(name)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, first: bool) -> str:
        instance = f"{ctx.instance_id}-child-of-{'first' if first else 'second'}"
        if first:
            ctx.call_sub_orchestrator(child, input=[1.0, "old"], instance_id=instance)
            await ctx.sleep(0.1)
            ctx.continue_as_new(False)
            return ""
        return str(await ctx.call_sub_orchestrator(child, input=[2.5, "new"], instance_id=instance))

    check_equal(run.output(flow, True), "new")


@scenario()
def wait_outstanding(run: ScenarioRun) -> None:
    """An event goes to the wait of the new execution, not to one that the old execution gave up."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, first: bool) -> Any:
        if first:
            ctx.wait_for_external_event("number")
            await ctx.sleep(0.1)
            ctx.continue_as_new(False)
            return None
        ctx.set_custom_status("second")
        return await ctx.wait_for_external_event("number")

    run.start_worker()
    instance = run.schedule(flow, True)
    run.wait_until(lambda: run.state(instance).get_custom_status() == "second", "the second execution")
    run.client.raise_orchestration_event(instance, "number", data=7)
    check_equal(run.wait(instance).get_output(), 7)


@scenario()
def child_in_each_execution(run: ScenarioRun) -> None:
    """Each execution may call a child without giving it an id."""

    @run.orchestrator
    async def child(ctx: AsyncWorkflowContext, number: int) -> int:
        return number + 1

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, number: int) -> int:
        number = await ctx.call_sub_orchestrator(child, input=number)
        if number < 5:
            ctx.continue_as_new(number)
        return number

    check_equal(run.output(flow, 0), 5)


@scenario()
def events_carried_over(run: ScenarioRun) -> None:
    """With `save_events=True`, events that were not waited for are carried over, in their order."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, found: list[int]) -> list[int]:
        if not found:
            await ctx.wait_for_external_event("go")
        found = [*found, await ctx.wait_for_external_event("number", data_type=int)]
        if len(found) < 5:
            ctx.continue_as_new(found, save_events=True)
        return found

    run.start_worker()
    instance = run.schedule(flow, [])
    for number in range(5):
        run.client.raise_orchestration_event(instance, "number", data=number)
    run.client.raise_orchestration_event(instance, "go")
    check_delivered(run.wait(instance).get_output(), range(5), "events")


@scenario()
def events_left_behind(run: ScenarioRun) -> None:
    """Without `save_events`, events that the old execution received and did not wait for are left behind."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, first: bool) -> str:
        if first:
            await ctx.wait_for_external_event("go")
            ctx.continue_as_new(False)
            return ""
        try:
            return str(await ctx.with_timeout(ctx.wait_for_external_event("number"), 0.5))
        except TimeoutError:
            return "none"

    instance = run.schedule(flow, True)
    run.client.raise_orchestration_event(instance, "number", data=1)
    run.client.raise_orchestration_event(instance, "go")
    run.start_worker()
    check_equal(run.wait(instance).get_output(), "none")


@scenario(time_factor=2)
def events_meanwhile(run: ScenarioRun) -> None:
    """Events that are raised while an instance continues again and again all arrive, once and in order."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, found: list[int]) -> list[int]:
        found = [*found, await ctx.wait_for_external_event("number", data_type=int)]
        if len(found) < 50:
            ctx.continue_as_new(found, save_events=True)
        return found

    run.start_worker()
    instance = run.schedule(flow, [])
    for number in range(50):
        run.client.raise_orchestration_event(instance, "number", data=number)
        time.sleep(0.01)
    check_delivered(run.wait(instance).get_output(), range(50), "events")


@scenario()
def new_version(run: ScenarioRun) -> None:
    """The new execution has the version that was given."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, versions: list[str | None]) -> list[str | None]:
        versions = [*versions, ctx.version]
        if len(versions) < 2:
            await ctx.sleep(0)
            ctx.continue_as_new(versions, new_version="2.0")
        return versions

    run.start_worker()
    instance = run.schedule(flow, [], version="1.0")
    check_equal(run.wait(instance).get_output(), ["1.0", "2.0"])


@scenario()
def metadata(run: ScenarioRun) -> None:
    """The metadata of an instance, which is stored in its tags, is there in the new execution."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, first: bool) -> dict[str, str] | None:
        if first:
            ctx.set_metadata({"tenant": "acme"})
            await ctx.sleep(0)
            ctx.continue_as_new(False)
        return ctx.get_metadata()

    check_equal(run.output(flow, True), {"tenant": "acme"})


@scenario()
def child_continues(run: ScenarioRun) -> None:
    """The result of a child that continues as new is that of its last execution."""

    @run.orchestrator
    async def child(ctx: AsyncWorkflowContext, number: int) -> str:
        await ctx.sleep(timedelta(milliseconds=10))
        if number < 3:
            ctx.continue_as_new(number + 1)
        return f"after {number}"

    @run.orchestrator
    async def parent(ctx: AsyncWorkflowContext) -> str:
        return str(await ctx.call_sub_orchestrator(child, input=0))

    check_equal(run.output(parent), "after 3")
