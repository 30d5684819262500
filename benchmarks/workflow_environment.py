"""The workflow environment: how long virtual time takes, how fast steps are, and what it leaves behind.

    python benchmarks/workflow_environment.py days      # ten thousand virtual days, in milliseconds
    python benchmarks/workflow_environment.py steps     # steps a second, in process and through the gRPC engine
    python benchmarks/workflow_environment.py leaks     # a thousand environments opened and closed

Without an argument, all three: about twenty seconds.  `leaks` opens three times a thousand and ends with status 1
if a task, a thread or an environment is left, or if the last thousand add to the memory: upstream remembers the types
of some two thousand functions that were last registered, and until then memory does grow.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import resource
import sys
import threading
import time
import weakref
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from durabletask.client import OrchestrationStatus, TaskHubGrpcClient

from durabletask_aio.core.context import AsyncWorkflowContext
from durabletask_aio.testing import WorkflowEnvironment, local_backend
from durabletask_aio.worker.worker import TaskHubGrpcWorker

DAYS = 10_000
STEPS = 500
ENVIRONMENTS = 1_000

KIBIBYTES_PER_ENVIRONMENT = 1.0
"""More than this for each, on the average of the last thousand, and something of them is kept."""

QUIET = logging.Logger("quiet", level=logging.CRITICAL)  # noqa: LOG001 - not to be found by name


def increase(context: Any, value: int) -> int:
    return value + 1


async def increase_async(context: Any, value: int) -> int:
    return value + 1


async def one_sleep(ctx: AsyncWorkflowContext, days: int) -> None:
    await ctx.sleep(timedelta(days=days))


async def a_sleep_each_day(ctx: AsyncWorkflowContext, days: int) -> None:
    for _ in range(days):
        await ctx.sleep(timedelta(days=1))


async def sequence(ctx: AsyncWorkflowContext, steps: int) -> int:
    value = 0
    for _ in range(steps):
        value = await ctx.call_activity(increase_async, input=value)
    return value


async def small(ctx: AsyncWorkflowContext, value: int) -> int:
    await ctx.sleep(timedelta(days=1))
    value = await ctx.call_activity(increase, input=value)
    return await ctx.call_activity(increase_async, input=value)


async def left_waiting(ctx: AsyncWorkflowContext, _: None) -> None:
    await ctx.wait_for_external_event("never sent")


# Ten thousand days ---------------------------------------------------------------------------------------------


async def days() -> bool:
    for workflow in (one_sleep, a_sleep_each_day):
        began = time.perf_counter()
        async with WorkflowEnvironment(orchestrators=[workflow]) as env:
            start = env.now
            handle = await env.start(workflow, input=DAYS)
            await handle.result()
            assert env.now - start == timedelta(days=DAYS)
            turns = sum(event.HasField("orchestratorStarted") for event in handle.history.protobuf)
            ran = time.perf_counter() - began
        replayed = time.perf_counter() - began - ran
        name = workflow.__name__.replace("_", " ")
        print(
            f"{DAYS:,} virtual days, {name:<17} {ran * 1000:6.0f} ms in {turns:>6,} turns, "
            f"and {replayed * 1000:5.0f} ms to replay them at the end"
        )
    return True


# Steps a second ------------------------------------------------------------------------------------------------


async def steps() -> bool:
    async with WorkflowEnvironment(orchestrators=[sequence], activities=[increase_async], verify=False) as env:
        began = time.perf_counter()
        assert await env.execute(sequence, input=STEPS) == STEPS
        in_process = STEPS / (time.perf_counter() - began)
    over_grpc = STEPS / await asyncio.to_thread(_over_grpc)
    print(
        f"{STEPS:,} activities, one after the other: {in_process:6,.0f} a second in the environment, "
        f"{over_grpc:5,.0f} through the local gRPC engine: {in_process / over_grpc:.1f} times as many"
    )
    return True


def _over_grpc() -> float:
    with (
        local_backend() as engine,
        TaskHubGrpcWorker(host_address=engine.address, logger=QUIET) as worker,
        TaskHubGrpcClient(host_address=engine.address, logger=QUIET) as client,
    ):
        worker.add_orchestrator(sequence)
        worker.add_activity(increase_async)
        worker.start()
        for count in (10, STEPS):  # the first ones only to be connected
            began = time.perf_counter()
            instance_id = client.schedule_new_orchestration("sequence", input=count)
            state = client.wait_for_orchestration_completion(instance_id, timeout=600)
            assert state is not None
            assert state.runtime_status is OrchestrationStatus.COMPLETED
        return time.perf_counter() - began


# What is left behind -------------------------------------------------------------------------------------------


async def leaks() -> bool:
    environments: list[weakref.ref[WorkflowEnvironment]] = []
    environments.append(weakref.ref(await _open_and_close()))
    first = before = _left()
    last_kibibytes = 0.0
    for thousand in range(1, 4):
        began = time.perf_counter()
        environments += [weakref.ref(await _open_and_close()) for _ in range(ENVIRONMENTS)]
        seconds = time.perf_counter() - began
        now = _left()
        last_kibibytes = (now.memory - before.memory) / 1024
        alive = sum(each() is not None for each in environments)
        print(
            f"{thousand * ENVIRONMENTS:,} environments opened and closed, {seconds / ENVIRONMENTS * 1000:.1f} ms each; "
            f"left: {alive} environments, {now.tasks - first.tasks:+} tasks, {now.threads - first.threads:+} threads, "
            f"{(now.memory - first.memory) / 1024:+,.0f} KiB, of which these {last_kibibytes:+,.0f}"
        )
        before = now
    grew = last_kibibytes > KIBIBYTES_PER_ENVIRONMENT * ENVIRONMENTS
    return not alive and now.tasks <= first.tasks and now.threads <= first.threads and not grew


async def _open_and_close() -> WorkflowEnvironment:
    async with WorkflowEnvironment(orchestrators=[small, left_waiting], activities=[increase, increase_async]) as env:
        await env.start(left_waiting)
        assert await env.execute(small, input=1) == 3
    return env


class _Left(NamedTuple):
    tasks: int
    threads: int
    memory: int


def _left() -> _Left:
    gc.collect()
    return _Left(len(asyncio.all_tasks()), threading.active_count(), _resident_bytes())


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except FileNotFoundError:  # not Linux: the most it ever was, which grows with a leak as well
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


PARTS: dict[str, Callable[[], Any]] = {"days": days, "steps": steps, "leaks": leaks}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=list(PARTS), help="one of them (default: all)")
    arguments = parser.parse_args()
    parts = [arguments.part] if arguments.part else list(PARTS)
    failures = sum(not asyncio.run(PARTS[part]()) for part in parts)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
