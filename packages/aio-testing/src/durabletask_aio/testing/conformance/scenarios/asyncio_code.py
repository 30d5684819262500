"""All of asyncio inside workflows."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from durabletask.task import ActivityContext

from durabletask_aio.core import ActivityFailedError, AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check, check_equal, check_once
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


def _double(run: ScenarioRun) -> Callable[[ActivityContext, int], int]:
    @run.activity
    def double(_: ActivityContext, number: int) -> int:
        if number < 0:
            raise ValueError("negative")
        return 2 * number

    return double


@scenario()
def gather(run: ScenarioRun) -> None:
    """`asyncio.gather` of activities returns their results in the order of the calls."""
    double = _double(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        return await asyncio.gather(*(ctx.call_activity(double, input=number) for number in range(5)))

    check_equal(run.output(flow), [0, 2, 4, 6, 8])


@scenario()
def gather_failure(run: ScenarioRun) -> None:
    """`asyncio.gather` raises the first failure, or returns it among the results."""
    double = _double(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[Any]:
        calls = [ctx.call_activity(double, input=number) for number in (1, -1, 2)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        try:
            await asyncio.gather(ctx.call_activity(double, input=-1), ctx.sleep(0))
        except ActivityFailedError as error:
            return [*(type(each).__name__ if isinstance(each, Exception) else each for each in found), str(error)]
        return found

    first, second, third, message = run.output(flow)
    check_equal([first, third], [2, 4])
    check("Error" in second and "negative" in message, f"the failures are {second!r} and {message!r}")


@scenario()
def wait_first_completed(run: ScenarioRun) -> None:
    """`asyncio.wait` with `FIRST_COMPLETED` returns when the first of several operations ends."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        short, long = ctx.sleep(0.05), ctx.wait_for_external_event("never")
        done, pending = await asyncio.wait([short, long], return_when=asyncio.FIRST_COMPLETED)
        long.cancel()
        return [len(done), len(pending), short in done]

    check_equal(run.output(flow), [1, 1, True])


@scenario()
def wait_timeout(run: ScenarioRun) -> None:
    """`asyncio.wait` with a timeout returns what has not ended as pending."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        never = ctx.wait_for_external_event("never")
        done, pending = await asyncio.wait([never], timeout=0.05)
        never.cancel()
        return [len(done), len(pending)]

    check_equal(run.output(flow), [0, 1])


@scenario()
def as_completed(run: ScenarioRun) -> None:
    """`asyncio.as_completed` yields operations in the order in which they end."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        async def after(number: int) -> int:
            await ctx.sleep(0.4 * number)
            return number

        tasks = [asyncio.create_task(after(number)) for number in (2, 0, 1)]
        return [await each for each in asyncio.as_completed(tasks)]

    check_equal(run.output(flow), [0, 1, 2])


@scenario()
def wait_for(run: ScenarioRun) -> None:
    """`asyncio.wait_for` raises `TimeoutError` when its time is over, and returns the result before."""
    double = _double(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[Any]:
        found: list[Any] = [await asyncio.wait_for(ctx.call_activity(double, input=1), 600)]
        try:
            await asyncio.wait_for(ctx.wait_for_external_event("never"), 0.05)
        except (TimeoutError, asyncio.TimeoutError):
            found.append("timeout")
        return found

    check_equal(run.output(flow), [2, "timeout"])


@scenario(python=(3, 11))
def timeout(run: ScenarioRun) -> None:
    """`asyncio.timeout` ends a block of several awaits."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[str]:
        found: list[str] = []
        if sys.version_info >= (3, 11):
            try:
                async with asyncio.timeout(0.2):
                    await ctx.sleep(0.01)
                    found.append("first")
                    await ctx.wait_for_external_event("never")
            except TimeoutError:
                found.append("timeout")
        return found

    check_equal(run.output(flow), ["first", "timeout"])


@scenario(python=(3, 11))
def task_group(run: ScenarioRun) -> None:
    """`asyncio.TaskGroup` waits for all of its tasks."""
    double = _double(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        found: list[int] = []
        if sys.version_info >= (3, 11):

            async def one(number: int) -> None:
                found.append(await ctx.call_activity(double, input=number))

            async with asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(one(number))
        return sorted(found)

    check_equal(run.output(flow), [0, 2, 4])


@scenario(python=(3, 11))
def task_group_failure(run: ScenarioRun) -> None:
    """A failure in an `asyncio.TaskGroup` cancels the other tasks."""
    double = _double(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[str]:
        found: list[str] = []
        if sys.version_info >= (3, 11):

            async def waits() -> None:
                try:
                    await ctx.wait_for_external_event("never")
                except asyncio.CancelledError:
                    found.append("cancelled")
                    raise

            async def fails() -> None:
                await ctx.call_activity(double, input=-1)

            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(waits())
                    group.create_task(fails())
            except Exception as error:
                found.append(type(error).__name__)
        return found

    check_equal(run.output(flow), ["cancelled", "ExceptionGroup"])


@scenario()
def queue(run: ScenarioRun) -> None:
    """A producer and two consumers with an `asyncio.Queue` handle every item once."""
    runs: list[int] = []

    @run.activity
    def handle(_: ActivityContext, number: int) -> int:
        runs.append(number)
        return number * number

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[int]:
        items: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
        found: list[int] = []

        async def consume() -> None:
            while True:
                found.append(await ctx.call_activity(handle, input=await items.get()))
                items.task_done()

        consumers = [asyncio.create_task(consume()) for _ in range(2)]
        for number in range(8):
            await items.put(number)
        await items.join()
        for each in consumers:
            each.cancel()
        return sorted(found)

    check_equal(run.output(flow), [number * number for number in range(8)])
    check_once(runs, range(8), "items handled")


@scenario()
def lock(run: ScenarioRun) -> None:
    """An `asyncio.Lock` lets one task at a time into a section with an await."""
    double = _double(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[str]:
        guard, log = asyncio.Lock(), list[str]()

        async def section(name: str) -> None:
            async with guard:
                log.append(f"{name} enters")
                await ctx.call_activity(double, input=1)
                log.append(f"{name} leaves")

        await asyncio.gather(section("a"), section("b"))
        return log

    check_equal(run.output(flow), ["a enters", "a leaves", "b enters", "b leaves"])


@scenario()
def semaphore(run: ScenarioRun) -> None:
    """An `asyncio.Semaphore` bounds how many activities are outstanding."""
    double = _double(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> int:
        places, now, most = asyncio.Semaphore(3), 0, 0

        async def one(number: int) -> None:
            nonlocal now, most
            async with places:
                now += 1
                most = max(most, now)
                await ctx.call_activity(double, input=number)
                now -= 1

        await asyncio.gather(*map(one, range(10)))
        return most

    check_equal(run.output(flow), 3)


@scenario()
def condition(run: ScenarioRun) -> None:
    """Tasks wait for each other with `asyncio.Event` and `asyncio.Condition`."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[str]:
        ready, changed, log = asyncio.Event(), asyncio.Condition(), list[str]()

        async def first() -> None:
            await ctx.sleep(0.02)
            log.append("first")
            ready.set()

        async def second() -> None:
            await ready.wait()
            await ctx.sleep(0.02)
            async with changed:
                log.append("second")
                changed.notify_all()

        async def third() -> None:
            async with changed:
                await changed.wait_for(lambda: len(log) == 2)
            log.append("third")

        await asyncio.gather(third(), second(), first())
        return log

    check_equal(run.output(flow), ["first", "second", "third"])


@scenario()
def cancel_task(run: ScenarioRun) -> None:
    """A cancelled task runs its `finally` block, which may call an activity."""
    double = _double(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[Any]:
        log: list[Any] = []

        async def waits() -> None:
            try:
                await ctx.wait_for_external_event("never")
            finally:
                log.append(await ctx.call_activity(double, input=21))

        task = asyncio.create_task(waits())
        await ctx.sleep(0.01)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            log.append("cancelled")
        return log

    check_equal(run.output(flow), [42, "cancelled"])


@scenario()
def shield(run: ScenarioRun) -> None:
    """`asyncio.shield` protects an activity from the timeout of the one who waits for it."""

    @run.activity
    async def slow(_: ActivityContext, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "result"

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[str]:
        call, log = ctx.call_activity(slow, input=1.0), list[str]()
        try:
            await asyncio.wait_for(asyncio.shield(call), 0.1)
        except (TimeoutError, asyncio.TimeoutError):
            log.append("timeout")
        return [*log, await call]

    check_equal(run.output(flow), ["timeout", "result"])


@scenario()
def generators_and_contexts(run: ScenarioRun) -> None:
    """Async generators, async context managers and context variables work across awaits."""
    double = _double(run)
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="none")

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[Any]:
        log: list[Any] = []

        @asynccontextmanager
        async def opened() -> AsyncIterator[None]:
            await ctx.call_activity(double, input=0)
            yield
            log.append("closed")

        async def numbers() -> AsyncIterator[int]:
            for number in (1, 2):
                yield await ctx.call_activity(double, input=number)

        async def named(name: str) -> str:
            tenant.set(name)
            await ctx.sleep(0.01)
            return tenant.get()

        async with opened():
            log += [number async for number in numbers()]
            log += await asyncio.gather(named("a"), named("b"))
        return [*log, tenant.get()]

    check_equal(run.output(flow), [2, 4, "a", "b", "closed", "none"])


@scenario()
def combinators(run: ScenarioRun) -> None:
    """`ctx.when_all`, `when_any` and `with_timeout` do what their names say."""
    double = _double(run)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[Any]:
        results: list[Any] = await ctx.when_all([ctx.call_activity(double, input=number) for number in (1, 2)])
        index, _ = await ctx.when_any_with_result([ctx.wait_for_external_event("never"), ctx.sleep(0.02)])
        try:
            await ctx.with_timeout(ctx.wait_for_external_event("never"), 0.02)
        except TimeoutError:
            return [*results, index, "timeout"]
        return results

    check_equal(run.output(flow), [2, 4, 1, "timeout"])


@scenario()
def replayed(run: ScenarioRun) -> None:
    """Random numbers, uuids and times are the same when every turn replays the whole history."""

    @run.activity
    def note(_: ActivityContext, values: list[Any]) -> list[Any]:
        return values

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> bool:
        drawn: list[Any] = []
        noted: list[Any] = []
        for _ in range(4):
            drawn.append([ctx.random().random(), str(ctx.uuid4()), ctx.now().isoformat()])
            noted.append(await ctx.call_activity(note, input=drawn[-1]))
            await ctx.sleep(0.01)
        return drawn == noted

    run.start_worker(max_extended_sessions=0)
    check_equal(run.output(flow), True, "drawn values equal those that were noted")


@scenario()
def deadlock(run: ScenarioRun) -> None:
    """A workflow that waits for something that cannot happen fails with `DeadlockError`."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        await ctx.sleep(0.01)
        await asyncio.get_running_loop().create_future()

    run.start_worker()
    state = run.wait(run.schedule(flow), status=None)
    check_equal(state.runtime_status.name, "FAILED", "status")
    details = state.failure_details
    check(details is not None and "Deadlock" in details.error_type, f"the failure is {details}")
