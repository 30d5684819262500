"""Versions, tags, and filters of work items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from durabletask.client import OrchestrationStatus
from durabletask.history import ExecutionStartedEvent
from durabletask.task import ActivityContext
from durabletask.worker import (
    OrchestrationWorkItemFilter,
    VersionFailureStrategy,
    VersioningOptions,
    VersionMatchStrategy,
    WorkItemFilters,
)

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check, check_equal
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun
from durabletask_aio.worker.metadata import to_tags


def _versioning(version: str, failure: VersionFailureStrategy) -> VersioningOptions:
    return VersioningOptions(
        version=version,
        default_version=version,
        match_strategy=VersionMatchStrategy.STRICT,
        failure_strategy=failure,
    )


def _of_any_version(flow: Callable[..., Any]) -> WorkItemFilters:
    """Return filters without a version, where those that a worker makes by itself would name its own."""
    return WorkItemFilters(orchestrations=[OrchestrationWorkItemFilter(flow.__name__)])


@scenario()
def of_instances(run: ScenarioRun) -> None:
    """A workflow knows the version that it was started with; a child has its own."""

    @run.orchestrator
    async def child(ctx: AsyncWorkflowContext) -> str | None:
        return ctx.version

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[str | None]:
        return [ctx.version, await ctx.call_sub_orchestrator(child, version="3.1")]

    run.start_worker()
    check_equal(run.wait(run.schedule(flow, version="2.0")).get_output(), ["2.0", "3.1"])
    check_equal(run.wait(run.schedule(child)).get_output(), None, "version of an instance without one")


@scenario()
def mismatch_fails(run: ScenarioRun) -> None:
    """A worker whose strategy is to fail fails an instance of another version."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str | None:
        return ctx.version

    run.start_worker(versioning=_versioning("1.0", VersionFailureStrategy.FAIL), filters=_of_any_version(flow))
    details = run.wait(run.schedule(flow, version="2.0"), OrchestrationStatus.FAILED).failure_details
    check(details is not None and details.error_type == "VersionMismatch", f"the failure is {details}")
    check_equal(run.wait(run.schedule(flow, version="1.0")).get_output(), "1.0")


@scenario()
def mismatch_is_rejected(run: ScenarioRun) -> None:
    """A worker whose strategy is to reject leaves an instance of another version to the worker that has it."""

    def make() -> Any:
        async def flow(ctx: AsyncWorkflowContext) -> list[str | None]:
            await ctx.sleep(0.01)
            return [ctx.version]

        return run.orchestrator(flow)

    old, new = make(), make()
    rejects = _of_any_version(old)
    run.start_worker(old, versioning=_versioning("1.0", VersionFailureStrategy.REJECT), filters=rejects)
    ids = {version: [run.schedule(old, version=version) for _ in range(3)] for version in ("1.0", "2.0")}
    for each in ids["1.0"]:
        check_equal(run.wait(each).get_output(), ["1.0"])
    run.check_stays(
        lambda: all(run.state(each).runtime_status is OrchestrationStatus.PENDING for each in ids["2.0"]),
        "an instance did not wait for a worker of its version",
        0.5,
    )
    run.start_worker(new, versioning=_versioning("2.0", VersionFailureStrategy.REJECT), filters=rejects)
    for each in ids["2.0"]:
        check_equal(run.wait(each).get_output(), ["2.0"])


@scenario()
def tags_of_instances(run: ScenarioRun) -> None:
    """The tags of an instance are in its history."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        pass

    run.start_worker()
    instance = run.schedule(flow, tags={"team": "größe", "empty": ""})
    run.wait(instance)
    events = run.client.get_orchestration_history(instance)
    (started,) = (each for each in events if isinstance(each, ExecutionStartedEvent))
    check_equal(started.tags, {"team": "größe", "empty": ""}, "tags")


@scenario()
def tags_of_activities(run: ScenarioRun) -> None:
    """The tags of a call reach the activity, and each attempt of it."""
    seen: list[object] = []

    @run.activity
    def look(ctx: ActivityContext, _: object) -> None:
        seen.append(getattr(ctx, "tags", None))

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        await ctx.call_activity(look, tags={"queue": "slow"})

    run.output(flow)
    check_equal(seen, [{"queue": "slow"}], "tags")


@scenario()
def metadata(run: ScenarioRun) -> None:
    """The metadata of a start reaches the workflow, its activities and its children."""

    @run.activity
    def look(ctx: ActivityContext, _: object) -> Any:
        return getattr(ctx, "metadata", None)

    @run.orchestrator
    async def child(ctx: AsyncWorkflowContext) -> dict[str, str] | None:
        return ctx.get_metadata()

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> list[Any]:
        return [ctx.get_metadata(), await ctx.call_activity(look), await ctx.call_sub_orchestrator(child)]

    check_equal(run.output(flow, tags=to_tags({"tenant": "acme"})), [{"tenant": "acme"}] * 3, "metadata")


@scenario()
def filters(run: ScenarioRun) -> None:
    """Workers that ask for their own work items get those, and no others."""
    ran: list[str] = []

    @run.activity
    def left(_: ActivityContext, number: int) -> int:
        ran.append("left")
        return number

    @run.activity
    def right(_: ActivityContext, number: int) -> int:
        ran.append("right")
        return number

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> int:
        calls = [ctx.call_activity(each, input=number) for number in range(10) for each in (left, right)]
        return sum(await ctx.when_all(calls))

    run.start_worker(left, flow, filtered=True)
    run.start_worker(right, filtered=True)
    check_equal(run.output(flow), 90)
    check_equal(sorted(ran), ["left"] * 10 + ["right"] * 10, "runs")


@scenario()
def filters_wait(run: ScenarioRun) -> None:
    """An activity that no connected worker asks for waits for one that does."""

    @run.activity
    def late(_: ActivityContext, number: int) -> int:
        return number

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> int:
        return await ctx.call_activity(late, input=1)

    run.start_worker(flow, filtered=True)
    instance = run.schedule(flow)
    run.wait_for_status(instance, OrchestrationStatus.RUNNING)
    run.check_stays(
        lambda: run.state(instance).runtime_status is OrchestrationStatus.RUNNING, "the activity did not wait", 0.5
    )
    run.start_worker(late, filtered=True)
    check_equal(run.wait(instance).get_output(), 1)
