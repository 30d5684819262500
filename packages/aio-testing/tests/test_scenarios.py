"""Every scenario on three engines, as async workflow and as generator, with the same history.

The engines are the environment, the local engine and upstream's in-memory engine; a real worker and client connect to
the last two over gRPC.  Histories are compared event by event, without what differs between runs: times, ids made from
times, stack traces, the starts and ends of turns, and the order of results that came together.

The scenarios are in this order: sequences and results, failures, fan-outs, timers, races, events, retries,
sub-orchestrations, continue-as-new, suspending and resuming, terminating, entities and locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from durabletask.aio import ActivityFailedError, SubOrchestrationFailedError
from durabletask.aio.testing import History, WorkflowEnvironment, local_backend, replay
from durabletask.aio.worker import TaskHubGrpcWorker
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationStatus
from durabletask.entities import DurableEntity, EntityInstanceId
from durabletask.task import RetryPolicy, TaskFailedError, when_all, when_any
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend

SOON = timedelta(milliseconds=50)
LATE = timedelta(seconds=60)
RETRIES = RetryPolicy(first_retry_interval=SOON, max_number_of_attempts=3, backoff_coefficient=2)
WITHIN_AN_HOUR = RetryPolicy(first_retry_interval=SOON, max_number_of_attempts=2, retry_timeout=timedelta(hours=1))
README = Path(__file__).parents[1] / "README.md"
_numbers = itertools.count(1)


# What is called ------------------------------------------------------------------------------------------------

attempts: dict[tuple[str, int], int] = {}


def double(context, value):
    return value * 2


async def double_async(context, value):
    await asyncio.sleep(0)
    return value * 2


def echo(context, value):
    return value


def fail(context, message):
    raise ValueError(message)


def flaky(context, failures):
    key = (context.orchestration_id, context.task_id)
    attempts[key] = attempts.get(key, 0) + 1
    if attempts[key] <= failures:
        raise ValueError(f"attempt {attempts[key]}")
    return attempts[key]


def child(ctx, value):
    return (yield ctx.call_activity(double, input=value))


def child_fails(ctx, value):
    yield ctx.call_activity(fail, input=value)


def child_flaky(ctx, value):
    return (yield ctx.call_activity(flaky, input=0))


def grandparent_child(ctx, value):
    return (yield ctx.call_sub_orchestrator(child, input=value, instance_id=f"{ctx.instance_id}-in"))


def listener(ctx, _):
    return (yield ctx.wait_for_external_event("news"))


def countdown(ctx, left):
    yield ctx.call_activity(double, input=left)
    if left:
        ctx.continue_as_new(left - 1)
        return None
    return "counted down"


class Counter(DurableEntity):
    def add(self, amount: int):
        self.set_state(self.get_state(int, 0) + amount)
        return self.get_state(int)

    def get(self):
        return self.get_state(int, 0)

    def explode(self):
        raise RuntimeError("boom")


ACTIVITIES = [double, double_async, echo, fail, flaky]
CHILDREN = [child, child_fails, child_flaky, grandparent_child, listener, countdown]


def counter_of(ctx, suffix=""):
    return EntityInstanceId("Counter", ctx.instance_id + suffix)


# The table -----------------------------------------------------------------------------------------------------


@dataclass
class Scenario:
    name: str
    workflow: Callable[..., Any]
    generator: Callable[..., Any]
    input: Any
    drive: Callable[[Any, str], Any] | None
    """What a client does while the instance runs."""
    expected: OrchestrationStatus
    ordered: bool
    """Whether the order of events is compared."""
    also: list[str]
    """Suffixes of the ids of other instances whose histories are compared too."""
    alone: bool


SCENARIOS: dict[str, Scenario] = {}


def scenario(*, input=None, drive=None, expected=OrchestrationStatus.COMPLETED, ordered=True, also=(), alone=False):
    """Register a class with an `async def a` and a generator `g` that do the same.

    `alone` is for scenarios that measure seconds: they run after the others, when the machine is not busy.
    """

    def add(cls):
        name = cls.__name__
        workflow, generator = vars(cls)["a"], vars(cls)["g"]
        workflow.__name__, generator.__name__ = f"{name}_async", f"{name}_generator"
        SCENARIOS[name] = Scenario(name, workflow, generator, input, drive, expected, ordered, list(also), alone)
        return cls

    return add


def when_ready(*actions):
    """Do these actions one after the other once the workflow has set its custom status."""

    async def drive(host, instance_id):
        await host.until(instance_id, ready=True)
        await in_turn(host, instance_id, *actions)

    return drive


async def in_turn(host, instance_id, *actions):
    for action in actions:
        await action(host, instance_id)


def event(name, data=None):
    async def send(host, instance_id):
        await host.raise_event(instance_id, name, data)

    return send


def terminate(output=None):
    async def end(host, instance_id):
        await host.terminate(instance_id, output)

    return end


def says(status):
    """Wait until the custom status is this."""

    async def wait(host, instance_id):
        await host.until(instance_id, says=status)

    return wait


def time_passes(seconds):
    async def wait(host, instance_id):
        await host.pass_time(seconds)

    return wait


async def suspend(host, instance_id):
    await host.suspend(instance_id)


async def resume(host, instance_id):
    await host.resume(instance_id)


async def resumed(host, instance_id):
    await host.until(instance_id, status=OrchestrationStatus.RUNNING)


# Sequences and results -------------------------------------------------------------------------------------------


@scenario(input="in")
class returns_at_once:
    async def a(ctx, value):
        return value

    def g(ctx, value):
        return value
        yield


@scenario()
class returns_nothing:
    async def a(ctx):
        return None

    def g(ctx, _):
        return None
        yield


@scenario(input=4)
class one_activity:
    async def a(ctx: Any, value):
        return await ctx.call_activity(double, input=value)

    def g(ctx: Any, value):
        return (yield ctx.call_activity(double, input=value))


@scenario(input=4)
class one_async_activity:
    async def a(ctx: Any, value):
        return await ctx.call_activity(double_async, input=value)

    def g(ctx: Any, value):
        return (yield ctx.call_activity(double_async, input=value))


@scenario(input=1)
class sequence:
    async def a(ctx: Any, value):
        for _ in range(4):
            value = await ctx.call_activity(double, input=value)
        return value

    def g(ctx: Any, value):
        for _ in range(4):
            value = yield ctx.call_activity(double, input=value)
        return value


@scenario()
class activity_without_input_or_result:
    async def a(ctx: Any):
        return await ctx.call_activity(echo)

    def g(ctx: Any, _):
        return (yield ctx.call_activity(echo))


@scenario(input={"ü": ["né", None, 1.5, True, "x" * 5000]})
class payload:
    async def a(ctx: Any, value):
        return await ctx.call_activity(echo, input=value)

    def g(ctx: Any, value):
        return (yield ctx.call_activity(echo, input=value))


@scenario()
class custom_status:
    async def a(ctx: Any):
        ctx.set_custom_status({"step": 1})
        await ctx.call_activity(double, input=1)
        ctx.set_custom_status({"step": 2})

    def g(ctx: Any, _):
        ctx.set_custom_status({"step": 1})
        yield ctx.call_activity(double, input=1)
        ctx.set_custom_status({"step": 2})


# Failures --------------------------------------------------------------------------------------------------------


@scenario(expected=OrchestrationStatus.FAILED)
class activity_fails:
    async def a(ctx: Any):
        await ctx.call_activity(fail, input="no")

    def g(ctx: Any, _):
        yield ctx.call_activity(fail, input="no")


@scenario()
class activity_failure_is_caught:
    async def a(ctx: Any):
        try:
            await ctx.call_activity(fail, input="no")
        except ActivityFailedError:
            return await ctx.call_activity(double, input=1)

    def g(ctx: Any, _):
        try:
            yield ctx.call_activity(fail, input="no")
        except TaskFailedError:
            return (yield ctx.call_activity(double, input=1))


@scenario(expected=OrchestrationStatus.FAILED)
class activity_is_not_registered:
    async def a(ctx: Any):
        await ctx.call_activity("nobody")

    def g(ctx: Any, _):
        yield ctx.call_activity("nobody")


@scenario(expected=OrchestrationStatus.FAILED)
class workflow_raises:
    async def a(ctx: Any):
        await ctx.call_activity(double, input=1)
        raise LookupError("by itself")

    def g(ctx: Any, _):
        yield ctx.call_activity(double, input=1)
        raise LookupError("by itself")


@scenario(expected=OrchestrationStatus.FAILED)
class workflow_raises_at_once:
    async def a(ctx):
        raise LookupError("at once")

    def g(ctx, _):
        raise LookupError("at once")
        yield


@scenario(expected=OrchestrationStatus.FAILED)
class compensation:
    async def a(ctx: Any):
        await ctx.call_activity(echo, input="reserve")
        try:
            await ctx.call_activity(fail, input="no")
        except ActivityFailedError:
            await ctx.call_activity(echo, input="undo")
            raise

    def g(ctx: Any, _):
        yield ctx.call_activity(echo, input="reserve")
        try:
            yield ctx.call_activity(fail, input="no")
        except TaskFailedError:
            yield ctx.call_activity(echo, input="undo")
            raise


# Fan-outs --------------------------------------------------------------------------------------------------------


@scenario(ordered=False)
class fan_out:
    async def a(ctx: Any):
        return sum(await asyncio.gather(*(ctx.call_activity(double, input=n) for n in range(6))))

    def g(ctx: Any, _):
        return sum((yield when_all([ctx.call_activity(double, input=n) for n in range(6)])))


@scenario(ordered=False)
class fan_out_and_in_again:
    async def a(ctx: Any):
        parts = await ctx.when_all([ctx.call_activity(double, input=n) for n in range(3)])
        return await ctx.call_activity(echo, input=parts)

    def g(ctx: Any, _):
        parts = yield when_all([ctx.call_activity(double, input=n) for n in range(3)])
        return (yield ctx.call_activity(echo, input=parts))


@scenario()
class eager_start_and_two_awaits:
    async def a(ctx: Any):
        first, second = ctx.call_activity(double, input=1), ctx.create_timer(SOON * 4)
        return [await first, await second]

    def g(ctx: Any, _):
        first, second = ctx.call_activity(double, input=1), ctx.create_timer(SOON * 4)
        return [(yield first), (yield second)]


@scenario(expected=OrchestrationStatus.FAILED)
class one_of_several_fails:
    async def a(ctx: Any):
        done = ctx.call_activity(double, input=1)
        await done
        await ctx.when_all([done, ctx.call_activity(fail, input="no")])

    def g(ctx: Any, _):
        done = ctx.call_activity(double, input=1)
        yield done
        yield when_all([done, ctx.call_activity(fail, input="no")])


# Timers ----------------------------------------------------------------------------------------------------------


@scenario()
class timer:
    async def a(ctx: Any):
        await ctx.create_timer(SOON)

    def g(ctx: Any, _):
        yield ctx.create_timer(SOON)


@scenario()
class timer_of_no_length:
    async def a(ctx: Any):
        await ctx.create_timer(timedelta(0))
        return "on"

    def g(ctx: Any, _):
        yield ctx.create_timer(timedelta(0))
        return "on"


@scenario()
class timer_in_the_past:
    async def a(ctx: Any):
        await ctx.create_timer(ctx.current_utc_datetime - timedelta(hours=1))
        return "on"

    def g(ctx: Any, _):
        yield ctx.create_timer(ctx.current_utc_datetime - timedelta(hours=1))
        return "on"


@scenario()
class two_timers_in_sequence:
    async def a(ctx: Any):
        await ctx.sleep(SOON)
        await asyncio.sleep(SOON.total_seconds())
        return "slept"

    def g(ctx: Any, _):
        yield ctx.create_timer(SOON)
        yield ctx.create_timer(SOON)
        return "slept"


@scenario()
class two_timers_at_once:
    async def a(ctx: Any):
        await ctx.when_all([ctx.create_timer(SOON), ctx.create_timer(SOON * 6)])

    def g(ctx: Any, _):
        yield when_all([ctx.create_timer(SOON), ctx.create_timer(SOON * 6)])


# Races -----------------------------------------------------------------------------------------------------------


@scenario()
class timer_wins_against_event:
    async def a(ctx: Any):
        index, _ = await ctx.when_any_with_result([ctx.wait_for_external_event("no"), ctx.create_timer(SOON)])
        return index

    def g(ctx: Any, _):
        tasks = [ctx.wait_for_external_event("no"), ctx.create_timer(SOON)]
        return tasks.index((yield when_any(tasks)))


@scenario(drive=when_ready(event("go", "x")))
class event_wins_against_timer:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        index, _ = await ctx.when_any_with_result([ctx.create_timer(LATE), ctx.wait_for_external_event("go")])
        return index

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        tasks = [ctx.create_timer(LATE), ctx.wait_for_external_event("go")]
        return tasks.index((yield when_any(tasks)))


@scenario()
class activity_wins_against_timer:
    async def a(ctx: Any):
        return list(await ctx.when_any_with_result([ctx.create_timer(LATE), ctx.call_activity(double, input=2)]))

    def g(ctx: Any, _):
        tasks = [ctx.create_timer(LATE), ctx.call_activity(double, input=2)]
        winner = yield when_any(tasks)
        return [tasks.index(winner), winner.get_result()]


@scenario()
class three_timers_race:
    async def a(ctx: Any):
        return await ctx.when_any_with_result(
            [ctx.create_timer(LATE), ctx.create_timer(SOON), ctx.create_timer(LATE * 2)]
        )

    def g(ctx: Any, _):
        timers = [ctx.create_timer(LATE), ctx.create_timer(SOON), ctx.create_timer(LATE * 2)]
        return [timers.index((yield when_any(timers))), None]


@scenario(ordered=False)
class loser_goes_on_and_is_awaited:
    async def a(ctx: Any):
        slow, fast = ctx.create_timer(SOON * 8), ctx.create_timer(SOON)
        await ctx.when_any([slow, fast])
        await ctx.call_activity(double, input=1)
        await slow
        return "both"

    def g(ctx: Any, _):
        slow, fast = ctx.create_timer(SOON * 8), ctx.create_timer(SOON)
        yield when_any([slow, fast])
        yield ctx.call_activity(double, input=1)
        yield slow
        return "both"


@scenario(drive=when_ready(time_passes(3), event("gate")), alone=True)
class timer_that_lost_fires_unheard:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        await ctx.when_any([ctx.call_activity(double, input=1), ctx.create_timer(timedelta(seconds=2))])
        return await ctx.wait_for_external_event("gate")

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        yield when_any([ctx.call_activity(double, input=1), ctx.create_timer(timedelta(seconds=2))])
        return (yield ctx.wait_for_external_event("gate"))


@scenario(drive=lambda host, id: in_turn(host, id, time_passes(0.3), says("too late"), event("go", 1), event("gate")))
class event_too_late_goes_to_the_wait_that_was_left:
    async def a(ctx: Any):
        await ctx.when_any([ctx.wait_for_external_event("go"), ctx.create_timer(SOON)])
        ctx.set_custom_status("too late")
        await ctx.wait_for_external_event("gate")
        index, _ = await ctx.when_any_with_result([ctx.wait_for_external_event("go"), ctx.create_timer(SOON)])
        return index

    def g(ctx: Any, _):
        yield when_any([ctx.wait_for_external_event("go"), ctx.create_timer(SOON)])
        ctx.set_custom_status("too late")
        yield ctx.wait_for_external_event("gate")
        tasks = [ctx.wait_for_external_event("go"), ctx.create_timer(SOON)]
        return tasks.index((yield when_any(tasks)))


@scenario(drive=when_ready(event("second", 2), event("first", 1)))
class two_events_race_and_the_loser_is_heard_later:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        first, second = ctx.wait_for_external_event("first"), ctx.wait_for_external_event("second")
        index, _ = await ctx.when_any_with_result([first, second])
        return [index, await first]

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        tasks = [ctx.wait_for_external_event("first"), ctx.wait_for_external_event("second")]
        index = tasks.index((yield when_any(tasks)))
        return [index, (yield tasks[0])]


# Events, early and late ------------------------------------------------------------------------------------------


@scenario(drive=when_ready(event("go", {"by": "Ada"})))
class event_awaited:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        return await ctx.wait_for_external_event("go")

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        return (yield ctx.wait_for_external_event("go"))


@scenario(drive=when_ready(event("go", 7), event("gate")))
class event_before_it_is_awaited:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        await ctx.wait_for_external_event("gate")
        await ctx.create_timer(SOON)
        return await ctx.wait_for_external_event("go")

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        yield ctx.wait_for_external_event("gate")
        yield ctx.create_timer(SOON)
        return (yield ctx.wait_for_external_event("go"))


@scenario(drive=when_ready(event("go", 1), event("go", 2), event("go", 3)))
class events_of_one_name_in_order:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        return [await ctx.wait_for_external_event("go") for _ in range(3)]

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        found = []
        for _ in range(3):
            found.append((yield ctx.wait_for_external_event("go")))
        return found


@scenario(drive=when_ready(event("second", 2), event("first", 1)))
class events_in_another_order:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        return [await ctx.wait_for_external_event("first"), await ctx.wait_for_external_event("second")]

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        first = yield ctx.wait_for_external_event("first")
        return [first, (yield ctx.wait_for_external_event("second"))]


@scenario(drive=when_ready(event("GO", None)))
class event_in_other_letters_without_data:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        return await ctx.wait_for_external_event("go")

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        return (yield ctx.wait_for_external_event("go"))


@scenario(drive=when_ready(event("nobody waits for this", 1), event("go", 2)))
class event_that_nobody_awaits:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        return await ctx.wait_for_external_event("go")

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        return (yield ctx.wait_for_external_event("go"))


@scenario(drive=when_ready(event("go", 0), event("go", ""), event("go", False), event("go", [])))
class events_that_carry_next_to_nothing:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        return [await ctx.wait_for_external_event("go") for _ in range(4)]

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        found = []
        for _ in range(4):
            found.append((yield ctx.wait_for_external_event("go")))
        return found


@scenario(also=["-listener"])
class event_sent_to_another_instance:
    async def a(ctx: Any):
        other = ctx.call_sub_orchestrator(listener, instance_id=f"{ctx.instance_id}-listener")
        ctx.send_event(f"{ctx.instance_id}-listener", "news", data=[1])
        return await other

    def g(ctx: Any, _):
        other = ctx.call_sub_orchestrator(listener, instance_id=f"{ctx.instance_id}-listener")
        ctx.send_event(f"{ctx.instance_id}-listener", "news", data=[1])
        return (yield other)


@scenario()
class event_sent_to_nobody:
    async def a(ctx: Any):
        ctx.send_event("nobody", "news")
        return "sent"

    def g(ctx: Any, _):
        ctx.send_event("nobody", "news")
        return "sent"
        yield


# Retries ---------------------------------------------------------------------------------------------------------


@scenario()
class retry_that_helps:
    async def a(ctx: Any):
        return await ctx.call_activity(flaky, input=2, retry_policy=RETRIES)

    def g(ctx: Any, _):
        return (yield ctx.call_activity(flaky, input=2, retry_policy=RETRIES))


@scenario(expected=OrchestrationStatus.FAILED)
class retry_in_vain:
    async def a(ctx: Any):
        return await ctx.call_activity(flaky, input=9, retry_policy=RETRIES)

    def g(ctx: Any, _):
        return (yield ctx.call_activity(flaky, input=9, retry_policy=RETRIES))


@scenario()
class retry_that_is_not_needed:
    async def a(ctx: Any):
        return await ctx.call_activity(flaky, input=0, retry_policy=RETRIES)

    def g(ctx: Any, _):
        return (yield ctx.call_activity(flaky, input=0, retry_policy=RETRIES))


@scenario(expected=OrchestrationStatus.FAILED)
class retry_with_a_time_limit_that_is_not_reached:
    async def a(ctx: Any):
        await ctx.call_activity(fail, input="no", retry_policy=WITHIN_AN_HOUR)

    def g(ctx: Any, _):
        yield ctx.call_activity(fail, input="no", retry_policy=WITHIN_AN_HOUR)


@scenario(expected=OrchestrationStatus.FAILED)
class retry_while_a_timer_runs:
    async def a(ctx: Any):
        timer = ctx.create_timer(LATE)
        await ctx.when_any([ctx.call_activity(flaky, input=9, retry_policy=RETRIES), timer])

    def g(ctx: Any, _):
        timer = ctx.create_timer(LATE)
        yield (yield when_any([ctx.call_activity(flaky, input=9, retry_policy=RETRIES), timer]))


# Sub-orchestrations ----------------------------------------------------------------------------------------------


@scenario(also=["-child"])
class sub_orchestration:
    async def a(ctx: Any):
        return await ctx.call_sub_orchestrator(child, input=3, instance_id=f"{ctx.instance_id}-child")

    def g(ctx: Any, _):
        return (yield ctx.call_sub_orchestrator(child, input=3, instance_id=f"{ctx.instance_id}-child"))


@scenario()
class sub_orchestration_under_an_id_of_its_own:
    async def a(ctx: Any):
        return await ctx.call_sub_orchestrator(child, input=3)

    def g(ctx: Any, _):
        return (yield ctx.call_sub_orchestrator(child, input=3))


@scenario(ordered=False)
class several_sub_orchestrations:
    async def a(ctx: Any):
        ids = [f"{ctx.instance_id}-{n}" for n in range(3)]
        calls = [ctx.call_sub_orchestrator(child, input=n, instance_id=each) for n, each in enumerate(ids)]
        return await ctx.when_all(calls)

    def g(ctx: Any, _):
        ids = [f"{ctx.instance_id}-{n}" for n in range(3)]
        return (
            yield when_all([ctx.call_sub_orchestrator(child, input=n, instance_id=each) for n, each in enumerate(ids)])
        )


@scenario(also=["-mid", "-mid-in"])
class nested_sub_orchestrations:
    async def a(ctx: Any):
        return await ctx.call_sub_orchestrator(grandparent_child, input=3, instance_id=f"{ctx.instance_id}-mid")

    def g(ctx: Any, _):
        return (yield ctx.call_sub_orchestrator(grandparent_child, input=3, instance_id=f"{ctx.instance_id}-mid"))


@scenario(expected=OrchestrationStatus.FAILED, also=["-child"])
class sub_orchestration_fails:
    async def a(ctx: Any):
        await ctx.call_sub_orchestrator(child_fails, input="no", instance_id=f"{ctx.instance_id}-child")

    def g(ctx: Any, _):
        yield ctx.call_sub_orchestrator(child_fails, input="no", instance_id=f"{ctx.instance_id}-child")


@scenario()
class sub_orchestration_failure_is_caught:
    async def a(ctx: Any):
        try:
            await ctx.call_sub_orchestrator(child_fails, input="no")
        except SubOrchestrationFailedError:
            return "noticed"

    def g(ctx: Any, _):
        try:
            yield ctx.call_sub_orchestrator(child_fails, input="no")
        except TaskFailedError:
            return "noticed"


@scenario()
class sub_orchestration_fails_and_another_is_called:
    async def a(ctx: Any):
        try:
            await ctx.call_sub_orchestrator(child_fails, input="no")
        except SubOrchestrationFailedError:
            return await ctx.call_sub_orchestrator(child, input=21)

    def g(ctx: Any, _):
        try:
            yield ctx.call_sub_orchestrator(child_fails, input="no")
        except TaskFailedError:
            return (yield ctx.call_sub_orchestrator(child, input=21))


@scenario(expected=OrchestrationStatus.FAILED)
class retry_of_a_sub_orchestration_in_vain:
    async def a(ctx: Any):
        await ctx.call_sub_orchestrator(child_fails, input="no", retry_policy=RETRIES)

    def g(ctx: Any, _):
        yield ctx.call_sub_orchestrator(child_fails, input="no", retry_policy=RETRIES)


@scenario()
class sub_orchestration_that_continues_as_new:
    async def a(ctx: Any):
        return await ctx.call_sub_orchestrator(countdown, input=2)

    def g(ctx: Any, _):
        return (yield ctx.call_sub_orchestrator(countdown, input=2))


# Continue-as-new -------------------------------------------------------------------------------------------------


@scenario(input=3)
class continue_as_new:
    async def a(ctx: Any, left):
        await ctx.call_activity(double, input=left)
        if left:
            ctx.continue_as_new(left - 1)
            return None
        return "end"

    def g(ctx: Any, left):
        yield ctx.call_activity(double, input=left)
        if left:
            ctx.continue_as_new(left - 1)
            return None
        return "end"


@scenario(input=1)
class continue_as_new_after_a_timer:
    async def a(ctx: Any, left):
        await ctx.create_timer(SOON)
        if left:
            ctx.continue_as_new(left - 1)
            return None
        return "end"

    def g(ctx: Any, left):
        yield ctx.create_timer(SOON)
        if left:
            ctx.continue_as_new(left - 1)
            return None
        return "end"


@scenario(input=2, drive=when_ready(event("go", 1), event("go", 2), event("go", 3), event("gate")))
class continue_as_new_keeps_events:
    async def a(ctx: Any, left):
        ctx.set_custom_status("ready")
        if left == 2:
            await ctx.wait_for_external_event("gate")
        value = await ctx.wait_for_external_event("go")
        if left:
            ctx.continue_as_new(left - 1, save_events=True)
            return None
        return value

    def g(ctx: Any, left):
        ctx.set_custom_status("ready")
        if left == 2:
            yield ctx.wait_for_external_event("gate")
        value = yield ctx.wait_for_external_event("go")
        if left:
            ctx.continue_as_new(left - 1, save_events=True)
            return None
        return value


@scenario(
    input=1,
    drive=lambda host, id: in_turn(host, id, says(1), event("go", "old"), event("gate"), says(0), event("go", "new")),
)
class continue_as_new_without_the_events:
    async def a(ctx: Any, left):
        ctx.set_custom_status(left)
        if left:
            await ctx.wait_for_external_event("gate")
            ctx.continue_as_new(0, save_events=False)
            return None
        return await ctx.wait_for_external_event("go")

    def g(ctx: Any, left):
        ctx.set_custom_status(left)
        if left:
            yield ctx.wait_for_external_event("gate")
            ctx.continue_as_new(0, save_events=False)
            return None
        return (yield ctx.wait_for_external_event("go"))


# Suspending and resuming -----------------------------------------------------------------------------------------


@scenario(drive=when_ready(suspend, event("go", 1), resume))
class suspended_while_the_event_comes:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        return await ctx.wait_for_external_event("go")

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        return (yield ctx.wait_for_external_event("go"))


@scenario(drive=when_ready(suspend, resume, event("go", 1)))
class suspended_and_resumed_before_the_event:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        return await ctx.wait_for_external_event("go")

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        return (yield ctx.wait_for_external_event("go"))


@scenario(drive=when_ready(suspend, time_passes(3), resume), alone=True)
class suspended_while_the_timer_fires:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        await ctx.create_timer(timedelta(seconds=2))
        return await ctx.call_activity(double, input=1)

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        yield ctx.create_timer(timedelta(seconds=2))
        return (yield ctx.call_activity(double, input=1))


@scenario(drive=when_ready(suspend, resume, resumed, suspend, event("go", 1), resume))
class suspended_twice:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        return await ctx.wait_for_external_event("go")

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        return (yield ctx.wait_for_external_event("go"))


# Terminating -----------------------------------------------------------------------------------------------------


@scenario(drive=when_ready(terminate("enough")), expected=OrchestrationStatus.TERMINATED)
class terminated_while_waiting:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        await ctx.wait_for_external_event("never")

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        yield ctx.wait_for_external_event("never")


@scenario(drive=when_ready(terminate()), expected=OrchestrationStatus.TERMINATED)
class terminated_during_a_timer_without_output:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        await ctx.create_timer(LATE)

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        yield ctx.create_timer(LATE)


@scenario(drive=when_ready(suspend, terminate("enough")), expected=OrchestrationStatus.TERMINATED)
class terminated_while_suspended:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        await ctx.wait_for_external_event("never")

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        yield ctx.wait_for_external_event("never")


@scenario(drive=when_ready(terminate("enough")), expected=OrchestrationStatus.TERMINATED)
class terminated_while_a_child_runs:
    async def a(ctx: Any):
        ctx.set_custom_status("ready")
        await ctx.call_sub_orchestrator(listener, instance_id=f"{ctx.instance_id}-listener")

    def g(ctx: Any, _):
        ctx.set_custom_status("ready")
        yield ctx.call_sub_orchestrator(listener, instance_id=f"{ctx.instance_id}-listener")


# Entities and locks ----------------------------------------------------------------------------------------------


@scenario()
class entity_call:
    async def a(ctx: Any):
        return await ctx.call_entity(counter_of(ctx), "add", 5)

    def g(ctx: Any, _):
        return (yield ctx.call_entity(counter_of(ctx), "add", 5))


@scenario()
class entity_signals_and_a_call:
    async def a(ctx: Any):
        ctx.signal_entity(counter_of(ctx), "add", 5)
        ctx.signal_entity(counter_of(ctx), "add", 6)
        return await ctx.call_entity(counter_of(ctx), "get")

    def g(ctx: Any, _):
        ctx.signal_entity(counter_of(ctx), "add", 5)
        ctx.signal_entity(counter_of(ctx), "add", 6)
        return (yield ctx.call_entity(counter_of(ctx), "get"))


@scenario()
class entity_operation_fails:
    async def a(ctx: Any):
        try:
            await ctx.call_entity(counter_of(ctx), "explode")
        except TaskFailedError:
            return "noticed"

    def g(ctx: Any, _):
        try:
            yield ctx.call_entity(counter_of(ctx), "explode")
        except TaskFailedError:
            return "noticed"


@scenario()
class entity_lock:
    async def a(ctx: Any):
        async with ctx.lock_entities([counter_of(ctx)]):
            await ctx.call_entity(counter_of(ctx), "add", 2)
            return await ctx.call_entity(counter_of(ctx), "add", 3)

    def g(ctx: Any, _):
        with (yield ctx.lock_entities([counter_of(ctx)])):
            yield ctx.call_entity(counter_of(ctx), "add", 2)
            return (yield ctx.call_entity(counter_of(ctx), "add", 3))


@scenario()
class entity_lock_on_two_entities:
    async def a(ctx: Any):
        one, two = counter_of(ctx, "1"), counter_of(ctx, "2")
        async with ctx.lock_entities([two, one]):
            return await ctx.call_entity(one, "add", 2) + await ctx.call_entity(two, "add", 3)

    def g(ctx: Any, _):
        one, two = counter_of(ctx, "1"), counter_of(ctx, "2")
        with (yield ctx.lock_entities([two, one])):
            return (yield ctx.call_entity(one, "add", 2)) + (yield ctx.call_entity(two, "add", 3))


@scenario()
class entity_lock_taken_twice:
    async def a(ctx: Any):
        for amount in (1, 2):
            async with ctx.lock_entities([counter_of(ctx)]):
                value = await ctx.call_entity(counter_of(ctx), "add", amount)
        return value

    def g(ctx: Any, _):
        for amount in (1, 2):
            with (yield ctx.lock_entities([counter_of(ctx)])):
                value = yield ctx.call_entity(counter_of(ctx), "add", amount)
        return value


@scenario()
class entity_lock_is_given_back_when_the_block_fails:
    async def a(ctx: Any):
        try:
            async with ctx.lock_entities([counter_of(ctx)]):
                await ctx.call_activity(fail, input="no")
        except ActivityFailedError:
            return await ctx.call_entity(counter_of(ctx), "add", 3)

    def g(ctx: Any, _):
        try:
            with (yield ctx.lock_entities([counter_of(ctx)])):
                yield ctx.call_activity(fail, input="no")
        except TaskFailedError:
            return (yield ctx.call_entity(counter_of(ctx), "add", 3))


# The engines ---------------------------------------------------------------------------------------------------


def all_functions():
    workflows = [each.workflow for each in SCENARIOS.values()] + [each.generator for each in SCENARIOS.values()]
    return {"orchestrators": [*workflows, *CHILDREN], "activities": ACTIVITIES, "entities": [Counter]}


ENDED = (OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED, OrchestrationStatus.TERMINATED)


class Environment:
    name = "environment"

    async def __aenter__(self):
        self.env = WorkflowEnvironment(**all_functions())
        return self

    async def __aexit__(self, *error):
        await self.env.__aexit__(*error)

    async def start(self, workflow, value, instance_id):
        await self.env.start(workflow, input=value, instance_id=instance_id)

    async def until(self, instance_id, **condition):
        pass  # `start` has run the instance as far as it can without time passing.

    async def pass_time(self, seconds):
        await self.env.advance(seconds)

    async def raise_event(self, instance_id, name, data):
        await self.env.handle(instance_id).raise_event(name, data)

    async def terminate(self, instance_id, output):
        await self.env.handle(instance_id).terminate(output)

    async def suspend(self, instance_id):
        await self.env.handle(instance_id).suspend()

    async def resume(self, instance_id):
        await self.env.handle(instance_id).resume()

    async def end(self, instance_id):
        with contextlib.suppress(Exception):  # The history has the outcome.
            await self.env.handle(instance_id).result()

    async def history(self, instance_id):
        return self.env.handle(instance_id).history


class OverGrpc:
    """A real worker and client on an engine behind gRPC."""

    async def __aenter__(self: Any):
        address = self.open()
        functions = all_functions()
        self.worker = TaskHubGrpcWorker(host_address=address, max_extended_sessions=0)
        for orchestrator in functions["orchestrators"]:
            self.worker.add_orchestrator(orchestrator)
        for activity in functions["activities"]:
            self.worker.add_activity(activity)
        self.worker.add_entity(Counter)
        self.worker.start()
        self.client = AsyncTaskHubGrpcClient(host_address=address)
        return self

    async def __aexit__(self: Any, *error):
        await self.client.close()
        await asyncio.to_thread(self.worker.stop)
        self.close()

    async def start(self, workflow, value, instance_id):
        await self.client.schedule_new_orchestration(workflow, input=value, instance_id=instance_id)

    async def until(self, instance_id, *, ready=False, says=None, status=None):
        while True:
            state = await self.client.get_orchestration_state(instance_id)
            if state is not None and (
                (ready and state.serialized_custom_status)
                or (says is not None and state.serialized_custom_status == json.dumps(says))
                or (status is not None and state.runtime_status is status)
            ):
                return
            await asyncio.sleep(0.02)

    async def pass_time(self, seconds):
        await asyncio.sleep(seconds)

    async def raise_event(self, instance_id, name, data):
        await self.client.raise_orchestration_event(instance_id, name, data=data)

    async def terminate(self, instance_id, output):
        await self.client.terminate_orchestration(instance_id, output=output)

    async def suspend(self, instance_id):
        await self.client.suspend_orchestration(instance_id)
        await self.until(instance_id, status=OrchestrationStatus.SUSPENDED)

    async def resume(self, instance_id):
        await self.client.resume_orchestration(instance_id)

    async def end(self, instance_id):
        await self.client.wait_for_orchestration_completion(instance_id, timeout=60)

    async def history(self, instance_id):
        return await History.fetch(self.client, instance_id)


class Local(OverGrpc):
    name = "local engine"

    def open(self):
        self.backend = local_backend().start()
        return self.backend.address

    def close(self):
        self.backend.stop()


class Upstream(OverGrpc):
    name = "upstream's engine"

    def open(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.backend = InMemoryOrchestrationBackend(port=port)
        return self.backend.start()

    def close(self):
        self.backend.stop()

    async def end(self, instance_id):
        # Upstream's server has ten threads, which waiting clients would occupy: none would be left for the worker.
        while True:
            state = await self.client.get_orchestration_state(instance_id)
            if state is not None and state.runtime_status in ENDED:
                return
            await asyncio.sleep(0.25)


# The comparison ------------------------------------------------------------------------------------------------

RESULTS = ("TaskCompletedEvent", "TaskFailedEvent", "TimerFiredEvent", "SubOrchestrationInstanceCompletedEvent")
TURN_EVENTS = ("OrchestratorStartedEvent", "OrchestratorCompletedEvent")
NOT_COMPARED = (
    *("timestamp", "fire_at", "parent_instance", "stack_trace", "inner_failure", "scheduled_time"),
    # Upstream's engine does not record whether a termination reaches the children.
    "recurse",
    # OpenTelemetry takes one provider per process: once another test has set one, every engine records its own spans.
    *("parent_trace_context", "orchestration_span_id"),
)


# An async workflow that fails because of an operation is described by the operation's name, a generator by its number.
_OUR_FAILURE = re.compile(r"[\w-]+ '\w+' failed with [\w.]+: (.*?) \[workflow '\w+', instance '[^']*', step (\d+)\]")
_UPSTREAMS_FAILURE = re.compile(r"(?:<id>: )?(?:Activity|Sub-orchestration) task #(\d+) failed")


def comparable(history, instance_id, *, ordered):
    """Return the events as lines that are the same for every run of a scenario."""
    generated_ids: dict[str, str] = {}
    lines: list[str] = []
    for plain in history.to_dicts():
        if plain["event_type"] in TURN_EVENTS:
            continue
        failure = plain.get("failure_details")
        if failure:
            plain["failure_details"] = {"error_type": failure["error_type"], "message": failure["message"]}
            if plain["event_type"] == "SubOrchestrationInstanceFailedEvent":
                plain["failure_details"]["error_type"] = "any"  # upstream's engine records Exception for all of them
        for field in ("request_id", "critical_section_id"):
            if field in plain:
                plain[field] = generated_ids.setdefault(plain[field], f"id {len(generated_ids) + 1}")
        # Upstream's engine records an empty payload where there is none.
        kept = {key: value for key, value in plain.items() if key not in NOT_COMPARED and value != ""}
        text = json.dumps(kept, sort_keys=True).replace(instance_id, "<id>")
        text = re.sub(r"_(async|generator)\b", "", text)
        # Messages differ: the core adds notes, and this library words the error for an unknown name.  Types do not.
        text = re.sub(r'"message": "[^"]*nobody[^"]*"', '"message": "nobody"', text)
        text = _UPSTREAMS_FAILURE.sub(r"task #\1 failed", _OUR_FAILURE.sub(r"task #\2 failed: \1", text))
        lines.append(text)
        if plain["event_type"] == "ExecutionCompletedEvent":
            break  # Upstream's engine may run an instance that has ended once more, which then ends a second time.
    if not ordered:
        return sorted(lines)
    return _sorted_runs(lines)


def _sorted_runs(lines):
    """Sort adjacent results: those that came together may be recorded in any order."""
    ordered: list[str] = []
    run: list[str] = []
    for line in lines:
        if any(kind in line for kind in RESULTS):
            run.append(line)
        else:
            ordered += [*sorted(run), line]
            run = []
    return ordered + sorted(run)


STYLES = ("async", "generator")
recorded: dict[tuple[str, str, str], History] = {}


@pytest.fixture(scope="module")
def outcomes():
    """Run every scenario on every engine, concurrently: (scenario, engine, style) -> (status, events)."""
    return asyncio.run(_run_all())


async def _run_all():
    for name in ("durabletask-worker", "durabletask-client", "durabletask-async_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    outcomes: dict[tuple[str, str, str], Any] = {}
    async with Environment() as env, Local() as local, Upstream() as upstream:
        for alone in (False, True):
            scenarios = [each for each in SCENARIOS.values() if each.alone is alone]
            for each, style in itertools.product(scenarios, STYLES):
                await _run(env, each, style, outcomes)
            over_grpc = itertools.product((local, upstream), scenarios, STYLES)
            await asyncio.gather(*(_run(*arguments, outcomes) for arguments in over_grpc))
    return outcomes


async def _run(engine, each, style, outcomes):
    instance_id = f"case-{next(_numbers):04d}-x"
    workflow = each.workflow if style == "async" else each.generator
    await engine.start(workflow.__name__, each.input, instance_id)
    if each.drive is not None:
        await each.drive(engine, instance_id)
    await engine.end(instance_id)
    history = await engine.history(instance_id)
    parts = [comparable(history, instance_id, ordered=each.ordered)]
    for suffix in each.also:
        parts.append(comparable(await engine.history(instance_id + suffix), instance_id, ordered=each.ordered))
    outcomes[each.name, engine.name, style] = (history.status, parts)
    recorded[each.name, engine.name, style] = history


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", SCENARIOS)
def test_three_engines_record_the_same_history(outcomes, name, style):
    status, reference = outcomes[name, Upstream.name, style]
    assert status is SCENARIOS[name].expected
    assert outcomes[name, Local.name, style] == (status, reference)
    assert outcomes[name, Environment.name, style] == (status, reference)


@pytest.mark.parametrize("name", SCENARIOS)
def test_async_workflow_and_generator_record_the_same_history(outcomes, name):
    assert outcomes[name, Environment.name, "async"] == outcomes[name, Environment.name, "generator"]


@pytest.mark.usefixtures("outcomes")
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_history_of_any_engine_replays_on_async_workflow_and_generator(name, style):
    for engine in (Environment, Local, Upstream):
        for function in (SCENARIOS[name].workflow, SCENARIOS[name].generator):
            replay(recorded[name, engine.name, style], function)


@pytest.mark.skipif(not README.exists(), reason="the README is in the repository only")
def test_the_readme_has_the_number_of_scenarios():
    assert f"The same {len(SCENARIOS)} scenarios" in README.read_text(encoding="utf-8")
