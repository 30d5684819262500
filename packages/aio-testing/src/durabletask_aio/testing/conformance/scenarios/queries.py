"""Reading instances: states, queries, ids, histories, waits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from durabletask.client import OrchestrationQuery, OrchestrationStatus
from durabletask.task import ActivityContext

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import UnexpectedOutcome, check, check_equal, check_once
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun


def _start_ten(run: ScenarioRun) -> list[str]:
    """Start ten instances, one after the other: the even ones complete, the odd ones wait."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, number: int) -> int:
        if number % 2:
            await ctx.wait_for_external_event("go")
        return number

    run.start_worker()
    ids: list[str] = []
    for number in range(10):
        ids.append(run.schedule(flow, number))
        if number % 2:
            run.wait_for_status(ids[-1], OrchestrationStatus.RUNNING)
        else:
            run.wait(ids[-1])
    return ids


def _find(run: ScenarioRun, **conditions: Any) -> list[str]:
    query = OrchestrationQuery(instance_id_prefix=run.prefix, **conditions)
    return [each.instance_id for each in run.mine(run.client.get_all_orchestration_states(query))]


@scenario()
def state(run: ScenarioRun) -> None:
    """The state of an instance has its name, times, input, output and status."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, value: str) -> str:
        await ctx.sleep(0.2)
        return value.upper()

    run.start_worker()
    instance = run.schedule(flow, "text")
    found = run.wait(instance)
    check_equal([found.instance_id, found.name], [instance, flow.__name__], "id and name")
    check_equal([found.get_input(), found.get_output()], ["text", "TEXT"], "input and output")
    check(found.created_at < found.last_updated_at, f"created {found.created_at}, updated {found.last_updated_at}")
    check_equal(run.client.get_orchestration_state(instance, fetch_payloads=False).serialized_output, None, "output")  # type: ignore[union-attr]


@scenario()
def missing(run: ScenarioRun) -> None:
    """The state of an instance that does not exist is `None`."""
    check_equal(run.client.get_orchestration_state(run.new_id()), None, "state")


@scenario()
def by_status(run: ScenarioRun) -> None:
    """A query by status finds the instances that have it."""
    ids = _start_ten(run)
    check_equal(sorted(_find(run)), sorted(ids), "all")
    check_equal(sorted(_find(run, runtime_status=[OrchestrationStatus.RUNNING])), sorted(ids[1::2]), "running")
    both = [OrchestrationStatus.RUNNING, OrchestrationStatus.COMPLETED]
    check_equal(sorted(_find(run, runtime_status=both)), sorted(ids), "running or completed")
    check_equal(_find(run, runtime_status=[OrchestrationStatus.FAILED]), [], "failed")


@scenario()
def by_prefix(run: ScenarioRun) -> None:
    """A query by the beginning of the id finds the instances that have it, and no others."""
    ids = _start_ten(run)
    states = run.client.get_all_orchestration_states(OrchestrationQuery(instance_id_prefix=ids[0]))
    found = sorted(each.instance_id for each in states)
    check_equal(found, sorted(each for each in ids if each.startswith(ids[0])), "instances")


@scenario()
def by_creation_time(run: ScenarioRun) -> None:
    """A query by time of creation finds the instances that were created then."""
    ids = _start_ten(run)
    times = [run.state(each).created_at for each in ids]
    check(times == sorted(times) and len(set(times)) == 10, f"the times of creation are {times}")
    found = _find(run, created_time_from=times[3], created_time_to=times[7])
    check(set(ids[4:7]) <= set(found) <= set(ids[3:8]), f"found {[run.short(each) for each in found]}")


@scenario()
def pages(run: ScenarioRun) -> None:
    """A query with pages of three finds each of ten instances once."""
    ids = _start_ten(run)
    found = _find(run, max_instance_count=3)
    check_once(found, ids, "instances")
    check_equal(sorted(found), sorted(ids), "instances")


@scenario()
def payloads(run: ScenarioRun) -> None:
    """A query brings inputs and outputs if it is asked for them."""
    _start_ten(run)
    for fetch in (False, True):
        query = OrchestrationQuery(
            instance_id_prefix=run.prefix,
            runtime_status=[OrchestrationStatus.COMPLETED],
            fetch_inputs_and_outputs=fetch,
        )
        states = run.mine(run.client.get_all_orchestration_states(query))
        check_equal({each.serialized_output is not None for each in states}, {fetch}, "states with an output")


@scenario()
def ids_by_completion(run: ScenarioRun) -> None:
    """Ids of ended instances are listed by the time of their end, in pages, and each once."""
    ids = _start_ten(run)
    began = run.state(ids[0]).created_at
    found = _list_ids(run, completed_time_from=began, page_size=2)
    check_once(found, ids[::2], "ids")
    check_equal(found, ids[::2], "ids")
    check_equal(_list_ids(run, completed_time_to=began), [], "ids of those that ended before they were created")
    failed = _list_ids(run, runtime_status=[OrchestrationStatus.FAILED], completed_time_from=began)
    check_equal(failed, [], "ids of those that failed")


def _list_ids(
    run: ScenarioRun,
    runtime_status: list[OrchestrationStatus] | None = None,
    completed_time_from: datetime | None = None,
    completed_time_to: datetime | None = None,
    page_size: int | None = None,
) -> list[str]:
    found: list[str] = []
    token: str | None = None
    seen: set[str] = set()
    while True:
        page = run.client.list_instance_ids(
            runtime_status=runtime_status,
            completed_time_from=completed_time_from,
            completed_time_to=completed_time_to,
            page_size=page_size,
            continuation_token=token,
        )
        found += [each for each in page.items if each.startswith(run.prefix)]
        token = page.continuation_token
        if not token:
            return found
        if token in seen:
            raise UnexpectedOutcome("the pages repeat")
        seen.add(token)


@scenario()
def history(run: ScenarioRun) -> None:
    """The history of an instance has its start, its steps and its end, in their order."""

    @run.activity
    def step(_: ActivityContext, number: int) -> int:
        return number

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> int:
        await ctx.sleep(0)
        return await ctx.call_activity(step, input=1)

    run.start_worker()
    instance = run.schedule(flow)
    run.wait(instance)
    events = [type(each).__name__ for each in run.client.get_orchestration_history(instance)]
    steps = [each for each in events if not each.startswith("Orchestrator")]
    expected = [
        "ExecutionStartedEvent",
        "TimerCreatedEvent",
        "TimerFiredEvent",
        "TaskScheduledEvent",
        "TaskCompletedEvent",
        "ExecutionCompletedEvent",
    ]
    check_equal(steps, expected, "events")


@scenario()
def wait_for_start(run: ScenarioRun) -> None:
    """Waiting for the start of an instance times out while there is no worker, and ends when it starts."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.wait_for_external_event("go")

    instance = run.schedule(flow)
    try:
        run.client.wait_for_orchestration_start(instance, timeout=0.5)
    except TimeoutError:
        pass
    else:
        raise UnexpectedOutcome("the wait ended before a worker was there")
    run.start_worker()
    found = run.client.wait_for_orchestration_start(instance, timeout=run.wait_timeout)
    check(found is not None and found.runtime_status is OrchestrationStatus.RUNNING, f"found {found}")


@scenario()
def waits_at_the_same_time(run: ScenarioRun) -> None:
    """Thirty clients that wait for one instance all see its end."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.wait_for_external_event("go")

    run.start_worker()
    instance = run.schedule(flow)
    with ThreadPoolExecutor(30) as threads:
        waiting = [threads.submit(run.wait, instance) for _ in range(30)]
        run.client.raise_orchestration_event(instance, "go", data=1)
        check_equal([each.result().get_output() for each in waiting], [1] * 30, "outputs")


@scenario()
def wait_times_out(run: ScenarioRun) -> None:
    """Waiting for an end that does not come times out, and the instance continues."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.wait_for_external_event("go")

    run.start_worker()
    instance = run.schedule(flow)
    try:
        run.client.wait_for_orchestration_completion(instance, timeout=0.5)
    except TimeoutError:
        pass
    else:
        raise UnexpectedOutcome("the wait ended before the instance did")
    run.client.raise_orchestration_event(instance, "go", data=1)
    check_equal(run.wait(instance).get_output(), 1)


@scenario()
def custom_status(run: ScenarioRun) -> None:
    """The custom status is seen while the instance runs, changes, and stays when it has ended."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> None:
        ctx.set_custom_status({"step": 1})
        await ctx.wait_for_external_event("go")
        ctx.set_custom_status("größe 尺寸")

    run.start_worker()
    instance = run.schedule(flow)
    run.wait_until(lambda: run.state(instance).get_custom_status() == {"step": 1}, "the first custom status")
    run.client.raise_orchestration_event(instance, "go")
    check_equal(run.wait(instance).get_custom_status(), "größe 尺寸", "custom status")
