"""Random concurrent workflows are their own replay: cut at every event, at other addresses, under other hash seeds.

And they are the same on every Python: the digests below were made on one and hold on all.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import concurrent_programs
import pytest
from concurrent_programs import Program, digest
from durabletask.aio import as_orchestrator
from replays import assert_replays
from scale import seeds
from turns import Instance, canonical

from durabletask_aio.core.cancellation import CANCELLED_TYPE

DIGESTED = 150
DIGEST = "77a1ec82ad0cf4b2af407ae7b5a4671af1495d1a586824466f868bdbada326ae"
"""Of the portable programs 0 to 149, all turns of each: the same on CPython 3.10 to 3.14."""

FIRST_DIGESTS = [
    "81dc2a0aa72a17fa",
    "b0bd30514a8026d0",
    "7dd5595628a8c778",
    "87385023834de1f3",
    "b5ab040d01364e7a",
    "ce85d3ba02d69cdc",
    "b4ccbbed35f1bc60",
    "c3fcf7605908e0e1",
    "9b173765630b650a",
    "598ea8d01875aa19",
    "eaab11c2f4f36a2d",
    "ff47344eef8ce0c6",
    "679a90f560a8912b",
    "b1dbc1af830a20bc",
    "ad686d107497e8ab",
    "948948979645db98",
    "8809392a34d98a81",
    "ee2e499c262e9513",
    "058739a19f9130a0",
    "5342b576ce4f1515",
]
"""Of the first of them each, so that a difference can be looked for in a single program."""


def check(seed: int, *, portable: bool, cancelled: bool = False) -> Instance:
    program = Program(seed, portable=portable, cancelled=cancelled)
    instance = program.run()
    try:
        assert_replays(instance, seed=seed)
    except AssertionError as difference:
        raise AssertionError(f"{program!r}\n{difference}") from None
    return instance


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    # Their exceptions that are never retrieved are logged, as they should be.
    caplog.set_level("CRITICAL", logger="durabletask.aio")


@pytest.mark.parametrize("part", range(4))
def test_random_concurrent_programs_equal_their_replay_at_every_event(part: int):
    for seed in range(part * 5, part * 5 + 5):
        check(seed, portable=False)


def test_random_programs_that_are_cancelled_equal_their_replay_at_every_event():
    outcomes = [check(seed, portable=False, cancelled=True).outcome for seed in range(20)]

    kinds = [outcome.failureDetails.errorType for outcome in outcomes if outcome is not None]
    assert kinds.count(CANCELLED_TYPE) >= 5, "too few of them end as cancelled"
    assert kinds.count("") >= 2, "too few of them handle it"


@pytest.mark.slow
@pytest.mark.seeds
@pytest.mark.timeout(seeds(1800))
@pytest.mark.parametrize("part", range(4))
def test_many_random_programs_that_are_cancelled_equal_their_replay_at_every_event(part: int):
    size = seeds(15)
    for seed in range(5000 + part * size, 5000 + (part + 1) * size):
        check(seed, portable=False, cancelled=True)


@pytest.mark.slow
@pytest.mark.seeds
@pytest.mark.timeout(seeds(1800))
@pytest.mark.parametrize("part", range(10))
def test_many_random_concurrent_programs_equal_their_replay_at_every_event(part: int):
    events, size = 0, seeds(15)
    for seed in range(1000 + part * size, 1000 + (part + 1) * size):
        events += len(check(seed, portable=False).history)

    assert events > 300


@pytest.mark.parametrize("seed", range(20))
def test_a_random_concurrent_program_is_the_same_on_every_python(seed: int):
    assert digest(Program(seed, portable=True).run()) == FIRST_DIGESTS[seed]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_digest_of_many_random_concurrent_programs_holds_on_every_python():
    found = hashlib.sha256()
    for seed in range(DIGESTED):
        found.update(digest(Program(seed, portable=True).run()).encode())

    assert found.hexdigest() == DIGEST


@pytest.mark.parametrize("hash_seed", ["1", "31337"])
def test_random_concurrent_programs_do_not_depend_on_the_hash_seed(hash_seed: str):
    script = Path(concurrent_programs.__file__)
    process = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), "0", "20"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )

    assert process.returncode == 0, process.stderr
    assert process.stdout.split()[1::2] == FIRST_DIGESTS


def test_bare_coroutines_that_would_start_in_the_order_of_addresses_are_refused():
    async def program(ctx: Any, _: Any) -> Any:
        async def part(number: int) -> Any:
            return await ctx.call_activity("part", input=number)

        return [await each for each in asyncio.as_completed([part(number) for number in range(3)])]

    instance = Instance(as_orchestrator(program)).start()

    assert instance.failure.errorType == "durabletask.aio.NonDeterministicUseError"


def test_tasks_of_two_instances_hash_differently():
    # Or the one weak set with the tasks of the whole process would degrade to a list.
    hashes: list[set[int]] = []

    async def program(ctx: Any, _: Any) -> Any:
        hashes.append({hash(asyncio.create_task(asyncio.sleep(0))) for _ in range(100)})

    for number in range(3):
        Instance(as_orchestrator(program), instance_id=f"instance-{number}").start()

    assert len(set().union(*hashes)) == 300


def test_a_waiter_that_is_registered_while_its_event_is_delivered_misses_nothing():
    async def program(ctx: Any, _: Any) -> Any:
        return [await ctx.wait_for_external_event("go") for _ in range(3)]

    instance = Instance(as_orchestrator(program)).start()
    for number in range(3):
        instance.turn(instance.raised("go", number))

    assert instance.result == [0, 1, 2]
    assert_replays(instance)


def test_the_order_of_work_does_not_depend_on_how_events_are_batched():
    async def program(ctx: Any, _: Any) -> Any:
        log: list[Any] = []

        async def part(name: str) -> None:
            await ctx.call_activity(name)
            log.append(name)
            await asyncio.sleep(0)
            log.append(name.upper())
            await ctx.call_activity(name + "-next", input=log)

        await asyncio.gather(*map(part, "abc"))
        return log

    orchestrator = as_orchestrator(program)
    singly, together = Instance(orchestrator).start(), Instance(orchestrator).start()
    for step in (2, 3, 1):
        singly.turn(singly.completed(step))
    together.turn(*(together.completed(step) for step in (2, 3, 1)))

    def scheduled(instance: Instance) -> list[bytes]:
        return [action for turn in instance.turns[1:] for action in canonical(turn)]

    assert scheduled(together) == scheduled(singly)
    assert len(scheduled(singly)) == 3
