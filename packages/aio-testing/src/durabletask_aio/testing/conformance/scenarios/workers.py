"""Workers: several of them, limits, and workers that are stopped or killed."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from pathlib import Path

from durabletask.client import OrchestrationStatus
from durabletask.task import ActivityContext
from durabletask.worker import ConcurrencyOptions

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check, check_delivered, check_equal, check_once
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun
from durabletask_aio.testing.conformance.worker_process import FOLDER_VARIABLE


def _first_time(place: str) -> bool:
    """Return whether this is the first process that comes here."""
    try:
        Path(os.environ[FOLDER_VARIABLE], place).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _block() -> None:
    time.sleep(3600)


def step_activity(_: ActivityContext, number: int) -> int:
    """Return the next number; the first process never returns from number 1."""
    with Path(os.environ[FOLDER_VARIABLE], "runs").open("a") as runs:
        runs.write(f"{number}\n")
    if number == 1 and _first_time("in-activity"):
        _block()
    return number + 1


async def three_steps(ctx: AsyncWorkflowContext) -> int:
    """Run three activities."""
    number: int = 0
    for _ in range(3):
        number = await ctx.call_activity(f"{ctx.workflow_name.removesuffix('three_steps')}step_activity", input=number)
    return number


def plain_activity(_: ActivityContext, number: int) -> int:
    """Return the next number."""
    with Path(os.environ[FOLDER_VARIABLE], "runs").open("a") as runs:
        runs.write(f"{number}\n")
    return number + 1


async def blocked_turn(ctx: AsyncWorkflowContext) -> int:
    """Run two activities; the first process never ends the turn between them."""
    activity = f"{ctx.workflow_name.removesuffix('blocked_turn')}plain_activity"
    number: int = await ctx.call_activity(activity, input=0)
    if _first_time("in-turn"):
        _block()
    number += await ctx.call_activity(activity, input=number)
    return number


def _runs(run: ScenarioRun) -> list[int]:
    return [int(line) for line in (run.folder / "runs").read_text().split()]


@scenario(time_factor=2)
def killed_in_an_activity(run: ScenarioRun) -> None:
    """An activity whose worker is killed runs again on another one, and nothing else does."""
    first = run.start_worker_process(three_steps, step_activity)
    instance = run.schedule(run.prefix + "three_steps")
    run.wait_until((run.folder / "in-activity").exists, "the activity")
    first.kill()
    run.start_worker_process(three_steps, step_activity)
    check_equal(run.wait(instance).get_output(), 3)
    check_delivered(_runs(run), [0, 1, 1, 2], "runs")


@scenario(time_factor=2)
def killed_in_a_turn(run: ScenarioRun) -> None:
    """A turn whose worker is killed is given to another one; activities do not run again."""
    first = run.start_worker_process(blocked_turn, plain_activity)
    instance = run.schedule(run.prefix + "blocked_turn")
    run.wait_until((run.folder / "in-turn").exists, "the turn")
    first.kill()
    run.start_worker_process(blocked_turn, plain_activity)
    check_equal(run.wait(instance).get_output(), 3)
    check_delivered(_runs(run), [0, 1], "runs")


@scenario()
def two_share(run: ScenarioRun) -> None:
    """Two workers with a limit of one activity each share twenty of them, and run each once."""
    runs: list[tuple[str, int]] = []

    def worker(name: str) -> None:
        @run.activity
        async def step(_: ActivityContext, number: int) -> int:
            runs.append((name, number))
            await asyncio.sleep(0.1)
            return number

        @run.orchestrator
        async def flow(ctx: AsyncWorkflowContext, activity: str) -> int:
            return len(await ctx.when_all([ctx.call_activity(activity, input=number) for number in range(20)]))

        run.start_worker(flow, step, concurrency=ConcurrencyOptions(maximum_concurrent_activity_work_items=1))

    worker("first")
    worker("second")
    check_equal(run.wait(run.schedule(run.prefix + "flow", run.prefix + "step")).get_output(), 20)
    check_once([number for _, number in runs], range(20))
    shares = Counter(name for name, _ in runs)
    check(min(shares["first"], shares["second"]) >= 5, f"their shares are {dict(shares)}")


@scenario()
def limit_is_kept(run: ScenarioRun) -> None:
    """A worker is not given more activities than it asks for; a worker that comes later gets the rest."""
    started: dict[str, list[int]] = {"small": [], "large": []}
    release = threading.Event()

    def worker(name: str, limit: int) -> None:
        @run.activity
        async def step(_: ActivityContext, number: int) -> int:
            started[name].append(number)
            while not release.is_set():
                await asyncio.sleep(0.01)
            return number

        @run.orchestrator
        async def flow(ctx: AsyncWorkflowContext, activity: str) -> int:
            return len(await ctx.when_all([ctx.call_activity(activity, input=number) for number in range(10)]))

        run.start_worker(flow, step, concurrency=ConcurrencyOptions(maximum_concurrent_activity_work_items=limit))

    worker("small", 2)
    instance = run.schedule(run.prefix + "flow", run.prefix + "step")
    run.wait_until(lambda: len(started["small"]) == 2, "two activities on the first worker")
    worker("large", 20)
    try:
        run.wait_until(
            lambda: len(started["large"]) == 8, "eight activities on the second worker", lambda: len(started["large"])
        )
    finally:
        release.set()
    check_equal(run.wait(instance).get_output(), 10)
    check_once(started["small"] + started["large"], range(10))


@scenario()
def stopped_and_started(run: ScenarioRun) -> None:
    """A worker that is stopped delivers the activity that it runs; another one continues from there."""
    runs: list[int] = []

    @run.activity
    async def step(_: ActivityContext, number: int) -> int:
        runs.append(number)
        await asyncio.sleep(0.4)
        return number + 1

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> int:
        number = 0
        while number < 3:
            number = await ctx.call_activity(step, input=number)
        return number

    first = run.start_worker()
    instance = run.schedule(flow)
    run.wait_until(lambda: 1 in runs, "the second activity")
    first.stop()
    check_equal(run.state(instance).runtime_status, OrchestrationStatus.RUNNING, "status without a worker")
    run.start_worker()
    check_equal(run.wait(instance).get_output(), 3)
    check_delivered(runs, [0, 1, 2], "runs")


@scenario()
def none_for_a_while(run: ScenarioRun) -> None:
    """Timers and events that come while there is no worker are there when one comes."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        ctx.set_custom_status("waiting")
        await ctx.sleep(0.5)
        return [await ctx.wait_for_external_event("number") for _ in range(3)]

    first = run.start_worker()
    instance = run.schedule(flow)
    run.wait_until(lambda: run.state(instance).get_custom_status() == "waiting", "the workflow to wait")
    first.stop()
    for number in range(3):
        run.client.raise_orchestration_event(instance, "number", data=number)
    run.check_stays(
        lambda: run.state(instance).runtime_status is OrchestrationStatus.RUNNING, "it ended without a worker", 0.8
    )
    run.start_worker()
    check_delivered(run.wait(instance).get_output(), [0, 1, 2], "events")
