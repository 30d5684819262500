"""An engine that is killed, and started again on what it has stored."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from typing import Any

from durabletask.client import OrchestrationStatus
from durabletask.entities import EntityContext
from durabletask.task import ActivityContext

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import Lost, check, check_delivered, check_equal, check_once
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


def _restart(run: ScenarioRun) -> None:
    run.kill_engine()
    run.start_engine()


@scenario(time_factor=3, kills_engine=True)
def while_waiting(run: ScenarioRun) -> None:
    """A workflow that waits for events is there after a restart, with the events that it had not taken."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        ctx.set_custom_status("waiting")
        await ctx.wait_for_external_event("go")
        return [await ctx.wait_for_external_event("number") for _ in range(4)]

    run.start_worker()
    instance = run.schedule(flow)
    run.wait_until(lambda: run.state(instance).get_custom_status() == "waiting", "the workflow to wait")
    for number in range(3):
        run.client.raise_orchestration_event(instance, "number", data=number)
    _restart(run)
    check_equal(run.state(instance).get_custom_status(), "waiting", "custom status")
    run.client.raise_orchestration_event(instance, "number", data=3)
    run.client.raise_orchestration_event(instance, "go")
    check_delivered(run.wait(instance).get_output(), range(4), "events")


@scenario(time_factor=3, kills_engine=True)
def just_accepted(run: ScenarioRun) -> None:
    """A start and an event that were acknowledged just before the engine was killed are not lost."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.wait_for_external_event("number")

    ids = [run.schedule(flow) for _ in range(10)]
    for number, each in enumerate(ids):
        run.client.raise_orchestration_event(each, "number", data=number)
    _restart(run)
    run.start_worker()
    check_delivered([run.wait(each).get_output() for each in ids], range(10), "events")


@scenario(time_factor=3, kills_engine=True)
def timers(run: ScenarioRun) -> None:
    """Timers that were due while the engine was down fire after it; later ones when they are due."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, seconds: float) -> float:
        before = ctx.now()
        ctx.set_custom_status("waiting")
        await ctx.sleep(seconds)
        return (ctx.now() - before).total_seconds()

    run.start_worker()
    waits = (0.5, 6.0)
    ids = [run.schedule(flow, seconds) for seconds in waits]
    for each in ids:
        run.wait_until(lambda each=each: run.state(each).get_custom_status() == "waiting", "the timers")  # type: ignore[misc]
    run.kill_engine()
    time.sleep(1.0)  # longer than the first timer
    run.start_engine()
    for each, seconds in zip(ids, waits, strict=True):
        took = run.wait(each).get_output()
        check(took >= seconds, f"a timer of {seconds} s took {took:.2f} s")


@scenario(time_factor=3, kills_engine=True)
def during_an_activity(run: ScenarioRun) -> None:
    """The result of an activity that ends after a restart is not lost, and not taken for another's."""
    runs: list[int] = []

    @run.activity
    async def slow(_: ActivityContext, number: int) -> int:
        runs.append(number)
        await asyncio.sleep(2.0)
        return number

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, number: int) -> int:
        return await ctx.call_activity(slow, input=number)

    run.start_worker()
    ids = [run.schedule(flow, number) for number in range(5)]
    run.wait_until(lambda: len(runs) == 5, "the activities")
    _restart(run)
    ids += [run.schedule(flow, number) for number in range(5, 10)]
    check_equal([run.wait(each).get_output() for each in ids], list(range(10)), "results")
    check_once(runs, [*range(5), *range(10)], "runs")


@scenario(time_factor=3, kills_engine=True)
def children(run: ScenarioRun) -> None:
    """Children that wait while the engine is killed report to their parent afterwards."""

    @run.orchestrator
    async def child(ctx: AsyncWorkflowContext, number: int) -> int:
        return number + int(await ctx.wait_for_external_event("number"))

    @run.orchestrator
    async def parent(ctx: AsyncWorkflowContext, ids: list[str]) -> list[int]:
        calls = [ctx.call_sub_orchestrator(child, input=number, instance_id=each) for number, each in enumerate(ids)]
        return await asyncio.gather(*calls)

    run.start_worker()
    ids = [run.new_id("-child") for _ in range(3)]
    instance = run.schedule(parent, ids)
    for each in ids:
        run.wait_until(lambda each=each: run.client.get_orchestration_state(each) is not None, "the children")  # type: ignore[misc]
    _restart(run)
    for each in ids:
        run.client.raise_orchestration_event(each, "number", data=10)
    check_equal(run.wait(instance).get_output(), [10, 11, 12])


@scenario(time_factor=3, kills_engine=True)
def ended_and_later(run: ScenarioRun) -> None:
    """Ended, suspended and scheduled instances are there after a restart, each in its state."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, wait: bool) -> Any:
        return await ctx.wait_for_external_event("go") if wait else "done"

    run.start_worker()
    ended, suspended = run.schedule(flow, False), run.schedule(flow, True)
    due = datetime.now(timezone.utc) + timedelta(seconds=8)
    later = run.schedule(flow, False, start_at=due)
    before = run.wait(ended)
    history = [type(each).__name__ for each in run.client.get_orchestration_history(ended)]
    run.wait_for_status(suspended, OrchestrationStatus.RUNNING)
    run.client.suspend_orchestration(suspended)
    run.wait_for_status(suspended, OrchestrationStatus.SUSPENDED)
    _restart(run)
    check_equal(run.state(ended), before, "state of the ended instance")
    events = [type(each).__name__ for each in run.client.get_orchestration_history(ended)]
    check_equal(events, history, "history of the ended instance")
    check_equal(run.state(suspended).runtime_status, OrchestrationStatus.SUSPENDED, "status of the suspended one")
    check_equal(run.state(later).runtime_status, OrchestrationStatus.PENDING, "status of the scheduled one")
    run.client.resume_orchestration(suspended)
    run.client.raise_orchestration_event(suspended, "go", data=1)
    check_equal(run.wait(suspended).get_output(), 1)
    check_equal(run.wait(later).get_output(), "done")


@scenario(time_factor=3, kills_engine=True)
def entities_and_locks(run: ScenarioRun) -> None:
    """The state of an entity, its lock and the queue for the lock are there after a restart."""

    @run.entity
    def log(ctx: EntityContext, entry: object) -> list[Any]:
        ctx.set_state([*ctx.get_state(list, []), entry])
        return ctx.get_state(list, [])

    entity = run.entity_id(log)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, name: str) -> Any:
        async with ctx.lock_entities([entity]):
            ctx.set_custom_status("holds")
            await ctx.wait_for_external_event("go")
            return await ctx.call_entity(entity, "note", name)

    run.start_worker()
    first = run.schedule(flow, "first")
    run.wait_until(lambda: run.state(first).get_custom_status() == "holds", "the first holder")
    second = run.schedule(flow, "second")
    run.wait_for_status(second, OrchestrationStatus.RUNNING)
    _restart(run)
    run.client.raise_orchestration_event(second, "go")
    run.check_stays(lambda: run.state(second).get_custom_status() is None, "two hold the lock", 1.0)
    run.client.raise_orchestration_event(first, "go")
    check_equal(run.wait(first).get_output(), ["first"])
    check_equal(run.wait(second).get_output(), ["first", "second"])


@scenario(time_factor=6, kills_engine=True)
def under_load(run: ScenarioRun) -> None:
    """Of forty instances that run while the engine is killed three times none is lost, wrong or doubled."""
    runs: list[tuple[int, int]] = []
    kills = 3

    @run.activity
    async def add(_: ActivityContext, given: list[int]) -> int:
        instance, number = given
        runs.append((instance, number))
        await asyncio.sleep(0.05)
        return number + 1

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, instance: int) -> list[int]:
        number = 0
        while number < 20:
            number = await ctx.call_activity(add, input=[instance, number])
        return [instance, number]

    run.start_worker()
    ids = [run.schedule(flow, number) for number in range(40)]
    for kill in range(kills):
        goal = (kill + 1) * 150
        run.wait_until(lambda goal=goal: len(runs) >= goal, f"{goal} activities", lambda: len(runs))  # type: ignore[misc]
        _restart(run)
    for number, each in enumerate(ids):
        check_equal(run.wait(each).get_output(), [number, 20], f"result of {run.short(each)}")
    expected = [(instance, number) for instance in range(40) for number in range(20)]
    if missing := set(expected) - set(runs):
        raise Lost(f"{len(missing)} activities never ran")
    check_once(runs, expected * (kills + 1), "runs")
