"""The workflows of the tests that kill processes, and the worker process that runs them.

`python chaos_workflows.py ADDRESS LOG SECONDS SCALE` is a worker of the engine at ADDRESS.  Each run of an activity
appends a line to LOG; a slow activity takes SECONDS.  The pauses before it connects again are SCALE times the usual.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from durabletask.entities import EntityContext, EntityInstanceId
from durabletask.grpc_options import GrpcChannelOptions, GrpcWorkerResiliencyOptions

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.worker.activity_context import ActivityContext
from durabletask_aio.worker.worker import TaskHubGrpcWorker

STEP_SECONDS = 0.02
ACCOUNTS = 6
EVENTS = ("first", "second", "third")


class Run(NamedTuple):
    """One run of an activity.

    Attributes:
        key: of the activity, unique over all instances and executions.
        pid: the worker process.
        time: when it began.
    """

    key: str
    pid: int
    time: float


class Log:
    """The file that activities write to; one line is one `write`, which processes do not mix up."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def append(self, key: str) -> None:
        os.write(self._file, (json.dumps([key, os.getpid(), time.time()]) + "\n").encode())


def read_log(path: str) -> list[Run]:
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [Run(*json.loads(line)) for line in file]


# -- workflows: each returns what `EXPECTED` has for it ---------------------------------------------------------------


async def chain(ctx: AsyncWorkflowContext, _: None) -> int:
    value = 0
    for number in range(6):
        value = await ctx.call_activity("step", input=[f"{ctx.instance_id}/{number}", value])
    return value


async def fan_out(ctx: AsyncWorkflowContext, _: None) -> int:
    calls = [ctx.call_activity("step", input=[f"{ctx.instance_id}/{number}", number]) for number in range(8)]
    return sum(await ctx.when_all(calls))


async def timers(ctx: AsyncWorkflowContext, _: None) -> list[str]:
    found: list[str] = []
    for number in range(3):
        try:
            await asyncio.wait_for(ctx.wait_for_external_event("never"), 0.5)
        except asyncio.TimeoutError:
            found.append(f"timed out {number}")
        await ctx.sleep(0.5)
    return found


async def children(ctx: AsyncWorkflowContext, _: None) -> int:
    return sum(await asyncio.gather(*[ctx.call_sub_orchestrator(child, input=number) for number in range(3)]))


async def child(ctx: AsyncWorkflowContext, number: int) -> int:
    for step in range(2):
        number = await ctx.call_activity("step", input=[f"{ctx.instance_id}/{step}", number])
    return number


async def events(ctx: AsyncWorkflowContext, _: None) -> int:
    total = 0
    for name in EVENTS:
        total += await ctx.wait_for_external_event(name)
        total += await ctx.call_activity("step", input=[f"{ctx.instance_id}/{name}", 0])
    return total


async def transfer(ctx: AsyncWorkflowContext, number: int) -> str:
    payer, payee = account(number), account(number + 1)
    async with ctx.lock_entities([payer, payee]):
        await ctx.call_entity(payer, "add", -1)
        await ctx.call_entity(payee, "add", 1)
    await ctx.call_entity(COUNTER, "add", 1)
    return "transferred"


async def rounds(ctx: AsyncWorkflowContext, state: list[int]) -> Any:
    number, value = state
    value = await ctx.call_activity("step", input=[f"{ctx.instance_id}/{number}", value])
    if number < 3:
        ctx.continue_as_new([number + 1, value])
    return value


async def slow(ctx: AsyncWorkflowContext, _: None) -> int:
    calls = [ctx.call_activity("wait", input=f"{ctx.instance_id}/{number}") for number in range(2)]
    return sum(await ctx.when_all(calls))


COUNTER = EntityInstanceId("balance", "counter")


def account(number: int) -> EntityInstanceId:
    return EntityInstanceId("balance", f"account-{number % ACCOUNTS}")


def balance(ctx: EntityContext, amount: int) -> int:
    total = int(ctx.get_state(int, 0)) + amount
    ctx.set_state(total)
    return total


INPUTS: dict[str, Callable[[int], Any]] = {"transfer": lambda number: number, "rounds": lambda number: [0, 0]}

EXPECTED: dict[str, Any] = {
    "chain": 6,
    "fan_out": sum(range(1, 9)),
    "timers": ["timed out 0", "timed out 1", "timed out 2"],
    "children": 9,
    "events": 3 + 1 + 2 + 3,
    "transfer": "transferred",
    "rounds": 4,
    "slow": 2,
}


# -- the worker process -----------------------------------------------------------------------------------------------


def worker_of(address: str, log: Log, seconds: float, **options: Any) -> TaskHubGrpcWorker:
    def step(ctx: ActivityContext, arguments: list[Any]) -> int:
        key, value = arguments
        log.append(key)
        time.sleep(STEP_SECONDS)
        return int(value) + 1

    async def wait(ctx: ActivityContext, key: str) -> int:
        log.append(key)
        await asyncio.sleep(seconds)
        return 1

    worker = TaskHubGrpcWorker(host_address=address, **options)
    for workflow in (chain, fan_out, timers, children, child, events, transfer, rounds, slow):
        worker.add_orchestrator(workflow)
    worker.add_activity(step)
    worker.add_activity(wait)
    worker.add_entity(balance)
    return worker


def reconnecting(scale: float) -> dict[str, Any]:
    """The options of a worker whose pauses before it connects again are shorter."""
    if scale == 1:
        return {}
    pauses = [("initial", 1.0), ("min", 20.0), ("max", 120.0)]
    return {
        "resiliency_options": GrpcWorkerResiliencyOptions(
            reconnect_backoff_base_seconds=scale, reconnect_backoff_cap_seconds=30 * scale
        ),
        "channel_options": GrpcChannelOptions(
            raw_options=[(f"grpc.{name}_reconnect_backoff_ms", int(1000 * scale * pause)) for name, pause in pauses]
        ),
    }


def main() -> None:
    address, log, seconds, scale = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    logger = logging.getLogger("worker")
    options = reconnecting(float(scale))
    asyncio.run(worker_of(address, Log(log), float(seconds), logger=logger, **options).run())


if __name__ == "__main__":
    main()
