"""Payloads: nothing, other alphabets, and large ones up to and over the limit of four megabytes."""

from __future__ import annotations

from typing import Any

from durabletask.task import ActivityContext

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.testing.conformance.outcomes import check, check_equal
from durabletask_aio.testing.conformance.registry import scenario
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun

_MEGABYTE = 1 << 20

_OVER_THE_LIMIT = 5 * _MEGABYTE


def _echo(run: ScenarioRun) -> Any:
    """Register a workflow that passes its input through an activity, an event and the custom status."""

    @run.activity
    def echo(_: ActivityContext, value: Any) -> Any:
        return value

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, value: Any) -> Any:
        ctx.set_custom_status("waiting")
        event = await ctx.wait_for_external_event("value")
        ctx.set_custom_status(event)
        return [await ctx.call_activity(echo, input=value), event]

    return flow


def _check_echo(run: ScenarioRun, value: Any) -> None:
    flow = _echo(run)
    run.start_worker()
    instance = run.schedule(flow, value)
    run.client.raise_orchestration_event(instance, "value", data=value)
    state = run.wait(instance)
    # Not shown if it differs: it may be large.
    check(state.get_input() == value, "the input differs")
    check(state.get_output() == [value, value], "the result of the activity or the event differs")
    check(state.get_custom_status() == value, "the custom status differs")


def _small(run: ScenarioRun) -> Any:
    """Register a workflow that shows whether the worker still works."""

    @run.orchestrator
    async def small(ctx: AsyncWorkflowContext) -> str:
        return "small"

    return small


@scenario()
def nothing(run: ScenarioRun) -> None:
    """Empty payloads differ from none: empty texts, lists and dictionaries, zero, false, `None`."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, value: Any) -> Any:
        return value

    run.start_worker()
    values: list[Any] = ["", [], {}, 0, False, None]
    for value in values:
        state = run.wait(run.schedule(flow, value))
        check_equal([state.get_input(), state.get_output()], [value, value], "input and output")


@scenario()
def alphabets(run: ScenarioRun) -> None:
    """Texts in other alphabets, emoji, quotes, control characters and U+0000 arrive as they are."""
    _check_echo(run, "größe 尺寸 العربية \U0001f600 e\u0301 \"'\\ \n\t\x00\x1b \u2028")


@scenario()
def nested(run: ScenarioRun) -> None:
    """A payload that is nested two hundred levels deep arrives as it is."""
    value: list[Any] = []
    for _ in range(200):
        value = [value]
    _check_echo(run, value)


@scenario(time_factor=2)
def one_megabyte(run: ScenarioRun) -> None:
    """Inputs, results, events, outputs and custom status of a megabyte arrive as they are."""
    _check_echo(run, "x" * _MEGABYTE)


@scenario(time_factor=2)
def near_the_limit(run: ScenarioRun) -> None:
    """An input, and a result of an activity, of three and a half megabytes arrive as they are."""
    size = int(3.5 * _MEGABYTE)

    @run.activity
    def make(_: ActivityContext, count: int) -> str:
        return "y" * count

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, value: str) -> list[int]:
        return [len(value), len(await ctx.call_activity(make, input=size))]

    check_equal(run.output(flow, "x" * size), [size, size], "lengths")


@scenario()
def input_over_the_limit(run: ScenarioRun) -> None:
    """An input of five megabytes is refused, or arrives."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext, value: str) -> int:
        return len(value)

    run.start_worker()
    started: list[str] = []
    run.refused(lambda: started.append(run.schedule(flow, "x" * _OVER_THE_LIMIT)))
    for each in started:
        check_equal(run.wait(each).get_output(), _OVER_THE_LIMIT, "length")


@scenario()
def event_over_the_limit(run: ScenarioRun) -> None:
    """An event of five megabytes is refused, or arrives."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> int:
        return len(await ctx.wait_for_external_event("value"))

    run.start_worker()
    instance = run.schedule(flow)
    code = run.refused(lambda: run.client.raise_orchestration_event(instance, "value", data="x" * _OVER_THE_LIMIT))
    expected = _OVER_THE_LIMIT
    if code is not None:
        expected = 5
        run.client.raise_orchestration_event(instance, "value", data="small")
    check_equal(run.wait(instance).get_output(), expected, "length")


@scenario()
def result_over_the_limit(run: ScenarioRun) -> None:
    """A result of an activity of five megabytes arrives, or the call fails; the worker stays."""

    @run.activity
    def make(_: ActivityContext, count: int) -> str:
        return "y" * count

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> int:
        return len(await ctx.call_activity(make, input=_OVER_THE_LIMIT))

    small = _small(run)
    run.start_worker()
    state = run.wait(run.schedule(flow), status=None)
    if state.failure_details is None:
        check_equal(state.get_output(), _OVER_THE_LIMIT, "length")
    check_equal(run.output(small), "small", "a workflow afterwards")


@scenario()
def output_over_the_limit(run: ScenarioRun) -> None:
    """An output of five megabytes arrives, or the instance fails; the worker stays."""

    @run.orchestrator
    async def flow(ctx: AsyncWorkflowContext) -> str:
        return "y" * _OVER_THE_LIMIT

    small = _small(run)
    run.start_worker()
    state = run.wait(run.schedule(flow), status=None)
    if state.failure_details is None:
        check_equal(len(state.get_output()), _OVER_THE_LIMIT, "length")
    check_equal(run.output(small), "small", "a workflow afterwards")
