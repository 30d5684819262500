"""The workloads of the comparisons on this project's engine.

python engine_program.py embedded|server FILE fsync|os
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.engine import Engine
from durabletask.aio.worker import TaskHubGrpcWorker
from durabletask.client import AsyncTaskHubGrpcClient
from peer_driver import STEPS_OF_MANY, Arrivals, check, obey

LIMIT = 600
arrivals = Arrivals()


async def step(ctx: Any, number: int) -> int:
    return number


async def chain(ctx: AsyncWorkflowContext, size: int) -> int:
    for number in range(size):
        await ctx.call_activity(step, input=number)
    return size


async def fan_out(ctx: AsyncWorkflowContext, size: int) -> int:
    return len(await asyncio.gather(*(ctx.call_activity(step, input=number) for number in range(size))))


async def compute(number: int) -> int:
    return number


def compute_sync(number: int) -> int:
    return number


async def steps(ctx: AsyncWorkflowContext, size: int) -> int:
    for number in range(size):
        await ctx.run(compute, number)
    return size


async def lazy_steps(ctx: AsyncWorkflowContext, size: int) -> int:
    for number in range(size):
        await ctx.run(compute, number, recorded="lazily")
    return size


async def lazy_sync_steps(ctx: AsyncWorkflowContext, size: int) -> int:
    for number in range(size):
        await ctx.run(compute_sync, number, recorded="lazily")
    return size


async def wait(ctx: AsyncWorkflowContext, _: None) -> Any:
    arrivals.arrived(ctx.instance_id)
    return await ctx.wait_for_external_event("go")


async def run(client: AsyncTaskHubGrpcClient, workflow: Any, size: int) -> None:
    instance_id = await client.schedule_new_orchestration(workflow, input=size)
    state = await client.wait_for_orchestration_completion(instance_id, timeout=LIMIT)
    check(state and state.serialized_output, str(size))


async def run_waits(client: AsyncTaskHubGrpcClient, size: int) -> None:
    arrivals.expect(size)
    ids = await asyncio.gather(*(client.schedule_new_orchestration("wait") for _ in range(size)))
    await arrivals.wait()
    await asyncio.gather(*(client.raise_orchestration_event(each, "go", data=1) for each in ids))
    states = await asyncio.gather(*(client.wait_for_orchestration_completion(each, timeout=LIMIT) for each in ids))
    check([state and state.serialized_output for state in states], ["1"] * size)


async def obey_with(client: AsyncTaskHubGrpcClient) -> None:
    async def many(size: int) -> None:
        await asyncio.gather(*(run(client, chain, STEPS_OF_MANY) for _ in range(size)))

    await obey(
        {
            "chain": lambda size: run(client, chain, size),
            "many": many,
            "fan-out": lambda size: run(client, fan_out, size),
            "waits": lambda size: run_waits(client, size),
            "steps": lambda size: run(client, steps, size),
            "lazy steps": lambda size: run(client, lazy_steps, size),
            "lazy sync steps": lambda size: run(client, lazy_sync_steps, size),
        }
    )


@asynccontextmanager
async def running(worker: TaskHubGrpcWorker) -> AsyncIterator[None]:
    for workflow in (chain, fan_out, wait, steps, lazy_steps, lazy_sync_steps):
        worker.add_orchestrator(workflow)
    worker.add_activity(step)
    async with worker:
        worker.start()
        yield


async def embedded(path: str, durability: Any, logger: logging.Logger) -> None:
    async with Engine(path, durability=durability) as engine, running(engine.worker(logger=logger)):
        await obey_with(engine.async_client(logger=logger))


@contextmanager
def serving(path: str, durability: str) -> Iterator[str]:
    program = str(Path(sys.executable).with_name("durabletask-aio"))
    command = [program, "serve", "--db", path, "--durability", durability]
    process = subprocess.Popen(
        [*command, "--port", "0", "--json", "--log-level", "warning"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["address"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def over_grpc(path: str, durability: str, logger: logging.Logger) -> None:
    with serving(path, durability) as address:
        client = AsyncTaskHubGrpcClient(host_address=address, logger=logger)
        async with running(TaskHubGrpcWorker(host_address=address, logger=logger)):
            await obey_with(client)
        await client.close()


def main() -> None:
    mode, path, durability = sys.argv[1:]
    logger = logging.Logger("quiet", level=logging.CRITICAL)  # noqa: LOG001 - not to be found by name
    if mode == "server":
        asyncio.run(over_grpc(path, durability, logger))
    else:
        asyncio.run(embedded(path, durability, logger))


if __name__ == "__main__":
    main()
