"""Purging instances."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from durabletask.client import OrchestrationStatus

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check, check_equal
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


def _exists(run: ScenarioRun, instance: str) -> bool:
    return run.client.get_orchestration_state(instance) is not None


@scenario()
def single(run: ScenarioRun) -> None:
    """A purged instance is gone, and counted."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        return "done"

    run.start_worker()
    instance = run.schedule(flow)
    run.wait(instance)
    check_equal(run.client.purge_orchestration(instance).deleted_instance_count, 1, "purged")
    check(not _exists(run, instance), "it is still there")


@scenario()
def missing(run: ScenarioRun) -> None:
    """Purging what does not exist purges nothing, or is refused."""
    purged: list[int] = []
    run.refused(lambda: purged.append(run.client.purge_orchestration(run.new_id()).deleted_instance_count))
    check(purged in ([], [0]), f"purged {purged}")


@scenario()
def running(run: ScenarioRun) -> None:
    """Purging an instance that runs purges nothing, or is refused, and the instance continues."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.wait_for_external_event("go")

    run.start_worker()
    instance = run.schedule(flow)
    run.wait_for_status(instance, OrchestrationStatus.RUNNING)
    purged: list[int] = []
    run.refused(lambda: purged.append(run.client.purge_orchestration(instance).deleted_instance_count))
    check(purged in ([], [0]), f"purged {purged}")
    run.client.raise_orchestration_event(instance, "go", data=1)
    check_equal(run.wait(instance).get_output(), 1)


@scenario()
def id_used_again(run: ScenarioRun) -> None:
    """The id of a purged instance can be used again; its history and status are new."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, number: int) -> int:
        if number == 1:
            ctx.set_custom_status("first")
            raise ValueError("the first fails")
        return number

    run.start_worker()
    instance = run.schedule(flow, 1)
    run.wait(instance, OrchestrationStatus.FAILED)
    run.client.purge_orchestration(instance)
    run.schedule(flow, 2, instance_id=instance)
    state = run.wait(instance)
    check_equal([state.get_output(), state.get_custom_status(), state.failure_details], [2, None, None])


def _family(run: ScenarioRun) -> list[str]:
    """Run a parent with two children, one of which has a child; returns their ids, the parent's first."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, children: dict[str, Any]) -> None:
        for instance, grandchildren in children.items():
            await ctx.call_sub_orchestrator(flow, input=grandchildren, instance_id=instance)

    ids = [run.new_id(f"-{name}") for name in ("parent", "child", "grandchild", "other-child")]
    run.start_worker()
    run.schedule(flow, {ids[1]: {ids[2]: {}}, ids[3]: {}}, instance_id=ids[0])
    run.wait(ids[0])
    return ids


@scenario()
def recursive(run: ScenarioRun) -> None:
    """A recursive purge removes children and grandchildren."""
    ids = _family(run)
    run.client.purge_orchestration(ids[0], recursive=True)
    left = [run.short(each) for each in ids if _exists(run, each)]
    check_equal(left, [], "instances that are left")


@scenario()
def not_recursive(run: ScenarioRun) -> None:
    """A purge that is not recursive leaves the children."""
    ids = _family(run)
    run.client.purge_orchestration(ids[0], recursive=False)
    check_equal([_exists(run, each) for each in ids], [False, True, True, True], "instances that exist")


@scenario(alone=True)
def by_filter(run: ScenarioRun) -> None:
    """A purge by status and time of creation removes what fits both, and nothing else."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.wait_for_external_event("go")

    run.start_worker()
    before, terminated, completed, running, after = (run.schedule(flow) for _ in range(5))
    for each in (before, terminated, after):
        run.client.terminate_orchestration(each)
        run.wait(each, OrchestrationStatus.TERMINATED)
    run.client.raise_orchestration_event(completed, "go")
    run.wait(completed)
    found = run.client.purge_orchestrations_by(
        created_time_from=run.state(terminated).created_at,
        created_time_to=run.state(after).created_at,
        runtime_status=[OrchestrationStatus.TERMINATED],
        timeout=timedelta(seconds=30),
    )
    check_equal(found.deleted_instance_count, 1, "purged")
    check(found.is_complete is not False, "the purge is not complete")
    exists = [_exists(run, each) for each in (before, terminated, completed, running, after)]
    check_equal(exists, [True, False, True, True, True], "instances that exist")
