"""The workflows whose histories are recorded, one function for each scenario.

Nothing in this module may change once a set of histories has been recorded with it, not even a line break: the
histories stand for instances in flight that were started with this code, and some of their messages name a line.
(So formatter and linter are told to leave it alone.)  New workflows are added at the end, with their imports.  How
each is started and driven is in `scenarios.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from durabletask import task
from durabletask.aio import ActivityFailedError, SubOrchestrationFailedError, WorkflowTimeoutError
from durabletask.entities import DurableEntity, EntityInstanceId
from durabletask.task import RetryPolicy, TaskFailedError

try:
    import anyio
except ImportError:  # the scenarios with anyio are skipped then
    anyio = None

SOON = 0.05
LATE = 3600
ALL_FIELDS = RetryPolicy(
    first_retry_interval=timedelta(milliseconds=20),
    max_number_of_attempts=5,
    backoff_coefficient=3,
    max_retry_interval=timedelta(milliseconds=100),
    retry_timeout=timedelta(hours=1),
)
TWICE = RetryPolicy(first_retry_interval=timedelta(milliseconds=20), max_number_of_attempts=2)
SHORT_PATIENCE = RetryPolicy(
    first_retry_interval=timedelta(milliseconds=80),
    max_number_of_attempts=100,
    retry_timeout=timedelta(milliseconds=300),
)


# What the workflows call ---------------------------------------------------------------------------------------------


@dataclass
class Parcel:
    item: str
    weight: float


class OutOfStock(Exception):
    """An error of the application."""


def echo(ctx, value):
    return value


def double(ctx, value):
    return value * 2


async def double_async(ctx, value):
    await asyncio.sleep(0)
    return value * 2


def slow(ctx, value):
    time.sleep(0.3)
    return value


def weigh(ctx, item: str) -> Parcel:
    return Parcel(item, len(item) / 4)


def fail(ctx, message):
    raise ValueError(message)


attempts: dict[tuple[str, int], int] = {}


def flaky(ctx, failures):
    key = (ctx.orchestration_id, ctx.task_id)
    attempts[key] = attempts.get(key, 0) + 1
    if attempts[key] <= failures:
        raise ValueError(f"attempt {attempts[key]}")
    return attempts[key]


class Counter(DurableEntity):
    def add(self, amount: int):
        self.set_state(self.get_state(int, 0) + amount)
        return self.get_state(int)

    def get(self):
        return self.get_state(int, 0)

    def explode(self):
        raise RuntimeError("boom")


ACTIVITIES = [echo, double, double_async, slow, weigh, fail, flaky]
ENTITIES = [Counter]


def counter(ctx, suffix=""):
    return EntityInstanceId("Counter", ctx.instance_id + suffix)


async def child(ctx, value):
    """A sub-orchestration: says who started it, with which version."""
    doubled = await ctx.call_activity(double, input=value)
    return {"doubled": doubled, "parent": ctx.parent_instance_id, "version": ctx.version}


async def child_that_fails(ctx, message):
    """A sub-orchestration that fails by an activity."""
    await ctx.call_activity(fail, input=message)


async def child_that_waits(ctx):
    """A sub-orchestration that waits for an event."""
    return await ctx.wait_for_external_event("news")


async def child_that_counts_down(ctx, left):
    """A sub-orchestration that continues as new."""
    await ctx.call_activity(double, input=left)
    if left:
        ctx.continue_as_new(left - 1)
        return None
    return "counted down"


def generator_child(ctx, value):
    """A sub-orchestration that is a generator and calls an async one."""
    inner = yield ctx.call_sub_orchestrator("child", input=value, instance_id=f"{ctx.instance_id}-inner")
    return [inner, (yield ctx.call_activity(double, input=1))]


CHILDREN = [child, child_that_fails, child_that_waits, child_that_counts_down, generator_child]


# Activities ----------------------------------------------------------------------------------------------------------


async def activities_in_sequence(ctx, value):
    """Activities one after the other, by function, async and not."""
    for _ in range(3):
        value = await ctx.call_activity(double, input=value)
    return await ctx.call_activity(double_async, input=value)


async def activity_by_name_with_tags(ctx, value):
    """An activity called by its name, with tags."""
    return await ctx.call_activity("echo", input=value, tags={"team": "blue", "priority": "1"})


async def activity_without_input_or_result(ctx):
    """Neither input nor result."""
    return await ctx.call_activity(echo)


async def activity_with_return_type(ctx, item):
    """Results that are reconstructed: by annotation and by `return_type`."""
    one = await ctx.call_activity(weigh, input=item)
    two = await ctx.call_activity("weigh", input=item, return_type=Parcel)
    return [type(one).__name__, type(two).__name__, one.weight + two.weight]


async def activity_with_payload(ctx, value):
    """Text beyond ASCII, nested values and a long text."""
    return await ctx.call_activity(echo, input=value)


async def dataclass_as_input(ctx, parcel: Parcel):
    """The input of the workflow is a dataclass."""
    return await ctx.call_activity(echo, input={"item": parcel.item, "weight": parcel.weight})


async def activity_failure_is_caught(ctx):
    """A failed activity, and what the error says."""
    try:
        await ctx.call_activity(fail, input="no")
    except ActivityFailedError as error:
        return await ctx.call_activity(echo, input=[error.details.error_type, error.details.message, error.step])


async def started_early_awaited_later(ctx):
    """Operations are scheduled at the call, whatever is awaited first."""
    first = ctx.call_activity(double, input=1)
    timer = ctx.create_timer(SOON)
    second = ctx.call_activity(slow, input=2)
    return [await second, await timer, await first, await first]


# Retries -------------------------------------------------------------------------------------------------------------


async def retry_that_helps(ctx):
    """All fields of the policy; the fourth attempt succeeds."""
    return await ctx.call_activity(flaky, input=3, retry_policy=ALL_FIELDS)


async def retry_in_vain(ctx):
    """All attempts fail."""
    await ctx.call_activity(fail, input="never", retry_policy=TWICE, tags={"kind": "vain"})


async def retry_until_the_time_is_up(ctx):
    """The retries end by `retry_timeout`, on the workflow's clock."""
    try:
        await ctx.call_activity(fail, input="not yet", retry_policy=SHORT_PATIENCE)
    except ActivityFailedError as error:
        return await ctx.call_activity(echo, input=error.details.message)


async def retries_side_by_side(ctx):
    """Two activities with retries, and a timer, at the same time."""
    calls = [ctx.call_activity(flaky, input=n, retry_policy=ALL_FIELDS) for n in (1, 2)]
    return await asyncio.gather(*calls, ctx.sleep(SOON))


# Sub-orchestrations --------------------------------------------------------------------------------------------------


async def sub_orchestration(ctx):
    """With an id and a version."""
    return await ctx.call_sub_orchestrator(child, input=3, instance_id=f"{ctx.instance_id}-child", version="2.1")


async def sub_orchestration_under_an_id_of_its_own(ctx):
    """Without an id: derived from the instance's."""
    return await ctx.call_sub_orchestrator(child, input=3)


async def sub_orchestration_by_name_with_return_type(ctx):
    """By name; the result is reconstructed."""
    result = await ctx.call_sub_orchestrator("child", input=3, return_type=dict)
    return sorted(result)


async def sub_orchestration_retried(ctx):
    """A sub-orchestration that fails twice."""
    try:
        await ctx.call_sub_orchestrator(child_that_fails, input="no", retry_policy=TWICE)
    except SubOrchestrationFailedError as error:
        return await ctx.call_sub_orchestrator(child, input=str(error.step))


async def sub_orchestration_fails(ctx):
    """A failed sub-orchestration that nobody catches."""
    await ctx.call_sub_orchestrator(child_that_fails, input="no", instance_id=f"{ctx.instance_id}-child")


async def nested_sub_orchestrations(ctx):
    """Async calls generator calls async."""
    return await ctx.call_sub_orchestrator(generator_child, input=4, instance_id=f"{ctx.instance_id}-mid")


async def several_sub_orchestrations(ctx):
    """Three at a time."""
    calls = [ctx.call_sub_orchestrator(child, input=n, instance_id=f"{ctx.instance_id}-{n}") for n in range(3)]
    return [result["doubled"] for result in await ctx.when_all(calls)]


async def sub_orchestration_that_continues_as_new(ctx):
    """The parent waits for the last execution of its child."""
    return await ctx.call_sub_orchestrator(child_that_counts_down, input=1, instance_id=f"{ctx.instance_id}-child")


# Timers --------------------------------------------------------------------------------------------------------------


async def timers_of_every_kind(ctx):
    """`asyncio.sleep`, `ctx.sleep`, and `create_timer` with seconds, a timedelta and datetimes."""
    started = ctx.now()
    await asyncio.sleep(SOON)
    await ctx.sleep(SOON)
    await ctx.create_timer(SOON)
    await ctx.create_timer(timedelta(milliseconds=30))
    await ctx.create_timer(ctx.now() + timedelta(milliseconds=30))
    await ctx.create_timer(ctx.current_utc_datetime + timedelta(milliseconds=30))
    return ctx.now() > started + timedelta(milliseconds=200)


async def timers_that_are_due(ctx):
    """No length, and a time in the past; `asyncio.sleep(0)` is no timer."""
    await asyncio.sleep(0)
    await ctx.create_timer(0)
    await ctx.create_timer(ctx.now() - timedelta(hours=1))
    return "on"


async def long_timer_in_chunks(ctx):
    """A timer that is longer than the worker's `maximum_timer_interval`."""
    await asyncio.sleep(0.5)
    await ctx.sleep(timedelta(seconds=0.3))
    return "slept"


async def long_timer_that_is_not_waited_for(ctx):
    """A wait of ten days in chunks of three, cut short by an event."""
    ctx.set_custom_status("ready")
    timer = ctx.create_timer(timedelta(days=10))
    await ctx.when_any([timer, ctx.wait_for_external_event("go")])
    timer.cancel()
    return [timer.cancelled(), await ctx.call_activity(double, input=1)]


async def timer_cancelled(ctx):
    """A cancelled timer, before and after it was recorded."""
    one, two = ctx.create_timer(LATE), ctx.create_timer(LATE)
    one.cancel()
    await ctx.call_activity(double, input=1)
    two.cancel()
    await ctx.call_activity(double, input=2)
    return [one.cancelled(), two.cancelled()]


async def call_later(ctx):
    """Callbacks of the event loop, one of them taken back."""
    loop, seen = asyncio.get_running_loop(), []
    started = loop.time()
    loop.call_later(SOON, seen.append, "later")
    loop.call_later(LATE, seen.append, "never").cancel()
    loop.call_at(started + 0.01, seen.append, "sooner")
    loop.call_soon(seen.append, "soon")
    await asyncio.sleep(0.1)
    return await ctx.call_activity(echo, input=[*seen, loop.time() >= started + 0.1])


# External events -----------------------------------------------------------------------------------------------------


async def event_awaited(ctx):
    """One event, with a `data_type`, in other letters than it is waited for."""
    ctx.set_custom_status("ready")
    parcel = await ctx.wait_for_external_event("ARRIVED", data_type=Parcel)
    return [type(parcel).__name__, parcel.item]


async def event_before_it_is_awaited(ctx):
    """An event that is buffered until somebody wants it."""
    ctx.set_custom_status("ready")
    await ctx.wait_for_external_event("gate")
    await ctx.sleep(SOON)
    return await ctx.wait_for_external_event("go")


async def several_events(ctx):
    """Events of one name in order, of two names in another order than they come, and one that nobody wants."""
    ctx.set_custom_status("ready")
    first = [await ctx.wait_for_external_event("go") for _ in range(3)]
    return [first, await ctx.wait_for_external_event("one"), await ctx.wait_for_external_event("two")]


async def events_that_carry_next_to_nothing(ctx):
    """Payloads that are false, and none at all."""
    ctx.set_custom_status("ready")
    return [await ctx.wait_for_external_event("go") for _ in range(5)]


async def event_stream(ctx):
    """`ctx.events`, left after three, and a second stream of the same name."""
    ctx.set_custom_status("ready")
    seen = []
    async for parcel in ctx.events("parcel", data_type=Parcel):
        seen.append(parcel.item)
        await ctx.call_activity(echo, input=parcel.item)
        if len(seen) == 3:
            break
    async for value in ctx.events("parcel"):
        seen.append(value["item"])
        break
    return seen


async def cancelled_wait_swallows_nothing(ctx):
    """A wait that timed out, and one that was cancelled; the events go to the next waits."""
    ctx.set_custom_status("ready")
    given_up = ctx.wait_for_external_event("go")
    given_up.cancel()
    with contextlib.suppress(TimeoutError):
        await ctx.with_timeout(ctx.wait_for_external_event("go"), SOON)
    ctx.set_custom_status("too late")
    return [await ctx.wait_for_external_event("go"), await ctx.wait_for_external_event("go")]


async def event_sent_to_another_instance(ctx):
    """`send_event` to a sub-orchestration that waits, and to nobody."""
    other = ctx.call_sub_orchestrator(child_that_waits, instance_id=f"{ctx.instance_id}-child")
    ctx.send_event(f"{ctx.instance_id}-child", "news", data={"n": [1]})
    ctx.send_event("nobody", "news")
    return await other


async def two_events_race(ctx):
    """The loser of a race is awaited later."""
    ctx.set_custom_status("ready")
    first, second = ctx.wait_for_external_event("first"), ctx.wait_for_external_event("second")
    index, value = await ctx.when_any_with_result([first, second])
    return [index, value, await first]


# Time limits ---------------------------------------------------------------------------------------------------------


async def with_timeout_in_time(ctx):
    """An operation and a coroutine that are done in time; the timers are taken back."""

    async def work(value):
        return await ctx.call_activity(double, input=await ctx.call_activity(double, input=value))

    return [
        await ctx.with_timeout(ctx.call_activity(double, input=1), LATE),
        await ctx.with_timeout(work(1), timedelta(hours=2)),
        await ctx.with_timeout(ctx.call_activity(double, input=1), None),
    ]


async def with_timeout_runs_out(ctx):
    """An event, a coroutine, an activity and a lock on nothing that take too long; then a limit of no length."""
    seen = []

    async def work():
        try:
            await ctx.sleep(LATE)
        finally:
            seen.append("closed")

    for too_long in (ctx.wait_for_external_event("never"), work(), ctx.call_activity(slow, input=1)):
        try:
            await ctx.with_timeout(too_long, SOON)
        except WorkflowTimeoutError as error:
            seen.append(error.step)
    try:
        await ctx.with_timeout(ctx.wait_for_external_event("never"), 0)
    except TimeoutError:
        seen.append("at once")
    return await ctx.call_activity(echo, input=seen)


async def nested_timeouts(ctx):
    """The outer limit runs out before the inner one."""

    async def work():
        try:
            await ctx.with_timeout(ctx.wait_for_external_event("never"), LATE)
        except TimeoutError:
            return "inner"

    try:
        await ctx.with_timeout(work(), SOON)
    except TimeoutError:
        return await ctx.call_activity(echo, input="outer")


async def asyncio_timeout(ctx):
    """`asyncio.timeout`: in time, run out, moved, and around a task group of its own."""
    seen = []
    async with asyncio.timeout(LATE):
        seen.append(await ctx.call_activity(double, input=1))
    try:
        async with asyncio.timeout(SOON):
            await ctx.wait_for_external_event("never")
    except TimeoutError:
        seen.append("run out")
    async with asyncio.timeout(SOON) as limit:
        limit.reschedule(asyncio.get_running_loop().time() + LATE)
        await ctx.sleep(0.1)
        seen.append(limit.expired())
    try:
        async with asyncio.timeout(SOON), asyncio.TaskGroup() as group:
            for n in range(3):
                group.create_task(asyncio.sleep(LATE + n))
    except TimeoutError:
        seen.append("group")
    return await ctx.call_activity(echo, input=seen)


async def wait_for(ctx):
    """`asyncio.wait_for` of operations and of a coroutine, in time and too late."""

    async def work(value):
        return await ctx.call_activity(double, input=value)

    seen = [await asyncio.wait_for(ctx.call_activity(double, input=1), LATE), await asyncio.wait_for(work(2), LATE)]
    for too_long in (ctx.wait_for_external_event("never"), asyncio.sleep(LATE)):
        try:
            await asyncio.wait_for(too_long, SOON)
        except asyncio.TimeoutError:
            seen.append("late")
    return await ctx.call_activity(echo, input=seen)


async def wait_for_in_several_tasks(ctx):
    """`asyncio.wait_for` of coroutines in tasks side by side: which of them starts first depends on the Python."""

    async def work(name):
        return await ctx.call_activity(echo, input=name)

    async def limited(name):
        return await asyncio.wait_for(work(name), LATE)

    return await asyncio.gather(limited("a"), work("b"), limited("c"), work("d"))


# Combining -----------------------------------------------------------------------------------------------------------


async def gather_helpers(ctx):
    """Helpers of several steps each, side by side."""

    async def twice(value):
        return await ctx.call_activity(double, input=await ctx.call_activity(double, input=value))

    return await asyncio.gather(*(twice(n) for n in range(3)), ctx.call_activity(echo, input="x"), asyncio.sleep(0, 1))


async def gather_with_failures(ctx):
    """`return_exceptions`, and a first failure while the others go on."""
    mixed = await asyncio.gather(
        ctx.call_activity(fail, input="a"), ctx.call_activity(double, input=1), return_exceptions=True
    )
    going_on = ctx.call_activity(slow, input=3)
    try:
        await asyncio.gather(going_on, ctx.call_activity(fail, input="b"))
    except ActivityFailedError as error:
        return [type(mixed[0]).__name__, mixed[1], error.details.message, await going_on]


async def gather_of_what_is_done(ctx):
    """`asyncio.gather` of operations that are done, in tasks side by side: done in this step or the next."""
    done = [ctx.call_activity(double, input=n) for n in range(2)]
    await ctx.when_all(done)

    async def gathers():
        await asyncio.gather(*done)
        await ctx.call_activity(echo, input="gathered")

    async def steps():
        await asyncio.sleep(0)
        await ctx.call_activity(echo, input="stepped")

    await asyncio.gather(gathers(), steps())


async def ctx_gather_and_when_all(ctx):
    """`ctx.gather` is fail-fast and can be awaited twice, `ctx.when_all` waits for all."""
    both = ctx.gather(ctx.call_activity(double, input=1), ctx.call_activity(double, input=2))
    seen = [await both, await both, await ctx.when_all([]), await ctx.gather()]
    slow_one = ctx.call_activity(slow, input=5)
    try:
        await ctx.when_all([ctx.call_activity(fail, input="a"), slow_one])
    except ActivityFailedError:
        seen.append(slow_one.done())
    results = await ctx.gather(ctx.call_activity(fail, input="b"), ctx.sleep(SOON), return_exceptions=True)
    return [*seen, [type(result).__name__ for result in results]]


async def races(ctx):
    """Races: the loser goes on and is awaited, one that failed wins, and one with coroutines."""

    async def work(value):
        await ctx.sleep(SOON)
        return await ctx.call_activity(double, input=value)

    loser, timer = ctx.call_activity(slow, input=1), ctx.create_timer(SOON)
    seen = [await ctx.when_any([loser, timer]), await loser]
    try:
        await ctx.when_any([ctx.create_timer(LATE), ctx.call_activity(fail, input="first")])
    except ActivityFailedError as error:
        seen.append(error.winner_index)
    index, value = await ctx.when_any_with_result([ctx.sleep(LATE), work(4)])
    return [*seen, index, value]


async def race_of_what_is_done(ctx):
    """The one that was done first wins, not the first in the list."""
    first, second = ctx.call_activity(double, input=1), ctx.call_activity(slow, input=2)
    await ctx.when_all([first, second])
    return await ctx.when_any_with_result([second, first])


async def asyncio_wait(ctx):
    """`asyncio.wait` until the first is done, until the first fails, until all are done, and with a limit."""
    slow_one, quick = ctx.call_activity(slow, input=1), ctx.create_timer(SOON)
    done, pending = await asyncio.wait([slow_one, quick], return_when=asyncio.FIRST_COMPLETED)
    seen = [quick in done, slow_one in pending]
    failing = ctx.call_activity(fail, input="x")
    done, pending = await asyncio.wait([slow_one, failing], return_when=asyncio.FIRST_EXCEPTION)
    seen.append(failing in done)
    tasks = [asyncio.create_task(asyncio.sleep(SOON * n, n)) for n in (2, 1)]
    done, pending = await asyncio.wait(tasks)
    seen.append(sorted(task.result() for task in done))
    done, pending = await asyncio.wait([asyncio.create_task(asyncio.sleep(LATE))], timeout=SOON)
    seen += [len(done), len(pending)]
    return await ctx.call_activity(echo, input=seen)


async def as_completed(ctx):
    """`asyncio.as_completed` of operations and tasks."""
    tasks = [asyncio.create_task(asyncio.sleep(SOON * n, n)) for n in (3, 1, 2)]
    seen = []
    for done in asyncio.as_completed([*tasks, ctx.sleep(SOON * 8)]):
        seen.append(await done)
        await ctx.call_activity(echo, input=seen[-1])
    return seen


async def task_group(ctx):
    """`asyncio.TaskGroup`: tasks that start tasks, and results."""

    async def work(group, left):
        value = await ctx.call_activity(double, input=left)
        if left:
            group.create_task(work(group, left - 1))
        return value

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(group, n)) for n in (2, 0, 1)]
    return [task.result() for task in tasks]


async def task_group_fails(ctx):
    """A task of a group fails: the others are cancelled, run their `finally`, and the group fails the instance."""

    async def waits(name):
        try:
            await ctx.sleep(LATE)
        finally:
            await ctx.call_activity(echo, input=f"{name} tidied up")

    async def breaks():
        await ctx.call_activity(fail, input="broken")

    async with asyncio.TaskGroup() as group:
        group.create_task(waits("a"))
        group.create_task(breaks())
        group.create_task(waits("b"))


async def bounded_queue(ctx):
    """A bounded queue between two producers and two consumers."""
    queue = asyncio.Queue(maxsize=1)
    taken = []

    async def produce(name):
        for n in range(2):
            await queue.put(await ctx.call_activity(echo, input=f"{name}{n}"))

    async def consume(name):
        while True:
            item = await queue.get()
            taken.append(await ctx.call_activity(echo, input=f"{name} took {item}"))
            queue.task_done()

    consumers = [asyncio.create_task(consume(name)) for name in "xy"]
    await asyncio.gather(produce("a"), produce("b"))
    await queue.join()
    for consumer in consumers:
        consumer.cancel()
    return sorted(item.split()[-1] for item in taken)


async def event_lock_and_semaphore(ctx):
    """asyncio's own `Event`, `Lock`, `Semaphore` and `Condition`."""
    event, lock, semaphore, condition = asyncio.Event(), asyncio.Lock(), asyncio.Semaphore(2), asyncio.Condition()
    order = []

    async def work(n):
        await event.wait()
        async with semaphore:
            await ctx.call_activity(echo, input=f"semaphore {n}")
        async with lock:
            order.append(n)
            await ctx.call_activity(echo, input=f"lock {n}")
        async with condition:
            condition.notify_all()

    tasks = [asyncio.create_task(work(n)) for n in range(4)]
    await ctx.sleep(SOON)
    event.set()
    async with condition:
        await condition.wait_for(lambda: len(order) == 4)
    await asyncio.gather(*tasks)
    return await ctx.call_activity(echo, input="all four")


async def context_variables(ctx):
    """Each task has its context."""
    name = contextvars.ContextVar("name", default="nobody")

    async def work(value):
        name.set(value)
        await ctx.sleep(SOON)
        return await ctx.call_activity(echo, input=name.get())

    return [*await asyncio.gather(work("a"), work("b")), name.get()]


async def async_generator(ctx):
    """An async generator that is closed half-way."""

    async def doubled():
        try:
            for n in range(10):
                yield await ctx.call_activity(double, input=n)
        finally:
            await ctx.call_activity(echo, input="closed")

    seen = []
    async with contextlib.aclosing(doubled()) as values:
        async for value in values:
            seen.append(value)
            if value == 4:
                break
    return seen


# Cancellation --------------------------------------------------------------------------------------------------------


async def task_cancelled(ctx):
    """A task is cancelled while it waits; its `finally` takes steps."""
    seen = []

    async def work():
        try:
            await ctx.sleep(LATE)
        except asyncio.CancelledError as error:
            seen.append(str(error))
            raise
        finally:
            seen.append(await ctx.call_activity(echo, input="tidied up"))

    task = asyncio.create_task(work())
    await ctx.sleep(SOON)
    task.cancel("enough")
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return [*seen, task.cancelled()]


async def task_that_refuses_to_be_cancelled(ctx):
    """A task that swallows its cancellation and goes on."""

    async def work():
        try:
            await ctx.wait_for_external_event("never")
        except asyncio.CancelledError:
            return await ctx.call_activity(echo, input="went on")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    return await task


async def task_cancelled_before_it_starts(ctx):
    """A task that never gets to run."""
    task = asyncio.create_task(asyncio.sleep(LATE))
    task.cancel()
    done, _ = await asyncio.wait([task])
    return [task.cancelled(), len(done), await ctx.call_activity(double, input=1)]


async def operations_cancelled(ctx):
    """An activity, a timer, an event and a sub-orchestration are cancelled; their late results change nothing."""
    operations = [
        ctx.call_activity(double, input=1),
        ctx.create_timer(SOON),
        ctx.wait_for_external_event("never"),
        ctx.call_sub_orchestrator(child, input=1, instance_id=f"{ctx.instance_id}-child"),
        ctx.call_activity(fail, input="late", retry_policy=TWICE),
    ]
    for operation in operations:
        operation.cancel()
    await ctx.sleep(0.4)
    return [operation.cancelled() for operation in operations]


async def gather_cancelled(ctx):
    """A cancelled gather cancels its parts."""

    async def work(name):
        try:
            await ctx.sleep(LATE)
        finally:
            await ctx.call_activity(echo, input=f"{name} closed")

    parts = [asyncio.create_task(work(name)) for name in "ab"]
    both = asyncio.gather(*parts)
    await ctx.sleep(SOON)
    both.cancel()
    try:
        await both
    except asyncio.CancelledError:
        await asyncio.wait(parts)
        return [part.cancelled() for part in parts]


async def shield(ctx):
    """What is shielded goes on when its waiter is cancelled, and is awaited later."""

    async def work():
        await ctx.call_activity(slow, input=1)
        return await ctx.call_activity(echo, input="done after all")

    inner = asyncio.create_task(work())
    outer = asyncio.create_task(asyncio.wait_for(asyncio.shield(inner), SOON))
    try:
        await outer
    except asyncio.TimeoutError:
        await ctx.call_activity(echo, input="gave up waiting")
    return await inner


async def main_task_cancelled(ctx):
    """The workflow cancels itself and does not catch it."""
    await ctx.call_activity(double, input=1)
    asyncio.current_task().cancel("by myself")
    await ctx.sleep(LATE)


# Continue-as-new -----------------------------------------------------------------------------------------------------


async def continue_as_new(ctx, left):
    """Three executions; the last one has another version."""
    await ctx.call_activity(double, input=left)
    if left:
        ctx.continue_as_new(left - 1, new_version=f"v{left}")
        return None
    return ctx.version


async def continue_as_new_keeps_events(ctx, left):
    """What was not consumed is there for the next execution."""
    ctx.set_custom_status("ready")
    if left == 2:
        await ctx.wait_for_external_event("gate")
    value = await ctx.wait_for_external_event("go")
    if left:
        ctx.continue_as_new(left - 1, save_events=True)
        return None
    return value


async def continue_as_new_without_the_events(ctx, left):
    """What was not consumed is gone."""
    ctx.set_custom_status(left)
    if left:
        await ctx.wait_for_external_event("gate")
        ctx.continue_as_new(0)
        return None
    return await ctx.wait_for_external_event("go")


async def continue_as_new_with_tasks_and_cleanups(ctx, left):
    """Tasks that still run are dropped; cleanups of a block run before."""
    waiting = asyncio.create_task(asyncio.sleep(LATE))
    async with ctx:
        ctx.add_cleanup(lambda: ctx.call_activity(echo, input=f"cleaned up at {left}"))
        await ctx.sleep(SOON)
    if left:
        ctx.continue_as_new(left - 1)
        return None
    return waiting.done()


# The execution itself ------------------------------------------------------------------------------------------------


async def custom_status(ctx):
    """Several statuses, two of them in one turn."""
    ctx.set_custom_status({"step": 1})
    ctx.set_custom_status({"step": 2, "of": [3, None]})
    await ctx.call_activity(double, input=1)
    ctx.set_custom_status("üb")
    await ctx.sleep(SOON)


async def metadata(ctx):
    """Metadata of whoever started it, replaced, handed on to activities and children."""
    given = ctx.get_metadata()
    await ctx.call_activity(echo, input="a")
    ctx.set_metadata({**given, "step": "2"})
    await ctx.call_activity(echo, input="b", tags={"own": "tag"})
    ctx.set_headers({"only": "this"})
    await ctx.call_sub_orchestrator(child, input=1, instance_id=f"{ctx.instance_id}-child")
    return [given, ctx.get_headers()]


async def cleanups(ctx):
    """Cleanups of blocks and of the function, the latest first, and after a failure."""

    async def slow_cleanup():
        await ctx.sleep(SOON)
        await ctx.call_activity(echo, input="slow cleanup")

    ctx.add_cleanup(lambda: ctx.call_activity(echo, input="last"))
    async with ctx:
        ctx.add_cleanup(lambda: ctx.call_activity(echo, input="of the block"))
        ctx.add_cleanup(slow_cleanup)
        await ctx.call_activity(double, input=1)
    try:
        async with ctx:
            ctx.add_cleanup(lambda: ctx.call_activity(echo, input="after a failure"))
            await ctx.call_activity(fail, input="no")
    except ActivityFailedError:
        return "caught"


async def values_of_the_context(ctx):
    """`ctx.random`, `ctx.uuid4`, `ctx.new_uuid`, `ctx.now` and ids go into inputs."""
    dice = ctx.random()
    drawn = [dice.random(), dice.getrandbits(70), str(ctx.uuid4()), ctx.new_uuid()]
    await ctx.call_activity(echo, input=drawn)
    drawn = [ctx.random().random(), str(ctx.uuid4()), ctx.new_uuid(), ctx.now().isoformat()]
    await ctx.call_activity(echo, input=drawn)
    return [ctx.instance_id, ctx.workflow_name, ctx.parent_instance_id, ctx.version]


async def version_of_the_instance(ctx):
    """A branch by version."""
    if ctx.version == "2":
        await ctx.call_activity(echo, input="new way")
    return await ctx.call_activity(echo, input=ctx.version)


async def upstream_context(ctx):
    """What is scheduled through upstream's own context takes its numbers too."""
    ctx.upstream_context.set_custom_status("from upstream")
    ctx.upstream_context.call_activity(double, input=1)
    return await ctx.call_activity(double, input=2)


# Entities ------------------------------------------------------------------------------------------------------------


async def entity_calls_and_signals(ctx):
    """Signals, one of them for a given time, a call, a call that fails, and a result with a type."""
    ctx.signal_entity(counter(ctx), "add", 5)
    ctx.signal_entity(counter(ctx), "add", 6, signal_time=datetime(2020, 1, 1, tzinfo=timezone.utc))
    seen = [await ctx.call_entity(counter(ctx, "-2"), "add", 4, return_type=int)]
    try:
        await ctx.call_entity(counter(ctx), "explode")
    except ActivityFailedError as error:
        seen.append(error.details.message)
    return seen


async def entity_lock(ctx):
    """A lock on two entities, with calls side by side inside of it, taken again as a plain lock."""
    one, two = counter(ctx, "-1"), counter(ctx, "-2")
    async with ctx.lock_entities([two, one]):
        both = await asyncio.gather(ctx.call_entity(one, "add", 2), ctx.call_entity(two, "add", 3))
    lock = await ctx.lock_entities([one])
    with lock:
        await ctx.call_activity(double, input=1)
    return both


async def entity_lock_is_given_back_when_the_block_fails(ctx):
    """By an exception, and by a time limit while a call is outstanding."""
    with contextlib.suppress(ActivityFailedError):
        async with ctx.lock_entities([counter(ctx)]):
            await ctx.call_activity(fail, input="no")
    with contextlib.suppress(TimeoutError):
        async with ctx.lock_entities([counter(ctx)]):
            await ctx.with_timeout(ctx.call_entity(counter(ctx), "get"), 0)
    return await ctx.call_entity(counter(ctx), "add", 3)


async def entity_lock_that_comes_too_late(ctx):
    """A request that was cancelled is given back when it is granted."""
    request = ctx.lock_entities([counter(ctx)])
    request.cancel()
    await ctx.sleep(0.2)
    return await ctx.call_entity(counter(ctx), "add", 1)


# Suspending, resuming, terminating, rewinding ------------------------------------------------------------------------


async def suspended_while_an_event_comes(ctx):
    """Suspended and resumed; the event comes in between."""
    ctx.set_custom_status("ready")
    value = await ctx.wait_for_external_event("go")
    return await ctx.call_activity(double, input=value)


async def suspended_while_things_happen(ctx):
    """An activity and a timer are done while the instance is suspended, twice."""
    ctx.set_custom_status("ready")
    results = await asyncio.gather(ctx.call_activity(slow, input=1), ctx.sleep(0.3), ctx.wait_for_external_event("go"))
    return await ctx.call_activity(echo, input=results)


async def terminated_while_waiting(ctx):
    """Terminated with an output; the cleanup does not run."""
    ctx.add_cleanup(lambda: ctx.call_activity(echo, input="not this"))
    ctx.set_custom_status("ready")
    try:
        await ctx.wait_for_external_event("never")
    finally:
        await ctx.call_activity(echo, input="nor this")


async def terminated_while_suspended(ctx):
    """Terminated without an output."""
    ctx.set_custom_status("ready")
    await asyncio.gather(ctx.sleep(LATE), ctx.wait_for_external_event("never"))


async def terminated_with_its_child(ctx):
    """The child is terminated with its parent."""
    ctx.set_custom_status("ready")
    await ctx.call_sub_orchestrator(child_that_waits, instance_id=f"{ctx.instance_id}-child")


# Failures ------------------------------------------------------------------------------------------------------------


async def activity_fails(ctx):
    """A failed activity that nobody catches."""
    await ctx.call_activity(fail, input="no")


async def activity_is_not_registered(ctx):
    """The name of an activity that no worker has."""
    await ctx.call_activity("nobody", input=1)


async def raises_its_own_error(ctx):
    """An exception of the application."""
    await ctx.call_activity(double, input=1)
    raise OutOfStock("no tea")


async def raises_at_once(ctx):
    """An exception before the first step."""
    raise LookupError("at once")


async def raises_with_a_cause(ctx):
    """A chain: an error from a failed activity."""
    try:
        await ctx.call_activity(fail, input="root")
    except ActivityFailedError as error:
        raise OutOfStock("wrapped") from error


async def compensation(ctx):
    """Steps are undone in reverse, then the failure is raised again."""
    done = []
    try:
        for step in ("flight", "hotel"):
            await ctx.call_activity(echo, input=f"book {step}")
            done.append(step)
        await ctx.call_activity(fail, input="no car")
    except ActivityFailedError:
        for step in reversed(done):
            await ctx.call_activity(echo, input=f"cancel {step}")
        raise


async def deadlock(ctx):
    """Waits for itself."""
    await ctx.call_activity(double, input=1)
    await asyncio.Event().wait()


async def timeout_is_not_caught(ctx):
    """A time limit that runs out fails the instance."""
    await ctx.with_timeout(ctx.wait_for_external_event("paid"), SOON)


async def result_that_cannot_be_serialised(ctx):
    """A set is no JSON."""
    await ctx.call_activity(double, input=1)
    return {"items": {"sugar"}}


async def input_that_cannot_be_serialised(ctx):
    """Neither is it as the input of an activity; the error can be caught."""
    try:
        await ctx.call_activity(echo, input={"items": {"sugar"}})
    except TypeError:
        return await ctx.call_activity(echo, input="caught")
    except ValueError:
        return await ctx.call_activity(echo, input="caught as a value")


async def forgotten_await(ctx):
    """An operation as a result."""
    return [ctx.call_activity(double, input=1)]


async def system_exit(ctx):
    """`SystemExit` fails the instance."""
    await ctx.call_activity(double, input=1)
    raise SystemExit(3)


async def unsupported_call(ctx):
    """A thread."""
    return await asyncio.to_thread(len, "abc")


async def goes_on_after_continue_as_new(ctx):
    """Nothing durable can follow `continue_as_new`."""
    ctx.continue_as_new(1)
    await ctx.sleep(LATE)


async def background_task_fails(ctx):
    """An exception in a task that nobody awaits is logged and changes nothing."""

    async def breaks():
        await ctx.call_activity(fail, input="nobody looks")

    task = asyncio.create_task(breaks())
    await ctx.sleep(0.2)
    return [task.done(), await ctx.call_activity(double, input=1)]


async def background_task_is_dropped(ctx):
    """The workflow returns while a task of it still waits."""
    task = asyncio.create_task(asyncio.sleep(LATE))
    await asyncio.sleep(0)
    await ctx.call_activity(double, input=1)
    return task.done()


# The sandbox ---------------------------------------------------------------------------------------------------------


async def sandbox_replaces_values(ctx):
    """`best_effort`: clock, random numbers and uuids have deterministic values."""
    drawn = [time.time(), random.random(), random.getrandbits(40), str(uuid.uuid4())]
    await ctx.call_activity(echo, input=drawn)
    drawn = [datetime.now(timezone.utc).isoformat(), time.monotonic() >= 0, random.Random(5).random(), random.random()]
    await ctx.call_activity(echo, input=drawn)
    return str(uuid.uuid1()) != str(uuid.uuid4())


async def sandbox_strict_refuses(ctx):
    """`strict`: a violation at the call."""
    await ctx.call_activity(double, input=1)
    read = vars(time)["time"]
    return read()


async def sandbox_strict_lets_through(ctx):
    """`strict`: an ordinary workflow."""
    drawn = [ctx.random().random(), str(ctx.uuid4())]
    await asyncio.gather(ctx.call_activity(echo, input=drawn), ctx.sleep(SOON))
    return drawn[0] < 1


# anyio ---------------------------------------------------------------------------------------------------------------


async def anyio_task_group(ctx):
    """A group whose tasks take several steps, one of which says that it has started."""
    results = {}

    async def member(n):
        results[str(n)] = await ctx.call_activity(double, input=await ctx.call_activity(double, input=n))

    async def serve(*, task_status):
        task_status.started(await ctx.call_activity(double, input=50))
        await anyio.sleep(SOON)

    async with anyio.create_task_group() as group:
        for n in range(3):
            group.start_soon(member, n)
        results["served"] = await group.start(serve)
    return sorted(results.items())


async def anyio_timeouts(ctx):
    """`move_on_after` and `fail_after`, in time and too late, and a scope that is cancelled by hand."""
    seen = []
    with anyio.move_on_after(SOON) as scope:
        await anyio.sleep(LATE)
    seen.append(scope.cancelled_caught)
    with anyio.move_on_after(LATE) as scope:
        seen.append(await ctx.call_activity(double, input=1))
    try:
        with anyio.fail_after(SOON):
            await ctx.wait_for_external_event("never")
    except TimeoutError:
        seen.append("failed")
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, LATE)
            await anyio.sleep(SOON)
            scope.cancel()
    return await ctx.call_activity(echo, input=[*seen, scope.cancel_called])


async def anyio_shielded_scope(ctx):
    """What was begun in a shielded scope is finished."""
    seen = []
    with anyio.move_on_after(SOON):
        try:
            await anyio.sleep(LATE)
        finally:
            with anyio.CancelScope(shield=True):
                seen.append(await ctx.call_activity(slow, input="finished"))
    return await ctx.call_activity(echo, input=seen)


async def anyio_streams_and_locks(ctx):
    """Memory streams, an event, a lock and a limiter."""
    send, receive = anyio.create_memory_object_stream(1)
    event, lock, limiter = anyio.Event(), anyio.Lock(), anyio.CapacityLimiter(1)

    async def produce(name):
        await event.wait()
        async with limiter, lock:
            await send.send(await ctx.call_activity(echo, input=name))

    with send, receive:
        async with anyio.create_task_group() as group:
            for name in "abc":
                group.start_soon(produce, name)
            await anyio.sleep(SOON)
            event.set()
            return [await receive.receive() for _ in range(3)]


async def anyio_task_group_fails(ctx):
    """A member fails, the others tidy up, and the group fails the instance."""

    async def waits():
        try:
            await anyio.sleep(LATE)
        finally:
            with anyio.CancelScope(shield=True):
                await ctx.call_activity(echo, input="tidied up")

    async def breaks():
        await ctx.call_activity(fail, input="broken")

    async with anyio.create_task_group() as group:
        group.start_soon(waits)
        group.start_soon(breaks)


# Generators ----------------------------------------------------------------------------------------------------------


def generator_sequence(ctx, value):
    """A generator: activities, a timer, retries, a custom status and an event."""
    value = yield ctx.call_activity(double, input=value)
    yield ctx.create_timer(timedelta(milliseconds=50))
    value += yield ctx.call_activity(flaky, input=1, retry_policy=TWICE)
    ctx.set_custom_status("ready")
    return [value, (yield ctx.wait_for_external_event("go")), ctx.new_uuid()]


def generator_fan_out(ctx, _):
    """A generator: `when_all`, `when_any`, and an async child."""
    parts = yield task.when_all([ctx.call_activity(double, input=n) for n in range(3)])
    timer, event = ctx.create_timer(timedelta(milliseconds=50)), ctx.wait_for_external_event("never")
    winner = yield task.when_any([timer, event])
    return [parts, winner is timer, (yield ctx.call_sub_orchestrator("child", input=2))["doubled"]]


def generator_with_entities(ctx, _):
    """A generator: calls, signals and locks of entities."""
    ctx.signal_entity(counter(ctx), "add", 5)
    with (yield ctx.lock_entities([counter(ctx, "-2")])):
        value = yield ctx.call_entity(counter(ctx, "-2"), "add", 2)
    return value + (yield ctx.call_entity(counter(ctx, "-2"), "add", 3))


def generator_fails(ctx, _):
    """A generator: a failure that is caught, and one that is not."""
    try:
        yield ctx.call_activity(fail, input="first")
    except TaskFailedError:
        yield ctx.call_activity(echo, input="caught")
    yield ctx.call_sub_orchestrator(child_that_fails, input="second")


def generator_that_continues_as_new(ctx, left):
    """A generator: three executions."""
    yield ctx.call_activity(double, input=left)
    if left:
        ctx.continue_as_new(left - 1)
        return None
    return "end"


# More of everything --------------------------------------------------------------------------------------------------


async def fan_out(ctx, count):
    """Many activities at a time, and a step for each that is done."""
    done = []
    for operation in asyncio.as_completed([ctx.call_activity(double, input=n) for n in range(count)]):
        done.append(await operation)
    return [sorted(done), await ctx.call_activity(echo, input=len(done))]


async def rewound(ctx):
    """Fails, is rewound, and goes on."""
    first = await ctx.call_activity(double, input=1)
    return [first, await ctx.call_activity(flaky, input=1), await ctx.call_activity(double, input=2)]


async def debug_info(ctx):
    """The facts about an execution, after a step and a timer that still runs."""
    await ctx.call_activity(double, input=1)
    ctx.create_timer(LATE)
    ctx.add_cleanup(lambda: None)
    return ctx.get_debug_info()


async def timeout_of_a_task_group(ctx):
    """Groups within groups, of which the inner one runs out of time."""

    async def work(name, delay):
        try:
            await ctx.sleep(delay)
            return await ctx.call_activity(echo, input=f"{name} in time")
        except asyncio.CancelledError:
            await ctx.call_activity(echo, input=f"{name} cancelled")
            raise

    async with asyncio.TaskGroup() as outer:
        outer.create_task(work("outer", 0.2))
        try:
            async with asyncio.timeout(0.1), asyncio.TaskGroup() as inner:
                inner.create_task(work("quick", 0.02))
                inner.create_task(work("slow", LATE))
        except TimeoutError:
            await ctx.call_activity(echo, input="inner group timed out")
    return asyncio.current_task().cancelling()


async def eager_tasks(ctx):
    """Tasks that start at once, from Python 3.12 on."""

    async def work(name):
        first = await ctx.call_activity(echo, input=f"{name} 1")
        return await ctx.call_activity(echo, input=[first, f"{name} 2"])

    loop = asyncio.get_running_loop()
    eager = asyncio.Task(work("eager"), loop=loop, eager_start=True)
    lazy = asyncio.create_task(work("lazy"))
    direct = ctx.call_activity(echo, input="direct")
    return await asyncio.gather(eager, lazy, direct)


async def shut_down_queue(ctx):
    """`Queue.shutdown` and `async for ... in as_completed`, from Python 3.13 on."""
    queue = asyncio.Queue()

    async def produce():
        async for done in asyncio.as_completed([ctx.sleep(SOON), ctx.call_activity(double, input=3)]):
            await queue.put(await done)
        queue.shutdown()

    task = asyncio.create_task(produce())
    seen = []
    with contextlib.suppress(asyncio.QueueShutDown):
        while True:
            seen.append(await ctx.call_activity(echo, input=await queue.get()))
    await task
    return seen


async def waiting_for_ever(ctx):
    """An instance in flight: its history has no end."""
    ctx.set_custom_status("waits")
    timer = ctx.create_timer(timedelta(days=400))
    approval = ctx.wait_for_external_event("approval")
    await ctx.call_activity(double, input=1)
    ctx.set_custom_status("ready")
    return await ctx.when_any([timer, approval])


from durabletask.aio import AsyncWorkflowError  # noqa: E402


async def order_of_a_set(ctx):
    """Sets of operations and of tasks have an order, and steps are taken in it."""

    async def work(n):
        return await ctx.call_activity(double, input=n)

    operations = {ctx.call_activity(double, input=n) for n in range(12)}
    tasks = {asyncio.create_task(work(n)) for n in range(12, 24)}
    done, _ = await asyncio.wait(operations | tasks)
    for each in done:
        await ctx.call_activity(echo, input=await each)
    return len(done)


async def metadata_of_the_next_execution(ctx, left):
    """Metadata that changes from execution to execution, and loses a key; it goes with each retry too."""
    given = ctx.get_metadata()
    await ctx.call_activity(echo, input=given)
    with contextlib.suppress(SubOrchestrationFailedError):
        await ctx.call_sub_orchestrator(child_that_fails, input="no", retry_policy=TWICE)
    if left:
        ctx.set_metadata({"left": str(left)} if left == 1 else {**given, "added": "yes"})
        ctx.continue_as_new(left - 1)
        return None
    return given


async def names_of_tasks(ctx):
    """Names that asyncio gives, and one that the workflow gives."""
    tasks = [asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(asyncio.sleep(0), name="mine")]
    await asyncio.wait(tasks)
    return await ctx.call_activity(echo, input=[task.get_name() for task in (*tasks, asyncio.current_task())])


async def unordered_start_is_refused(ctx):
    """`asyncio.as_completed` of bare coroutines; the error is caught, and the workflow goes on."""

    async def work(n):
        return await ctx.call_activity(double, input=n)

    try:
        for done in asyncio.as_completed([work(1), work(2)]):
            await done
    except AsyncWorkflowError as error:
        return await ctx.call_activity(echo, input=type(error).__name__)
