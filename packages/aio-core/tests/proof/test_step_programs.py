"""Random programs with steps and patches among activities, timers, races and cancellations equal their own replay."""

from __future__ import annotations

import asyncio
import itertools
from random import Random
from typing import Any

import pytest
from replays import NoSteps, assert_replays
from scale import seeds
from step_runners import StepsInRandomOrder
from turns import Instance, execute

from durabletask_aio.core import StepFailedError, as_orchestrator

LEAVES = ["step", "step", "step", "failing", "activity", "timer", "patch"]
NODES = ["sequence", "gather", "race", "cancel"]
RECORDED = [None, None, None, "lazily", "now"]


def program(seed: int) -> Any:
    """Make a workflow; its structure depends on the seed, and what it does also on the results of its steps."""
    values = itertools.count()  # Each call has another result, as a clock: a step that runs again is noticed.

    def value(tag: str) -> list[Any]:
        return [tag, next(values)]

    async def async_value(tag: str) -> list[Any]:
        return value(tag)

    def failing(tag: str) -> None:
        raise KeyError(tag, next(values))

    async def workflow(ctx: Any) -> list[Any]:
        seen: list[Any] = []

        async def leaf(kind: str, random: Random, tag: str) -> None:
            if kind == "step":
                function: Any = random.choice([value, async_value])
                result = await ctx.run(function, tag, recorded=random.choice(RECORDED))
                seen.append(result)
                if result[1] % 3 == 0:
                    seen.append(await ctx.call_activity("echo", input=result))
            elif kind == "failing":
                try:
                    await ctx.run(failing, tag, recorded=random.choice(RECORDED))
                except StepFailedError as error:
                    seen.append(error.details.message)
            elif kind == "activity":
                seen.append(await ctx.call_activity("echo", input=tag))
            elif kind == "timer":
                await asyncio.sleep(random.choice([0, 1]))
            elif ctx.patched(f"patch {random.randrange(3)}"):
                seen.append(await ctx.run(value, tag))

        async def node(depth: int, random: Random, tag: str) -> None:
            kind = random.choice([*LEAVES, *NODES, *NODES] if depth else LEAVES)
            if kind in LEAVES:
                await leaf(kind, random, tag)
                return
            parts = [(depth - 1, Random(f"{tag}{seed}{part}"), f"{tag}{part}") for part in range(random.choice([2, 3]))]
            if kind == "sequence":
                for part in parts:
                    await node(*part)
                return
            tasks = [asyncio.create_task(node(*part)) for part in parts]
            if kind == "race":
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                seen.append([number for number, task in enumerate(tasks) if task in done])
            elif kind == "cancel":
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=kind == "cancel")
            seen.append([type(each).__name__ for each in ended])

        await node(3, Random(seed), "n")
        return seen

    return workflow


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_random_programs_with_steps_equal_their_replay(first: int):
    for seed in range(first, first + seeds(10)):
        instance = Instance(
            as_orchestrator(program(seed)), instance_id=f"program-{seed}", steps=StepsInRandomOrder(seed)
        )
        instance.run({"echo": lambda value: value}, seed=seed, batch=3)
        assert instance.result is not None
        assert_replays(instance, seed=seed)
        # What is committed needs none of its steps again, whatever comes next.
        for end in instance.cuts[1:]:
            begin = instance.batch_begin(end)
            execute(instance, instance.history[:begin], instance.batch(), runner=NoSteps())
