"""Starting instances: when, and under which id."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import grpc
from durabletask.client import OrchestrationStatus
from durabletask.task import ActivityContext
from durabletask.worker import OrchestrationWorkItemFilter, WorkItemFilters

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing._upstream import pb
from durabletask_aio.testing.conformance.outcomes import check, check_equal
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


def _replaces(*statuses: OrchestrationStatus) -> pb.OrchestrationIdReusePolicy:
    return pb.OrchestrationIdReusePolicy(replaceableStatus=[each.value for each in statuses])


@scenario()
def scheduled(run: ScenarioRun) -> None:
    """An instance that is scheduled for later is pending until then, and starts when it is due."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        return ctx.now().isoformat()

    run.start_worker()
    due = datetime.now(timezone.utc) + timedelta(seconds=1.5)
    instance = run.schedule(flow, start_at=due)
    run.check_stays(
        lambda: run.state(instance).runtime_status is OrchestrationStatus.PENDING, "it did not wait for its time", 0.8
    )
    started = datetime.fromisoformat(run.wait(instance).get_output())
    check(started >= due, f"it started at {started}, {(due - started).total_seconds():.2f} s before it was due")


@scenario()
def in_the_past(run: ScenarioRun) -> None:
    """An instance that is scheduled for a time in the past starts at once."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        return "done"

    run.start_worker()
    instance = run.schedule(flow, start_at=datetime.now(timezone.utc) - timedelta(hours=1))
    check_equal(run.wait(instance).get_output(), "done")


@scenario()
def many_scheduled(run: ScenarioRun) -> None:
    """Instances that are scheduled for different times start in the order of these times."""
    started: list[int] = []

    @run.activity
    def note(_: ActivityContext, number: int) -> None:
        started.append(number)

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, number: int) -> None:
        await ctx.call_activity(note, input=number)

    run.start_worker()
    now = datetime.now(timezone.utc)
    ids = [run.schedule(flow, number, start_at=now + timedelta(seconds=0.5 * number)) for number in (4, 2, 3)]
    for each in ids:
        run.wait(each)
    check_equal(started, [2, 3, 4], "order")


@scenario()
def ids(run: ScenarioRun) -> None:
    """Ids with spaces, other alphabets, punctuation and eighty characters work."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        return ctx.instance_id

    run.start_worker()
    for label in (" with spaces", "-größe-尺寸", "-:/?#[]@!$&'()*+,;=%20", "-" + "x" * 80):
        instance = run.schedule(flow, instance_id=run.new_id(label))
        check_equal(run.wait(instance).get_output(), instance, "id")


@scenario()
def unregistered(run: ScenarioRun) -> None:
    """An instance of a workflow that the worker does not have fails, and names it."""
    missing = f"{run.prefix}missing"
    run.start_worker(filters=WorkItemFilters(orchestrations=[OrchestrationWorkItemFilter(missing)]))
    details = run.wait(run.schedule(missing), OrchestrationStatus.FAILED).failure_details
    check(details is not None and missing in details.message, f"the failure is {details}")


@scenario()
def id_of_a_running_instance(run: ScenarioRun) -> None:
    """A start with the id of an instance that runs is refused with ALREADY_EXISTS, and changes nothing."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, name: str) -> list[Any]:
        return [name, await ctx.wait_for_external_event("go")]

    run.start_worker()
    instance = run.schedule(flow, "first")
    run.wait_for_status(instance, OrchestrationStatus.RUNNING)
    code = run.refused(lambda: run.schedule(flow, "second", instance_id=instance))
    check_equal(code, grpc.StatusCode.ALREADY_EXISTS, "code")
    run.client.raise_orchestration_event(instance, "go", data=1)
    check_equal(run.wait(instance).get_output(), ["first", 1])


@scenario()
def replaceable_id(run: ScenarioRun) -> None:
    """A start replaces an ended instance of the same id if the policy names its status."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, number: int) -> int:
        ctx.set_custom_status(number)
        return number

    run.start_worker()
    instance = run.schedule(flow, 1)
    run.wait(instance)
    policy = _replaces(OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED)
    run.schedule(flow, 2, instance_id=instance, reuse_id_policy=policy)
    state = run.wait(instance)
    check_equal([state.get_input(), state.get_output(), state.get_custom_status()], [2, 2, 2])


@scenario()
def id_that_is_not_replaceable(run: ScenarioRun) -> None:
    """A start with the id of an instance whose status the policy does not name is refused."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, number: int) -> int:
        return number

    run.start_worker()
    instance = run.schedule(flow, 1)
    run.wait(instance)
    policy = _replaces(OrchestrationStatus.FAILED, OrchestrationStatus.TERMINATED)
    code = run.refused(lambda: run.schedule(flow, 2, instance_id=instance, reuse_id_policy=policy))
    check_equal(code, grpc.StatusCode.ALREADY_EXISTS, "code")
    check_equal(run.wait(instance).get_output(), 1)


@scenario()
def replaced_while_it_runs(run: ScenarioRun) -> None:
    """A start that replaces a running instance ends it; nothing of the old one reaches the new one."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, seconds: float) -> float:
        before = ctx.now()
        await ctx.sleep(seconds)
        return (ctx.now() - before).total_seconds()

    run.start_worker()
    instance = run.schedule(flow, 0.8)
    run.wait_for_status(instance, OrchestrationStatus.RUNNING)
    policy = _replaces(OrchestrationStatus.RUNNING, OrchestrationStatus.PENDING)
    run.schedule(flow, 1.8, instance_id=instance, reuse_id_policy=policy)
    run.wait_until(lambda: run.state(instance).get_input() == 1.8, "the new instance")
    took = run.wait(instance).get_output()
    check(took >= 1.8, f"the new instance's timer of 1.8 s took {took:.2f} s")
