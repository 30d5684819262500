"""External events."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from typing import Any

from durabletask.client import OrchestrationStatus
from durabletask.task import ActivityContext

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check_delivered, check_equal
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


@scenario()
def while_waiting(run: ScenarioRun) -> None:
    """An event ends the wait of a workflow that waits for it."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        ctx.set_custom_status("waiting")
        return await ctx.wait_for_external_event("approval")

    run.start_worker()
    instance = run.schedule(flow)
    run.wait_until(lambda: run.state(instance).get_custom_status() == "waiting", "the workflow to wait")
    run.client.raise_orchestration_event(instance, "approval", data={"by": "anna"})
    check_equal(run.wait(instance).get_output(), {"by": "anna"})


@scenario()
def before_the_wait(run: ScenarioRun) -> None:
    """An event that arrives before the workflow waits for it is kept."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        await ctx.wait_for_external_event("go")
        return await ctx.wait_for_external_event("early")

    run.start_worker()
    instance = run.schedule(flow)
    run.client.raise_orchestration_event(instance, "early", data=1)
    run.client.raise_orchestration_event(instance, "go")
    check_equal(run.wait(instance).get_output(), 1)


@scenario()
def before_the_start(run: ScenarioRun) -> None:
    """Events for an instance that no worker has started yet are kept, in their order."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        return [await ctx.wait_for_external_event("number") for _ in range(3)]

    instance = run.schedule(flow)
    for number in range(3):
        run.client.raise_orchestration_event(instance, "number", data=number)
    run.start_worker()
    check_delivered(run.wait(instance).get_output(), [0, 1, 2], "events")


@scenario()
def before_a_scheduled_start(run: ScenarioRun) -> None:
    """An event for an instance that is scheduled for later is kept until it starts."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.wait_for_external_event("early")

    run.start_worker()
    instance = run.schedule(flow, start_at=datetime.now(timezone.utc) + timedelta(seconds=1.5))
    run.client.raise_orchestration_event(instance, "early", data=1)
    check_equal(run.wait(instance).get_output(), 1)


@scenario()
def order(run: ScenarioRun) -> None:
    """A hundred events of a name arrive in the order in which they were raised, each once."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, count: int) -> list[int]:
        return [await ctx.wait_for_external_event("number") for _ in range(count)]

    run.start_worker()
    instance = run.schedule(flow, 100)
    for number in range(100):
        run.client.raise_orchestration_event(instance, "number", data=number)
    check_delivered(run.wait(instance).get_output(), range(100), "events")


@scenario()
def two_names(run: ScenarioRun) -> None:
    """Events of two names do not mix, in whatever order they are raised and waited for."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[Any]:
        second = await ctx.wait_for_external_event("second")
        return [await ctx.wait_for_external_event("first"), second]

    run.start_worker()
    instance = run.schedule(flow)
    run.client.raise_orchestration_event(instance, "first", data=1)
    run.client.raise_orchestration_event(instance, "second", data=2)
    check_equal(run.wait(instance).get_output(), [1, 2])


@scenario()
def two_waiters(run: ScenarioRun) -> None:
    """Two tasks that wait for events of one name get one each, first come, first served."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[Any]:
        return list(await asyncio.gather(*(ctx.wait_for_external_event("number") for _ in range(2))))

    run.start_worker()
    instance = run.schedule(flow)
    for number in (1, 2):
        run.client.raise_orchestration_event(instance, "number", data=number)
    check_equal(run.wait(instance).get_output(), [1, 2])


@scenario()
def case_of_names(run: ScenarioRun) -> None:
    """The case of an event's name does not matter."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        return [await ctx.wait_for_external_event("Approval"), await ctx.wait_for_external_event("approval")]

    run.start_worker()
    instance = run.schedule(flow)
    run.client.raise_orchestration_event(instance, "APPROVAL", data=1)
    run.client.raise_orchestration_event(instance, "approvaL", data=2)
    check_equal(run.wait(instance).get_output(), [1, 2])


@scenario()
def without_data(run: ScenarioRun) -> None:
    """An event without data arrives as `None`, and a name and data in other alphabets as they are."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[Any]:
        return [await ctx.wait_for_external_event("empty"), await ctx.wait_for_external_event("größe 尺寸")]

    run.start_worker()
    instance = run.schedule(flow)
    run.client.raise_orchestration_event(instance, "empty")
    run.client.raise_orchestration_event(instance, "größe 尺寸", data="groß 大")
    check_equal(run.wait(instance).get_output(), [None, "groß 大"])


@scenario()
def during_an_activity(run: ScenarioRun) -> None:
    """Events that arrive while an activity runs are all there when it ends."""
    started: list[bool] = []

    @run.activity
    async def slow(_: ActivityContext, __: object) -> None:
        started.append(True)
        await asyncio.sleep(0.5)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        await ctx.call_activity(slow)
        return [await ctx.wait_for_external_event("number") for _ in range(10)]

    run.start_worker()
    instance = run.schedule(flow)
    run.wait_until(lambda: bool(started), "the activity to start")
    for number in range(10):
        run.client.raise_orchestration_event(instance, "number", data=number)
    check_delivered(run.wait(instance).get_output(), range(10), "events")


@scenario()
def after_a_timeout(run: ScenarioRun) -> None:
    """An event that arrives after a wait for it timed out goes to the next wait."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        try:
            return await ctx.with_timeout(ctx.wait_for_external_event("late"), 0.1)
        except TimeoutError:
            ctx.set_custom_status("timed out")
        await ctx.wait_for_external_event("go")
        return await ctx.wait_for_external_event("late")

    run.start_worker()
    instance = run.schedule(flow)
    run.wait_until(lambda: run.state(instance).get_custom_status() == "timed out", "the timeout")
    run.client.raise_orchestration_event(instance, "late", data="there")
    run.client.raise_orchestration_event(instance, "go")
    check_equal(run.wait(instance).get_output(), "there")


@scenario()
def from_a_workflow(run: ScenarioRun) -> None:
    """A workflow sends events to another one, which gets them in their order."""

    @run.orchestrator
    async def receiver(ctx: AsyncWorkflowContext) -> list[Any]:
        return [await ctx.wait_for_external_event("number") for _ in range(3)]

    @run.orchestrator
    async def sender(ctx: AsyncWorkflowContext, target: str) -> None:
        for number in range(3):
            ctx.send_event(target, "number", data=number)

    run.start_worker()
    instance = run.schedule(receiver)
    run.output(sender, instance)
    check_delivered(run.wait(instance).get_output(), [0, 1, 2], "events")


@scenario()
def for_a_missing_instance(run: ScenarioRun) -> None:
    """An event for an instance that does not exist is refused or dropped, and creates nothing."""
    instance = run.new_id()
    run.refused(lambda: run.client.raise_orchestration_event(instance, "any"))
    run.check_stays(
        lambda: run.client.get_orchestration_state(instance) is None, "the event has created an instance", 0.3
    )


@scenario()
def for_an_ended_instance(run: ScenarioRun) -> None:
    """An event for an instance that has ended is refused or dropped, and changes nothing."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        return "done"

    run.start_worker()
    instance = run.schedule(flow)
    run.wait(instance)
    run.refused(lambda: run.client.raise_orchestration_event(instance, "any", data=1))
    time.sleep(0.2)
    state = run.wait(instance)
    check_equal([state.runtime_status, state.get_output()], [OrchestrationStatus.COMPLETED, "done"])


@scenario()
def iterated(run: ScenarioRun) -> None:
    """`async for` over events gets those from before and during the loop."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        found: list[int] = []
        async for number in ctx.events("number", data_type=int):
            found.append(number)
            if len(found) == 5:
                break
        return found

    run.start_worker()
    instance = run.schedule(flow)
    for number in range(5):
        run.client.raise_orchestration_event(instance, "number", data=number)
    check_delivered(run.wait(instance).get_output(), range(5), "events")
