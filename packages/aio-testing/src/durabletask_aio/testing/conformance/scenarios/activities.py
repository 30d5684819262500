"""Activities: inputs, results, failures, retries."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any

from durabletask.client import OrchestrationStatus
from durabletask.task import ActivityContext
from durabletask.worker import ActivityWorkItemFilter, OrchestrationWorkItemFilter, WorkItemFilters

from durabletask_aio.core import ActivityFailedError, AsyncWorkflowContext, RetryPolicy
from durabletask_aio.testing.conformance.outcomes import check, check_delivered, check_equal, check_once
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


def _retry(attempts: int, seconds: float = 0.05, backoff: float = 1.0) -> RetryPolicy:
    return RetryPolicy(
        first_retry_interval=timedelta(seconds=seconds),
        max_number_of_attempts=attempts,
        backoff_coefficient=backoff,
    )


@scenario()
def values(run: ScenarioRun) -> None:
    """Inputs and results arrive as they were sent: numbers, texts, lists, dictionaries, nothing."""
    sent: list[Any] = [0, -1.5, "", "text", [], [1, [2]], {"a": {"b": None}}, True, None]

    @run.activity
    def echo(_: ActivityContext, value: Any) -> Any:
        return value

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, values: list[Any]) -> list[Any]:
        return [await ctx.call_activity(echo, input=value) for value in values]

    check_equal(run.output(flow, sent), sent)


@scenario()
def sync_and_async(run: ScenarioRun) -> None:
    """Sync and async activities of one workflow run side by side."""

    @run.activity
    def blocking(_: ActivityContext, seconds: float) -> str:
        time.sleep(seconds)
        return "sync"

    @run.activity
    async def waiting(_: ActivityContext, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "async"

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[str]:
        return await ctx.when_all([ctx.call_activity(blocking, input=0.1), ctx.call_activity(waiting, input=0.1)])

    check_equal(run.output(flow), ["sync", "async"])


@scenario()
def failure(run: ScenarioRun) -> None:
    """An activity's exception reaches the workflow with its type, message and stack trace."""

    @run.activity
    def refuse(_: ActivityContext, amount: int) -> None:
        raise ValueError(f"cannot charge {amount}")

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[str | None]:
        try:
            await ctx.call_activity(refuse, input=7)
        except ActivityFailedError as error:
            return [error.details.error_type.rpartition(".")[2], error.details.message, error.details.stack_trace]
        return []

    kind, message, trace = run.output(flow)
    check_equal([kind, message], ["ValueError", "cannot charge 7"])
    check("raise ValueError" in (trace or ""), f"the stack trace is {trace!r}")


@scenario()
def uncaught_failure(run: ScenarioRun) -> None:
    """A failure that a workflow does not catch fails the instance, with the activity's message."""

    @run.activity
    def refuse(_: ActivityContext, amount: int) -> None:
        raise ValueError(f"cannot charge {amount}")

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        await ctx.call_activity(refuse, input=7)

    run.start_worker()
    details = run.wait(run.schedule(flow), OrchestrationStatus.FAILED).failure_details
    check(details is not None and "cannot charge 7" in details.message, f"the failure is {details}")


@scenario()
def unregistered(run: ScenarioRun) -> None:
    """A call of an activity that the worker does not have fails."""
    missing = f"{run.prefix}missing"

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        try:
            await ctx.call_activity(missing)
        except ActivityFailedError as error:
            return error.details.message
        return ""

    run.start_worker(
        filters=WorkItemFilters(
            orchestrations=[OrchestrationWorkItemFilter(flow.__name__)], activities=[ActivityWorkItemFilter(missing)]
        )
    )
    message = run.output(flow)
    check("missing" in message, f"the message is {message!r}")


@scenario()
def context(run: ScenarioRun) -> None:
    """An activity sees the id of its instance, and a task id of its own."""

    @run.activity
    def look(ctx: ActivityContext, _: object) -> list[Any]:
        return [ctx.orchestration_id, ctx.task_id]

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[Any]:
        return [ctx.instance_id, *await ctx.when_all([ctx.call_activity(look) for _ in range(3)])]

    instance, *seen = run.output(flow)
    check_equal([each for each, _ in seen], [instance] * 3, "ids of the instance")
    check_equal(len({number for _, number in seen}), 3, "different task ids")


@scenario()
def retry(run: ScenarioRun) -> None:
    """An activity with a retry policy runs until it succeeds, and not once more."""
    runs: list[int] = []

    @run.activity
    def flaky(_: ActivityContext, number: int) -> str:
        runs.append(number)
        if len(runs) < 3:
            raise ConnectionError("not yet")
        return "done"

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        return await ctx.call_activity(flaky, input=0, retry_policy=_retry(5))

    check_equal(run.output(flow), "done")
    check_delivered(runs, [0] * 3, "runs")


@scenario()
def retry_exhausted(run: ScenarioRun) -> None:
    """An activity that fails in every attempt of its policy fails with its last error."""
    runs: list[int] = []

    @run.activity
    def broken(_: ActivityContext, number: int) -> str:
        runs.append(number)
        raise ConnectionError(f"attempt {len(runs)}")

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        try:
            await ctx.call_activity(broken, input=0, retry_policy=_retry(3))
        except ActivityFailedError as error:
            return error.details.message
        return ""

    check_equal(run.output(flow), "attempt 3")
    check_delivered(runs, [0] * 3, "runs")


@scenario()
def retry_backoff(run: ScenarioRun) -> None:
    """The pauses between attempts grow by the coefficient of the policy."""
    began: list[float] = []

    @run.activity
    def broken(_: ActivityContext, __: object) -> None:
        began.append(time.monotonic())
        raise ConnectionError("down")

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        with suppress(ActivityFailedError):
            await ctx.call_activity(broken, retry_policy=_retry(3, seconds=0.3, backoff=3.0))

    run.output(flow)
    check_equal(len(began), 3, "runs")
    pauses = [after - before for before, after in pairwise(began)]
    check(pauses[0] >= 0.29 and pauses[1] >= 0.89, f"pauses of {pauses[0]:.2f} and {pauses[1]:.2f} s for 0.3 and 0.9")


@scenario()
def fan_out(run: ScenarioRun) -> None:
    """A hundred activities at once run once each, and their results come in the order of the calls."""
    runs: list[int] = []

    @run.activity
    async def square(_: ActivityContext, number: int) -> int:
        runs.append(number)
        await asyncio.sleep(0.01)
        return number * number

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, count: int) -> list[int]:
        return await ctx.when_all([ctx.call_activity(square, input=number) for number in range(count)])

    check_equal(run.output(flow, 100), [number * number for number in range(100)])
    check_once(runs, range(100))


@scenario()
def result_after_end(run: ScenarioRun) -> None:
    """The result of an activity that outlives its workflow changes nothing."""
    finished: list[bool] = []

    @run.activity
    def slow(_: ActivityContext, seconds: float) -> str:
        time.sleep(seconds)
        finished.append(True)
        return "late"

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        ctx.call_activity(slow, input=1.0)
        await ctx.sleep(0.1)
        return "early"

    run.start_worker()
    instance = run.schedule(flow)
    check_equal(run.wait(instance).get_output(), "early")
    run.wait_until(lambda: bool(finished), "the activity to end")
    run.check_stays(lambda: run.state(instance).get_output() == "early", "the instance changed after its end", 0.5)
    check_equal(run.state(instance).runtime_status, OrchestrationStatus.COMPLETED, "status")


@scenario(long_activity=True)
def long(run: ScenarioRun) -> None:
    """An activity that takes longer than the silence that workers accept runs once, and its result arrives."""
    runs: list[float] = []

    @run.activity
    async def slow(_: ActivityContext, seconds: float) -> str:
        runs.append(seconds)
        await asyncio.sleep(seconds)
        return "result"

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, seconds: float) -> str:
        return await ctx.call_activity(slow, input=seconds)

    run.start_worker()
    seconds = run.settings.long_activity
    state = run.wait(run.schedule(flow, seconds), extra_seconds=seconds)
    check_equal(state.get_output(), "result")
    check_once(runs, [seconds])
