"""Instances that run at the same time, in several threads or inside of another loop, share nothing."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from concurrent_programs import Program
from durabletask.aio import as_orchestrator
from replays import Answer, assert_replays, digest
from turns import Instance, canonical

THREADS = 4


@pytest.fixture
def hasty_switches() -> Any:
    """Threads take turns every few bytecodes, so that what can be torn apart is."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def thread_state() -> tuple[Any, ...]:
    return asyncio._get_running_loop(), *sys.get_asyncgen_hooks()


async def busy(ctx: Any, number: int) -> Any:
    loop, thread = asyncio.get_running_loop(), threading.get_ident()
    seen = []

    async def numbers() -> Any:
        for each in range(3):
            yield await ctx.call_activity("number", input=[number, each])

    async def part(name: int) -> Any:
        values = [value async for value in numbers()]
        await asyncio.sleep(name + 1)
        return [name, values, ctx.random().random(), str(ctx.uuid4()), asyncio.current_task().get_name()]

    for _ in range(3):
        seen.append(await asyncio.gather(*(part(each) for each in range(3))))
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task().get_name() == "busy"
    assert threading.get_ident() == thread
    return [ctx.instance_id, loop.time(), seen]


@pytest.mark.not_replayed("there are many of one kind, which are compared here; one of them is replayed below")
def test_instances_in_four_threads_do_what_they_do_alone(hasty_switches: None):
    orchestrator = as_orchestrator(busy)

    def run(number: int) -> list[list[bytes]]:
        instance = Instance(orchestrator, number, instance_id=f"threaded-{number}").run(latency=0.5)
        assert instance.result[0] == f"threaded-{number}"
        return [canonical(turn) for turn in instance.turns]

    alone = [run(number) for number in range(6)]
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(run, [*range(6)] * 3))

    assert together == alone * 3


def test_one_of_these_is_its_own_replay():
    Instance(as_orchestrator(busy), 1, instance_id="threaded-1").run(latency=0.5)  # the conftest replays it


@pytest.mark.not_replayed("test_concurrent_programs.py replays these; here they are compared with themselves")
def test_random_programs_in_four_threads_do_what_they_do_alone(hasty_switches: None):
    programs = [Program(seed, portable=True) for seed in range(12)]

    def run(program: Program) -> list[list[bytes]]:
        return [canonical(turn) for turn in program.run().turns]

    alone = [run(program) for program in programs]
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(run, programs))

    assert together == alone


def test_a_thread_is_left_as_it_was_found():
    def hook(generator: Any) -> None:
        """A hook of other code."""

    def check() -> None:
        sys.set_asyncgen_hooks(hook, hook)
        before = thread_state()
        instance = Instance(as_orchestrator(busy), 1)
        instance.start()
        assert thread_state() == before
        assert instance.run().result
        assert thread_state() == before
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(check).result()


def test_a_workflow_that_fails_leaves_its_thread_as_it_was_found():
    async def fails(ctx: Any, _: Any) -> Any:
        await asyncio.sleep(1)
        raise ValueError("no")

    before = thread_state()
    instance = Instance(as_orchestrator(fails)).run()

    assert instance.failure.errorType == "builtins.ValueError"
    assert thread_state() == before


async def test_a_workflow_runs_inside_of_another_loop_of_the_same_thread():
    outer_loop, outer_task = asyncio.get_running_loop(), asyncio.current_task()
    inside = []

    async def inner(ctx: Any, _: Any) -> Any:
        inside.append((asyncio.get_running_loop() is outer_loop, asyncio.current_task() is outer_task))
        await asyncio.sleep(5)
        return [each.get_name() for each in asyncio.all_tasks()]

    instance = Instance(as_orchestrator(inner)).start()
    assert asyncio.get_running_loop() is outer_loop
    assert asyncio.current_task() is outer_task
    await asyncio.sleep(0)
    instance.run()

    assert instance.result == ["inner"]
    assert inside == [(False, False)] * len(instance.turns)
    assert asyncio.get_running_loop() is outer_loop
    assert asyncio.current_task() is outer_task


def test_a_workflow_that_runs_another_one_in_the_middle_of_its_own_turn_is_not_confused():
    """As a test environment in one process might, or a collection that closes one run while another is stepped."""

    async def inner(ctx: Any, _: Any) -> Any:
        return [str(ctx.uuid4()), await asyncio.gather(asyncio.sleep(1, "slept"), ctx.call_activity("a", input="b"))]

    alone = Instance(as_orchestrator(inner), instance_id="inner").run().result

    async def outer(ctx: Any, _: Any) -> Any:
        loop = asyncio.get_running_loop()
        before = ctx.random().random()
        nested = Instance(as_orchestrator(inner), instance_id="inner").run().result
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task().get_name() == "outer"
        await asyncio.sleep(1)
        return [before, nested, ctx.random().random()]

    instance = Instance(as_orchestrator(outer)).run()

    assert instance.result[1] == alone
    assert_replays(instance)


def test_an_instance_whose_turns_are_taken_by_different_threads_goes_on_as_if_by_one():
    one_thread = Instance(as_orchestrator(busy), 7).run(latency=0.5)
    moved = Instance(as_orchestrator(busy), 7)
    pools = [ThreadPoolExecutor(1) for _ in range(THREADS)]
    original = moved.turn
    taken = 0

    def elsewhere(*events: Any, **options: Any) -> Any:
        nonlocal taken
        taken += 1
        return pools[taken % THREADS].submit(original, *events, **options).result()

    moved.turn = elsewhere  # type: ignore[method-assign]
    moved.run(latency=0.5)
    for pool in pools:
        pool.shutdown()

    def moments(instance: Instance) -> str:
        return digest([Answer(canonical(turn), None) for turn in instance.turns])

    assert taken > THREADS
    assert moments(moved) == moments(one_thread)
