"""Random programs with steps, patches and requests among activities, timers, races and cancellations.

As a script it replays recorded instances, cut at every event, and prints a digest of each.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import pickle
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from replays import assert_replays, digest
from step_runners import StepsInRandomOrder
from turns import Instance

from durabletask_aio.core import StepFailedError, as_orchestrator
from durabletask_aio.core.replies import event_of

LEAVES = ["step", "step", "step", "failing", "activity", "timer", "patch", "request"]
NODES = ["sequence", "gather", "race", "cancel"]
KINDS = [LEAVES, [*LEAVES, *NODES, *NODES], [*LEAVES, *NODES, *NODES], NODES]
"""What a program is made of, by how deep it may still become."""
RECORDED = [None, None, None, "lazily", "now"]
REQUESTS = 6


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

        async def answer_one() -> None:
            try:
                request = await ctx.with_timeout(ctx.requests("approve").__anext__(), 1)
            except TimeoutError:
                seen.append("no request")
                return
            request.answer(seen)
            seen.append(request.data)

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
            elif kind == "request":
                await answer_one()
            elif ctx.patched(f"patch {random.randrange(3)}"):
                seen.append(await ctx.run(value, tag))

        async def node(depth: int, random: Random, tag: str) -> None:
            kind = random.choice(KINDS[depth])
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


def new_instance(seed: int) -> Instance:
    """Return the instance of a program, before its first turn."""
    return Instance(as_orchestrator(program(seed)), instance_id=f"program-{seed}", steps=StepsInRandomOrder(seed))


def run(seed: int) -> Instance:
    """Run a program to its end, with requests at random times."""
    random = Random(f"requests/{seed}")
    requests = [
        (random.uniform(0, 4), event_of("approve"), {"reply_to": f"reply-{number}", "data": number})
        for number in range(REQUESTS)
    ]
    return new_instance(seed).run({"echo": lambda value: value}, seed=seed, batch=3, events=requests)


def record(seeds: Iterable[int], file: Path) -> list[str]:
    """Run programs, and write what another process needs to replay them; returns a digest of each."""
    instances = {seed: run(seed) for seed in seeds}
    recorded = {
        seed: (instance.history, instance.cuts, instance.turns, instance.outcome)
        for seed, instance in instances.items()
    }
    file.write_bytes(pickle.dumps(recorded))
    return [digest(list(assert_replays(instance, seed=seed).values())) for seed, instance in instances.items()]


def main() -> None:
    logging.disable()  # Exceptions that are never retrieved are logged, as they should be.
    for seed, recorded in pickle.loads(Path(sys.argv[1]).read_bytes()).items():
        instance = new_instance(seed)
        instance.history, instance.cuts, instance.turns, instance.outcome = recorded
        print(digest(list(assert_replays(instance, seed=seed).values())))


if __name__ == "__main__":
    main()
