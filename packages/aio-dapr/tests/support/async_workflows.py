"""The workflows of `generator_workflows` as async functions, on `durabletask_aio.dapr`.

Started as a program, it is a worker with all of them, as `generator_workflows` is.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import generator_workflows
from generator_workflows import ACTIVITIES, note

from durabletask_aio.dapr import RetryPolicy, WorkflowContext, WorkflowRuntime

MANY = RetryPolicy(first_retry_interval=timedelta(milliseconds=50), max_number_of_attempts=3)


async def chain(ctx: WorkflowContext, steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await ctx.call_activity("add_one", input=number)
    return number


async def async_activities(ctx: WorkflowContext, number: int) -> int:
    number = await ctx.call_activity("double", input=number)
    return await ctx.call_activity("double", input=number)


async def fan_out(ctx: WorkflowContext, width: int) -> int:
    return sum(await asyncio.gather(*[ctx.call_activity("add_one", input=number) for number in range(width)]))


async def race(ctx: WorkflowContext, _: Any) -> Any:
    timer = ctx.create_timer(timedelta(seconds=60))
    activity = ctx.call_activity("add_one", input=6)
    done, _pending = await asyncio.wait([activity, timer], return_when=asyncio.FIRST_COMPLETED)
    return "timer" if timer in done else activity.result()


async def late(ctx: WorkflowContext, _: Any) -> Any:
    activity = ctx.call_activity("slow", input=2)
    try:
        return await asyncio.wait_for(activity, 0.1)
    except asyncio.TimeoutError:
        return "timer"


async def timers(ctx: WorkflowContext, milliseconds: list[int]) -> list[bool]:
    elapsed = []
    for each in milliseconds:
        begin = ctx.now()
        await asyncio.sleep(each / 1000)
        elapsed.append(ctx.now() - begin >= timedelta(milliseconds=each))
    return elapsed


async def one_event(ctx: WorkflowContext, name: str) -> Any:
    ctx.set_custom_status("waiting")
    return await ctx.wait_for_external_event(name)


async def two_events(ctx: WorkflowContext, _: Any) -> list[Any]:
    ctx.set_custom_status("waiting")
    first = await ctx.wait_for_external_event("number")
    return [first, await ctx.wait_for_external_event("number")]


async def buffered_event(ctx: WorkflowContext, _: Any) -> Any:
    ctx.set_custom_status("waiting")
    await ctx.wait_for_external_event("go")
    return await ctx.wait_for_external_event("early")


async def event_or_timeout(ctx: WorkflowContext, milliseconds: int) -> Any:
    ctx.set_custom_status("waiting")
    try:
        return await ctx.wait_for_external_event("answer", timeout=timedelta(milliseconds=milliseconds))
    except TimeoutError:
        return "timeout"


async def child(ctx: WorkflowContext, number: int) -> int:
    return await ctx.call_activity("add_one", input=number)


async def failing_child(ctx: WorkflowContext, text: str) -> None:
    await ctx.call_activity("fail", input=text)


async def waiting_child(ctx: WorkflowContext, _: Any) -> Any:
    ctx.set_custom_status("waiting")
    return await ctx.wait_for_external_event("never")


async def parent(ctx: WorkflowContext, number: int) -> int:
    return await ctx.call_child_workflow(child, input=number)


async def parent_with_id(ctx: WorkflowContext, number: int) -> int:
    return await ctx.call_child_workflow(child, input=number, instance_id=f"{ctx.instance_id}-named")


async def parents(ctx: WorkflowContext, width: int) -> list[int]:
    return await ctx.gather(*[ctx.call_child_workflow(child, input=number) for number in range(width)])


async def parent_of_failure(ctx: WorkflowContext, text: str) -> Any:
    try:
        await ctx.call_child_workflow(failing_child, input=text)
    except Exception as error:
        return text in str(error)
    return "not raised"


async def parent_of_waiting(ctx: WorkflowContext, _: Any) -> Any:
    ctx.set_custom_status("waiting")
    return await ctx.call_child_workflow(waiting_child, instance_id=f"{ctx.instance_id}-child")


async def uncaught(ctx: WorkflowContext, text: str) -> None:
    await ctx.call_activity("fail", input=text)


async def caught(ctx: WorkflowContext, text: str) -> list[Any]:
    try:
        await ctx.call_activity("fail", input=text)
    except Exception as error:
        found = text in str(error)
    return [found, await ctx.call_activity("add_one", input=1)]


async def own_error(ctx: WorkflowContext, text: str) -> None:
    await ctx.call_activity("add_one", input=1)
    raise KeyError(text)


async def retried(ctx: WorkflowContext, attempts: int) -> int:
    return await ctx.call_activity("fail_until", input=attempts, retry_policy=MANY)


async def retried_child(ctx: WorkflowContext, text: str) -> Any:
    try:
        await ctx.call_child_workflow(failing_child, input=text, retry_policy=MANY)
    except Exception as error:
        return text in str(error)
    return "not raised"


async def counter(ctx: WorkflowContext, number: int) -> int | None:
    number = await ctx.call_activity("add_one", input=number)
    if number < 5:
        ctx.continue_as_new(number)
        return None
    return number


async def collector(ctx: WorkflowContext, found: list[Any]) -> list[Any] | None:
    ctx.set_custom_status("waiting")
    found = [*found, await ctx.wait_for_external_event("item")]
    if len(found) < 4:
        ctx.continue_as_new(found, save_events=True)
        return None
    return found


async def status(ctx: WorkflowContext, texts: list[str]) -> int:
    for text in texts:
        ctx.set_custom_status(text)
        await ctx.call_activity("add_one", input=0)
    return len(texts)


async def big(ctx: WorkflowContext, length: int) -> int:
    return len(await ctx.call_activity("size", input="x" * length))


async def values(ctx: WorkflowContext, inputs: list[Any]) -> list[Any]:
    return [await ctx.call_activity("echo", input=value) for value in inputs]


async def nothing(ctx: WorkflowContext, _: Any) -> None:
    await ctx.call_activity("add_one", input=1)


async def patched(ctx: WorkflowContext, _: Any) -> list[bool]:
    before = ctx.is_patched("new")
    await ctx.call_activity("add_one", input=1)
    return [before, ctx.patched("new")]


async def replayed(ctx: WorkflowContext, steps: int) -> None:
    for number in range(steps):
        if not ctx.is_replaying:
            note(ctx.instance_id, "said", number)
        await ctx.call_activity("add_one", input=number)


async def unregistered_activity(ctx: WorkflowContext, _: Any) -> Any:
    try:
        await ctx.call_activity("nobody_has_registered_this", input=1)
    except Exception as error:
        return "nobody_has_registered_this" in str(error)
    return "not raised"


async def long_chain(ctx: WorkflowContext, arguments: list[float]) -> list[int]:
    steps, seconds = arguments
    done = []
    for number in range(int(steps)):
        await ctx.call_activity("slow", input=seconds)
        done.append(await ctx.call_activity("add_one", input=number))
    return done


async def stages(ctx: WorkflowContext, count: int) -> list[Any]:
    found: list[Any] = []
    for number in range(count):
        ctx.set_custom_status(f"stage {number}")
        found.append(await ctx.wait_for_external_event("go"))
        await ctx.create_timer(timedelta(milliseconds=10))
        found.append(await ctx.call_child_workflow(child, input=number))
        found += await ctx.when_all([ctx.call_activity("double", input=each) for each in (number, number + 1)])
        try:
            await ctx.call_activity("fail", input="broken", retry_policy=MANY)
        except Exception as error:
            found.append("broken" in str(error))
    return [*found, ctx.patched("stages")]


WORKFLOWS: list[Callable[..., Any]] = [globals()[workflow.__name__] for workflow in generator_workflows.WORKFLOWS]


def main() -> None:
    """Work until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    runtime = WorkflowRuntime()
    for workflow in WORKFLOWS:
        runtime.register_workflow(workflow)
    for activity in ACTIVITIES:
        runtime.register_activity(activity)
    runtime.start()
    print("ready", flush=True)
    ended.wait()
    runtime.shutdown()


if __name__ == "__main__":
    main()
