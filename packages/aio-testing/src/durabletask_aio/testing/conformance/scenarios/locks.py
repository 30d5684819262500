"""Locks of entities."""

from __future__ import annotations

import asyncio
from typing import Any

from durabletask.client import OrchestrationStatus
from durabletask.entities import EntityContext, EntityInstanceId
from durabletask.task import ActivityContext
from durabletask.worker import (
    EntityWorkItemFilter,
    OrchestrationWorkItemFilter,
    VersionFailureStrategy,
    VersioningOptions,
    VersionMatchStrategy,
    WorkItemFilters,
)

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check, check_equal
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


def _entities(run: ScenarioRun, count: int = 1) -> list[EntityInstanceId]:
    """Register an entity that keeps a list, and return the ids of some."""

    @run.entity
    def log(ctx: EntityContext, entry: object) -> list[Any]:
        if entry is not None:
            ctx.set_state([*ctx.get_state(list, []), entry])
        return ctx.get_state(list, [])

    return [run.entity_id(log, f"key-{number}") for number in range(count)]


def _holder(run: ScenarioRun, entity: EntityInstanceId, *, end: str = "release") -> Any:
    """Register a workflow that takes the lock, waits for an event, and ends in one of several ways."""

    @run.orchestrator
    async def holder(ctx: AsyncWorkflowContext, first: bool = True) -> str:
        if not first:
            return "continued"
        held = await ctx.lock_entities([entity])
        ctx.set_custom_status("holds")
        await ctx.wait_for_external_event("go")
        if end == "release":
            held.release()
        elif end == "fail":
            raise ValueError("fails while it holds the lock")
        elif end == "continue":
            ctx.continue_as_new(False)
        return "ended"

    return holder


def _start_holding(run: ScenarioRun, holder: Any, version: str | None = None) -> str:
    instance = run.schedule(holder, True, version=version)
    run.wait_until(lambda: run.state(instance).get_custom_status() == "holds", "an instance to get the lock")
    return instance


def _check_free(run: ScenarioRun, holder: Any, version: str | None = None) -> None:
    """Check that another instance gets the lock."""
    instance = _start_holding(run, holder, version)
    run.client.raise_orchestration_event(instance, "go")
    run.wait(instance, status=None)


@scenario(time_factor=2)
def exclusion(run: ScenarioRun) -> None:
    """Of six workflows that lock an entity, one at a time is inside, and all get their turn."""
    (entity,) = _entities(run)
    inside: list[str] = []
    overlaps: list[list[str]] = []

    @run.activity
    async def work(ctx: ActivityContext, _: object) -> None:
        inside.append(ctx.orchestration_id)
        if len(inside) > 1:
            overlaps.append(list(inside))
        await asyncio.sleep(0.05)
        inside.remove(ctx.orchestration_id)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        for _ in range(2):
            async with ctx.lock_entities([entity]):
                await ctx.call_activity(work)

    run.start_worker()
    for each in [run.schedule(flow) for _ in range(6)]:
        run.wait(each)
    check_equal(overlaps, [], "instances that were inside at the same time")


@scenario(time_factor=2)
def two_entities(run: ScenarioRun) -> None:
    """Workflows that lock two entities in opposite orders do not block each other forever."""
    one, two = _entities(run, 2)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, forward: bool) -> None:
        for _ in range(3):
            async with ctx.lock_entities([one, two] if forward else [two, one]):
                await ctx.call_entity(one, "note", forward)
                await ctx.call_entity(two, "note", forward)

    run.start_worker()
    for each in [run.schedule(flow, bool(number % 2)) for number in range(6)]:
        run.wait(each)
    states = [run.entity_state(each) for each in (one, two)]
    check_equal([len(each) for each in states], [18, 18], "calls of the entities")
    check_equal(states[0], states[1], "the order of the calls of both")


@scenario()
def calls_inside(run: ScenarioRun) -> None:
    """The holder calls the locked entity; a call of another workflow is handled after the release."""
    (entity,) = _entities(run)

    @run.orchestrator
    async def holder(ctx: AsyncWorkflowContext) -> None:
        async with ctx.lock_entities([entity]):
            await ctx.call_entity(entity, "note", "first of the holder")
            ctx.set_custom_status("holds")
            await ctx.wait_for_external_event("go")
            await ctx.call_entity(entity, "note", "second of the holder")

    @run.orchestrator
    async def other(ctx: AsyncWorkflowContext) -> list[str]:
        return list(await ctx.call_entity(entity, "note", "of the other"))

    run.start_worker()
    first = _start_holding(run, holder)
    second = run.schedule(other)
    run.check_stays(
        lambda: run.state(second).runtime_status is not OrchestrationStatus.COMPLETED,
        "the other's call was handled while the entity was locked",
        0.5,
    )
    run.client.raise_orchestration_event(first, "go")
    run.wait(first)
    found = run.wait(second).get_output()
    check_equal(found, ["first of the holder", "second of the holder", "of the other"], "order")


@scenario()
def signals_meanwhile(run: ScenarioRun) -> None:
    """Signals for a locked entity are kept, and handled in their order after the release."""
    (entity,) = _entities(run)
    holder = _holder(run, entity)
    run.start_worker()
    instance = _start_holding(run, holder)
    for number in range(5):
        run.client.signal_entity(entity, "note", number)

    def state() -> Any:
        return run.entity_state(entity)

    run.check_stays(lambda: not state(), "a signal was handled while the entity was locked", 0.5)
    run.client.raise_orchestration_event(instance, "go")
    run.wait_until(lambda: state() == [0, 1, 2, 3, 4], "the signals", state)


@scenario()
def holder_fails(run: ScenarioRun) -> None:
    """The lock of a holder that fails is released."""
    holder = _holder(run, *_entities(run), end="fail")
    run.start_worker()
    instance = _start_holding(run, holder)
    run.client.raise_orchestration_event(instance, "go")
    run.wait(instance, OrchestrationStatus.FAILED)
    _check_free(run, holder)


@scenario()
def holder_fails_without_its_code(run: ScenarioRun) -> None:
    """The lock of a holder that its worker fails, since it has another version, is released."""
    (entity,) = _entities(run)
    holder = _holder(run, entity)
    worker = run.start_worker()
    instance = _start_holding(run, holder, "1.0")
    worker.stop()
    of_any_version = WorkItemFilters(
        orchestrations=[OrchestrationWorkItemFilter(holder.__name__)], entities=[EntityWorkItemFilter(entity.entity)]
    )
    new_version = VersioningOptions(
        version="2.0", match_strategy=VersionMatchStrategy.STRICT, failure_strategy=VersionFailureStrategy.FAIL
    )
    run.start_worker(versioning=new_version, filters=of_any_version)
    run.client.raise_orchestration_event(instance, "go")
    run.wait(instance, OrchestrationStatus.FAILED)
    _check_free(run, holder, version="2.0")


@scenario()
def holder_returns(run: ScenarioRun) -> None:
    """The lock of a holder that returns without a release is released."""
    holder = _holder(run, *_entities(run), end="return")
    run.start_worker()
    instance = _start_holding(run, holder)
    run.client.raise_orchestration_event(instance, "go")
    run.wait(instance)
    _check_free(run, holder)


@scenario()
def holder_continues_as_new(run: ScenarioRun) -> None:
    """The lock of a holder that continues as new without a release is released."""
    holder = _holder(run, *_entities(run), end="continue")
    run.start_worker()
    instance = _start_holding(run, holder)
    run.client.raise_orchestration_event(instance, "go")
    check_equal(run.wait(instance).get_output(), "continued")
    _check_free(run, holder)


@scenario()
def holder_is_terminated(run: ScenarioRun) -> None:
    """The lock of a holder that is terminated is released."""
    holder = _holder(run, *_entities(run))
    run.start_worker()
    instance = _start_holding(run, holder)
    run.client.terminate_orchestration(instance)
    run.wait(instance, OrchestrationStatus.TERMINATED)
    _check_free(run, holder)


@scenario()
def holder_is_suspended(run: ScenarioRun) -> None:
    """A suspended holder keeps its lock, and releases it after it was resumed."""
    (entity,) = _entities(run)
    holder = _holder(run, entity)
    run.start_worker()
    first = _start_holding(run, holder)
    run.client.suspend_orchestration(first)
    run.wait_for_status(first, OrchestrationStatus.SUSPENDED)
    second = run.schedule(holder, True)
    run.check_stays(
        lambda: run.state(second).get_custom_status() is None, "another got the lock of the suspended holder", 0.5
    )
    run.client.resume_orchestration(first)
    run.client.raise_orchestration_event(first, "go")
    run.wait(first)
    run.wait_until(lambda: run.state(second).get_custom_status() == "holds", "the second holder")
    run.client.raise_orchestration_event(second, "go")
    run.wait(second)


@scenario(alone=True)
def cleaned_while_held(run: ScenarioRun) -> None:
    """Cleaning the storage of entities leaves the lock of an entity without state to its holder."""
    holder = _holder(run, *_entities(run))
    run.start_worker()
    first = _start_holding(run, holder)
    run.client.clean_entity_storage(remove_empty_entities=True, release_orphaned_locks=True)
    second = run.schedule(holder, True)
    run.check_stays(lambda: run.state(second).get_custom_status() is None, "another got the lock", 0.5)
    for each in (first, second):
        run.wait_until(lambda each=each: run.state(each).get_custom_status() == "holds", "the holder")  # type: ignore[misc]
        run.client.raise_orchestration_event(each, "go")
        run.wait(each)


@scenario()
def waiter_is_terminated(run: ScenarioRun) -> None:
    """A request for a lock ends with its instance; the next in the queue gets the lock."""
    holder = _holder(run, *_entities(run))
    run.start_worker()
    first = _start_holding(run, holder)
    second = run.schedule(holder, True)
    run.wait_for_status(second, OrchestrationStatus.RUNNING)
    third = run.schedule(holder, True)
    run.client.terminate_orchestration(second)
    run.wait(second, OrchestrationStatus.TERMINATED)
    run.client.raise_orchestration_event(first, "go")
    run.wait(first)
    run.wait_until(lambda: run.state(third).get_custom_status() == "holds", "the third to get the lock")
    check(run.state(second).get_custom_status() is None, "the terminated instance got the lock")
    run.client.raise_orchestration_event(third, "go")
    run.wait(third)
