"""A workflow with `await` emits, at every turn, the very actions of the same workflow with `yield`."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

import pytest
from durabletask import task
from durabletask.aio import as_orchestrator
from durabletask.entities import EntityInstanceId
from durabletask.internal import orchestrator_service_pb2 as pb
from scale import seeds
from turns import CONTINUED, Instance
from twins import Captured, TwinEngine, assert_same_turns, twins

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

PROGRAMS = seeds(1000)


def check(random: Random) -> list[Instance]:
    """Run a random program as a generator, and let its async equivalent answer each of the turns."""
    pair = twins(random)
    engine = TwinEngine(random, pair)
    generator = Captured(pair.generator)
    executions = engine.run_all(Instance(generator, 0, name="program", instance_id=f"twin-{random.randint(0, 99)}"))
    generator.close()
    for instance in executions:
        assert_same_turns(pair, instance)
    return executions


@hypothesis.settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(st.randoms(use_true_random=False))
def test_random_programs_act_alike_as_generators_and_as_coroutines(random: Random):
    check(random)


@pytest.mark.parametrize("part", range(4))
def test_the_first_random_programs_act_alike_as_generators_and_as_coroutines(part: int):
    for seed in range(part * 20, part * 20 + 20):
        check(Random(seed))


@pytest.mark.slow
@pytest.mark.seeds
@pytest.mark.timeout(seeds(900))
@pytest.mark.parametrize("part", range(10))
def test_a_thousand_random_programs_act_alike_as_generators_and_as_coroutines(part: int):
    size = PROGRAMS // 10
    for seed in range(part * size, (part + 1) * size):
        check(Random(seed))


# -- where the two differ on purpose ----------------------------------------------------------------------------------


def test_among_operations_done_before_the_race_upstream_takes_the_first_listed_and_we_the_first_done():
    def as_generator(ctx: Any, _: Any) -> Any:
        first, second = ctx.call_activity("slow"), ctx.call_activity("fast")
        yield task.when_all([first, second])
        race = [first, second]
        winner = yield task.when_any(race)
        return race.index(winner)

    async def as_coroutine(ctx: Any, _: Any) -> Any:
        first, second = ctx.call_activity("slow"), ctx.call_activity("fast")
        await ctx.when_all([first, second])
        index, _value = await ctx.when_any_with_result([first, second])
        return index

    results = []
    for orchestrator in (as_generator, as_orchestrator(as_coroutine)):
        instance = Instance(orchestrator).start()
        instance.turn(instance.completed(2))
        instance.turn(instance.completed(1))
        results.append(instance.result)

    assert results == [0, 1]


def test_nothing_to_wait_for_is_done_at_once_where_upstream_waits_for_ever():
    def as_generator(ctx: Any, _: Any) -> Any:
        return (yield task.when_all([]))

    async def as_coroutine(ctx: Any, _: Any) -> Any:
        return await ctx.when_all([])

    assert Instance(as_generator).start().outcome is None
    assert Instance(as_orchestrator(as_coroutine)).start().result == []


def test_an_exception_behind_continue_as_new_fails_the_instance_where_upstream_drops_it():
    def as_generator(ctx: Any, _: Any) -> Any:
        yield ctx.create_timer(timedelta(seconds=1))
        ctx.continue_as_new(1)
        raise ValueError("too late")

    async def as_coroutine(ctx: Any, _: Any) -> Any:
        await ctx.create_timer(timedelta(seconds=1))
        ctx.continue_as_new(1)
        raise ValueError("too late")

    theirs = Instance(as_generator).start()
    theirs.turn(theirs.fired(1))
    assert theirs.outcome is not None
    assert theirs.outcome.orchestrationStatus == CONTINUED

    ours = Instance(as_orchestrator(as_coroutine)).start()
    ours.turn(ours.fired(1))
    assert (ours.failure.errorType, ours.failure.errorMessage) == ("builtins.ValueError", "too late")


def test_scheduling_behind_continue_as_new_raises_where_upstream_schedules():
    async def as_coroutine(ctx: Any, _: Any) -> Any:
        ctx.continue_as_new(1)
        ctx.call_activity("late")

    instance = Instance(as_orchestrator(as_coroutine)).start()

    assert instance.failure.errorType == "durabletask.aio.AsyncWorkflowError"
    assert instance.failure.errorMessage.startswith(
        "ctx.call_activity after ctx.continue_as_new(), which was called at"
    )
    assert [action.id for action in instance.turns[0]] == [1]


def test_a_lock_left_with_a_call_outstanding_is_released_where_upstream_keeps_it():
    counter = EntityInstanceId("counter", "a")

    def as_generator(ctx: Any, _: Any) -> Any:
        with (yield ctx.lock_entities([counter])):
            ctx.call_entity(counter, "add", 1)
        yield ctx.create_timer(timedelta(seconds=1))

    async def as_coroutine(ctx: Any, _: Any) -> Any:
        async with ctx.lock_entities([counter]):
            ctx.call_entity(counter, "add", 1)
        await ctx.create_timer(timedelta(seconds=1))

    unlocked = []
    for orchestrator in (as_generator, as_orchestrator(as_coroutine)):
        instance = Instance(orchestrator).start()
        section = instance.outstanding[1].sendEntityMessage.entityLockRequested.criticalSectionId
        granted = pb.EntityLockGrantedEvent(criticalSectionId=section)
        actions = instance.turn(pb.HistoryEvent(eventId=-1, entityLockGranted=granted))
        unlocked.append([action.sendEntityMessage.HasField("entityUnlockSent") for action in actions])

    assert unlocked == [[False, False], [False, True, False]]


def test_the_text_of_a_caught_failure_says_more_than_upstreams():
    def as_generator(ctx: Any, _: Any) -> Any:
        try:
            yield ctx.call_activity("charge")
        except task.TaskFailedError as error:
            return str(error)

    async def as_coroutine(ctx: Any, _: Any) -> Any:
        try:
            await ctx.call_activity("charge")
        except task.TaskFailedError as error:
            return [str(error), str(error.task_error)]  # type: ignore[attr-defined]

    results = []
    for orchestrator in (as_generator, as_orchestrator(as_coroutine)):
        instance = Instance(orchestrator).start()
        instance.turn(instance.failed(1, ValueError("no funds")))
        results.append(instance.result)

    plain = "instance-1: Activity task #1 failed: no funds"
    assert results[0] == plain
    assert results[1][1] == plain
    assert results[1][0].startswith("activity 'charge' failed with builtins.ValueError: no funds")
