"""What a request to a running workflow takes, compared with an activity: `ask` of a handle, on the embedded engine.

    python benchmarks/asking.py [--count 300] [--rounds 5] [--durability fsync]

Engine, worker and client are in one process, and the database in a file.  Rounds of requests, one after another, and
of a workflow that calls as many activities alternate.  Printed are the medians of wall time and CPU time for one, in
milliseconds.  Exits with 1 if a request takes more CPU time than `LIMIT` activities.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.client import AsyncWorkflowClient
from durabletask.aio.engine import Engine
from durabletask.task import ActivityContext

LIMIT = 6.0
"""How many activities a request may take, in CPU time."""

QUIET = logging.Logger("quiet", level=logging.CRITICAL)  # noqa: LOG001 - not to be found by name


async def echo(ctx: AsyncWorkflowContext) -> None:
    """Answer requests with what they send; ends with the request `None`."""
    async for request in ctx.requests("echo"):
        request.answer(request.data)
        if request.data is None:
            return


def nothing(ctx: ActivityContext, number: int) -> int:
    """Return the input."""
    return number


async def chain(ctx: AsyncWorkflowContext, count: int) -> None:
    """Call activities one after another."""
    for number in range(count):
        await ctx.call_activity(nothing, input=number)


async def measured(work: Callable[[], Awaitable[Any]], count: int) -> tuple[float, float]:
    """Return the wall time and the CPU time of each of `count` parts, in milliseconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    return (time.perf_counter() - wall) / count * 1e3, (time.process_time() - cpu) / count * 1e3


async def main() -> int:
    """Measure, print and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--durability", default="os", choices=["os", "fsync"])
    options = parser.parse_args()
    count = options.count
    results: dict[str, list[tuple[float, float]]] = {"request": [], "activity": []}
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder) / "engine.db", durability=options.durability)
        async with engine, engine.worker(logger=QUIET) as worker:
            worker.add_orchestrators(echo, chain)
            worker.add_activities(nothing)
            worker.start()
            client = AsyncWorkflowClient(engine.async_client(logger=QUIET))

            async def requests() -> None:
                handle = await client.start(echo)
                for number in range(count):
                    assert await handle.ask("echo", number) == number
                await handle.ask("echo")

            async def activities() -> None:
                await (await client.start(chain, input=count)).result()

            for _ in range(options.rounds):
                results["request"].append(await measured(requests, count))
                results["activity"].append(await measured(activities, count))
    medians = {what: [statistics.median(each) for each in zip(*times, strict=True)] for what, times in results.items()}
    for what, (wall, cpu) in medians.items():
        print(f"{what:<10} {wall:6.2f} ms wall  {cpu:6.2f} ms CPU")
    ratio = medians["request"][1] / medians["activity"][1]
    print(f"a request takes the CPU time of {ratio:.2f} activities; the limit is {LIMIT}")
    return ratio > LIMIT


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
