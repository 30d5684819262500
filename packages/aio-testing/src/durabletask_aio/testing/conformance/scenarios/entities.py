"""Entities: operations, signals, state."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

from durabletask.client import EntityQuery
from durabletask.entities import DurableEntity, EntityContext, EntityInstanceId

from durabletask_aio.core import ActivityFailedError, AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import Hangs, check, check_delivered, check_equal
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


def _counter(run: ScenarioRun) -> EntityInstanceId:
    """Register an entity that adds numbers, and return the id of one."""

    @run.entity
    class Counter(DurableEntity):
        def add(self, amount: int) -> int:
            self.set_state(self.get_state(int, 0) + amount)
            return self.get_state(int, 0)

        def fail(self, amount: int) -> None:
            self.set_state(1000)
            raise ValueError(f"cannot add {amount}")

        def get(self, _: object = None) -> int:
            return self.get_state(int, 0)

    return run.entity_id(Counter)


def _wait_for_state(run: ScenarioRun, entity: EntityInstanceId, expected: object) -> None:
    run.wait_until(
        lambda: run.entity_state(entity) == expected,
        f"the entity's state {expected!r}",
        lambda: run.entity_state(entity),
    )


@scenario()
def call(run: ScenarioRun) -> None:
    """A workflow calls operations of an entity; the state is kept between the calls."""
    counter = _counter(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        return [await ctx.call_entity(counter, "add", number) for number in (1, 2, 3)]

    check_equal(run.output(flow), [1, 3, 6])
    check_equal(run.entity_state(counter), 6, "state")


@scenario()
def signals_of_a_workflow(run: ScenarioRun) -> None:
    """Signals of a workflow, and a call after them, are handled in their order."""
    counter = _counter(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> int:
        for number in (1, 2, 3):
            ctx.signal_entity(counter, "add", number)
        return int(await ctx.call_entity(counter, "get"))

    check_equal(run.output(flow), 6)


@scenario()
def signals_of_a_client(run: ScenarioRun) -> None:
    """A hundred signals of a client are handled once each, and in their order."""

    @run.entity
    def log(ctx: EntityContext, number: int) -> None:
        ctx.set_state([*ctx.get_state(list, []), number])

    entity = run.entity_id(log)
    run.start_worker()
    for number in range(100):
        run.client.signal_entity(entity, "note", number)

    def found() -> list[int]:
        return run.entity_state(entity) or []

    try:
        run.wait_until(lambda: len(found()) >= 100, "a hundred signals")
    except Hangs:
        check_delivered(found(), range(100), "signals")
        raise
    check_delivered(found(), range(100), "signals")


@scenario()
def delayed_signal(run: ScenarioRun) -> None:
    """A signal with a time is handled when it is due, and not before."""

    @run.entity
    def clock(ctx: EntityContext, _: object) -> None:
        ctx.set_state([*ctx.get_state(list, []), time.time()])

    entity = run.entity_id(clock)
    run.start_worker()
    due = datetime.now(timezone.utc) + timedelta(seconds=1)
    run.client.signal_entity(entity, "note", signal_time=due)
    run.client.signal_entity(entity, "note")
    run.wait_until(lambda: len(run.entity_state(entity) or []) == 2, "both signals")
    first, second = run.entity_state(entity)
    check(
        first < due.timestamp() <= second,
        f"handled {first - due.timestamp():.2f} and {second - due.timestamp():.2f} s after it was due",
    )


@scenario()
def delayed_signal_of_a_workflow(run: ScenarioRun) -> None:
    """A workflow's signal with a time is handled after those without one that it sends later."""

    @run.entity
    def log(ctx: EntityContext, name: str) -> None:
        ctx.set_state([*ctx.get_state(list, []), name])

    entity = run.entity_id(log)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        ctx.signal_entity(entity, "note", "later", signal_time=ctx.now() + timedelta(seconds=1))
        ctx.signal_entity(entity, "note", "now")

    run.output(flow)
    _wait_for_state(run, entity, ["now", "later"])


@scenario()
def failure(run: ScenarioRun) -> None:
    """A call of an operation that fails fails with its message; the state stays, and the entity works."""
    counter = _counter(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[Any]:
        found: list[Any] = [await ctx.call_entity(counter, "add", 5)]
        try:
            await ctx.call_entity(counter, "fail", 7)
        except ActivityFailedError as error:
            found.append(error.details.message)
        return [*found, await ctx.call_entity(counter, "add", 1)]

    first, message, second = run.output(flow)
    check_equal([first, second], [5, 6])
    check("cannot add 7" in message, f"the message is {message!r}")


@scenario()
def missing_operation(run: ScenarioRun) -> None:
    """A call of an operation that the entity does not have fails, and names it."""
    counter = _counter(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        try:
            await ctx.call_entity(counter, "subtract", 1)
        except ActivityFailedError as error:
            return error.details.message
        return ""

    message = run.output(flow)
    check("subtract" in message, f"the message is {message!r}")


@scenario()
def at_the_same_time(run: ScenarioRun) -> None:
    """Twenty workflows that add to one entity at the same time lose nothing."""
    counter = _counter(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        for _ in range(5):
            await ctx.call_entity(counter, "add", 1)

    run.start_worker()
    for each in [run.schedule(flow) for _ in range(20)]:
        run.wait(each)
    check_equal(run.entity_state(counter), 100, "state")


@scenario()
def many_entities(run: ScenarioRun) -> None:
    """A workflow calls fifty entities at once."""

    @run.entity
    def cell(ctx: EntityContext, number: int) -> int:
        ctx.set_state(number)
        return number

    ids = [run.entity_id(cell, f"key-{number}") for number in range(50)]

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        calls = [ctx.call_entity(each, "set", number, return_type=int) for number, each in enumerate(ids)]
        return await ctx.when_all(calls)

    check_equal(run.output(flow), list(range(50)))
    query = EntityQuery(instance_id_starts_with=f"@{ids[0].entity}@", page_size=20)
    found = {str(each.id): each.get_typed_state() for each in run.client.get_all_entities(query)}
    check_equal(found, {str(each): number for number, each in enumerate(ids)}, "entities that a query finds")


@scenario()
def signals_another(run: ScenarioRun) -> None:
    """An entity signals another one."""
    counter = _counter(run)

    @run.entity
    def relay(ctx: EntityContext, amount: int) -> None:
        ctx.signal_entity(counter, "add", amount)

    run.start_worker()
    run.client.signal_entity(run.entity_id(relay), "send", 7)
    _wait_for_state(run, counter, 7)


@scenario()
def starts_a_workflow(run: ScenarioRun) -> None:
    """An entity starts a workflow, with an id and an input."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, number: int) -> int:
        return number + 1

    @run.entity
    def starter(ctx: EntityContext, instance: str) -> None:
        ctx.schedule_new_orchestration(flow.__name__, 1, instance_id=instance)

    run.start_worker()
    instance = run.new_id()
    run.client.signal_entity(run.entity_id(starter), "start", instance)
    run.wait_until(lambda: run.client.get_orchestration_state(instance) is not None, "the workflow")
    check_equal(run.wait(instance).get_output(), 2)


@scenario()
def missing(run: ScenarioRun) -> None:
    """An entity without state does not exist for a client; with `include_state=False` it comes without state."""
    counter = _counter(run)
    run.start_worker()
    check_equal(run.client.get_entity(counter), None, "entity")
    run.client.signal_entity(counter, "add", 1)
    _wait_for_state(run, counter, 1)
    found = run.client.get_entity(counter, include_state=False)
    check(found is not None and not found.includes_state, f"found {found}")


@scenario()
def deleted(run: ScenarioRun) -> None:
    """The state of a deleted entity is gone, and it starts over when it is called again."""
    counter = _counter(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        found = [await ctx.call_entity(counter, "add", 5)]
        await ctx.call_entity(counter, "delete")
        return [*found, await ctx.call_entity(counter, "add", 1)]

    check_equal(run.output(flow), [5, 1])
