"""Timers and the workflow's clock."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from durabletask.client import OrchestrationStatus
from durabletask.task import ActivityContext

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check, check_equal
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


@scenario()
def not_early(run: ScenarioRun) -> None:
    """A timer fires when it is due, by the workflow's clock, and not before."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[float]:
        before = ctx.now()
        await ctx.sleep(0.7)
        return [(ctx.now() - before).total_seconds()]

    (took,) = run.output(flow)
    check(0.7 <= took < 0.7 + run.wait_timeout, f"a timer of 0.7 s took {took:.3f} s")


@scenario()
def order(run: ScenarioRun) -> None:
    """Timers fire in the order in which they are due, not in the order of the calls."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        fired: list[int] = []
        timers = [ctx.sleep(0.3 * number) for number in (3, 1, 2)]
        for number, timer in zip((3, 1, 2), timers, strict=True):
            timer.add_done_callback(lambda _, number=number: fired.append(number))  # type: ignore[misc]
        await ctx.when_all(timers)
        return fired

    check_equal(run.output(flow), [1, 2, 3])


@scenario()
def due_at_once(run: ScenarioRun) -> None:
    """Timers of zero seconds, and those that are due in the past, fire at once."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        await ctx.sleep(0)
        await ctx.create_timer(datetime(2001, 1, 1, tzinfo=timezone.utc))
        await ctx.create_timer(ctx.now() - timedelta(days=1))
        return "done"

    check_equal(run.output(flow), "done")


@scenario()
def many_at_the_same_time(run: ScenarioRun) -> None:
    """A hundred timers that are due at the same moment all fire."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> int:
        due = ctx.now() + timedelta(seconds=0.3)
        return len(await ctx.when_all([ctx.create_timer(due) for _ in range(100)]))

    check_equal(run.output(flow), 100)


@scenario()
def abandoned(run: ScenarioRun) -> None:
    """A timer of an hour that lost a race delays neither the end nor the next instance of the same id."""

    @run.activity
    def quick(_: ActivityContext, number: int) -> int:
        return number

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, number: int) -> int:
        return await ctx.with_timeout(ctx.call_activity(quick, input=number), 3600)

    run.start_worker()
    instance = run.schedule(flow, 1)
    check_equal(run.wait(instance).get_output(), 1)
    run.client.purge_orchestration(instance)
    run.schedule(flow, 2, instance_id=instance)
    check_equal(run.wait(instance).get_output(), 2)


@scenario()
def far_away(run: ScenarioRun) -> None:
    """A timer that is due in fifty years waits, and its instance can be terminated."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        await ctx.sleep(timedelta(days=50 * 365))

    run.start_worker(maximum_timer_interval=None)
    instance = run.schedule(flow)
    run.wait_for_status(instance, OrchestrationStatus.RUNNING)
    run.check_stays(
        lambda: run.state(instance).runtime_status is OrchestrationStatus.RUNNING, "the timer fired at once", 0.5
    )
    run.client.terminate_orchestration(instance)
    run.wait(instance, OrchestrationStatus.TERMINATED)


@scenario()
def in_pieces(run: ScenarioRun) -> None:
    """A timer that the worker divides into shorter ones fires once, when it is due."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> float:
        before = ctx.now()
        await ctx.sleep(0.9)
        return (ctx.now() - before).total_seconds()

    run.start_worker(maximum_timer_interval=timedelta(seconds=0.2))
    took = run.output(flow)
    check(0.9 <= took < 0.9 + run.wait_timeout, f"a timer of 0.9 s took {took:.3f} s")


@scenario()
def clock(run: ScenarioRun) -> None:
    """The workflow's clock stands still within a turn, and goes forward from turn to turn."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[str]:
        times = [ctx.now(), ctx.now()]
        for _ in range(5):
            await ctx.sleep(0.02)
            times.append(ctx.now())
        return [each.isoformat() for each in times]

    times = [datetime.fromisoformat(each) for each in run.output(flow)]
    check_equal(times[0], times[1], "times within a turn")
    check(times[1:] == sorted(set(times[1:])), f"the times of the turns are {[str(each) for each in times[1:]]}")
    off = abs(datetime.now(timezone.utc) - times[-1])
    check(off < timedelta(seconds=60), f"the workflow's clock is {off} off")
