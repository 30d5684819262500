"""The workflows of the scenarios as generators, in Dapr's own dialect, and the activities of both dialects.

Started as a program, it is a worker with all of them, at the sidecar that the environment names:

    python generator_workflows.py

Each activity appends one line to the file `runs` before it works, in the folder that the environment variable
`SCENARIO_FOLDER` names. SIGTERM ends the worker.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

from dapr.ext.workflow import (
    DaprWorkflowContext,
    RetryPolicy,
    WorkflowActivityContext,
    WorkflowRuntime,
    when_all,
    when_any,
)

Steps = Generator[Any, Any, Any]

MANY = RetryPolicy(first_retry_interval=timedelta(milliseconds=50), max_number_of_attempts=3)
BIG = 1_000_000

# Activities --------------------------------------------------------------------------------------------------

_folder = Path(os.environ.get("SCENARIO_FOLDER", "."))


def note(instance_id: str, name: str, value: Any) -> int:
    """Note a run of an activity, and return how often it has run for this instance and value."""
    line = json.dumps([instance_id, name, value]) + "\n"
    # One write of less than a page with O_APPEND: lines of several processes do not mix.
    file = os.open(_folder / "runs", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
    return runs(_folder).count((instance_id, name, value))


def runs(folder: Path) -> list[tuple[str, str, Any]]:
    """Return the instance, name and input of each run of an activity until now."""
    try:
        text = (folder / "runs").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [tuple(json.loads(line)) for line in text.splitlines()]


def add_one(ctx: WorkflowActivityContext, number: int) -> int:
    note(ctx.workflow_id, "add_one", number)
    return number + 1


async def double(ctx: WorkflowActivityContext, number: int) -> int:
    note(ctx.workflow_id, "double", number)
    return number * 2


def slow(ctx: WorkflowActivityContext, seconds: float) -> str:
    note(ctx.workflow_id, "slow", seconds)
    time.sleep(seconds)
    return "slow"


def fail(ctx: WorkflowActivityContext, text: str) -> None:
    note(ctx.workflow_id, "fail", text)
    raise ValueError(text)


def fail_until(ctx: WorkflowActivityContext, attempts: int) -> int:
    attempt = note(ctx.workflow_id, "fail_until", attempts)
    if attempt < attempts:
        raise ConnectionError(f"attempt {attempt}")
    return attempt


def echo(ctx: WorkflowActivityContext, value: Any) -> Any:
    return value


def size(ctx: WorkflowActivityContext, text: str) -> str:
    return text + "y" * len(text)


ACTIVITIES: list[Callable[..., Any]] = [add_one, double, slow, fail, fail_until, echo, size]

# Workflows ---------------------------------------------------------------------------------------------------


def chain(ctx: DaprWorkflowContext, steps: int) -> Steps:
    number = 0
    for _ in range(steps):
        number = yield ctx.call_activity("add_one", input=number)
    return number


def async_activities(ctx: DaprWorkflowContext, number: int) -> Steps:
    number = yield ctx.call_activity("double", input=number)
    return (yield ctx.call_activity("double", input=number))


def fan_out(ctx: DaprWorkflowContext, width: int) -> Steps:
    found = yield when_all([ctx.call_activity("add_one", input=number) for number in range(width)])
    return sum(found)


def race(ctx: DaprWorkflowContext, _: Any) -> Steps:
    timer = ctx.create_timer(timedelta(seconds=60))
    activity = ctx.call_activity("add_one", input=6)
    winner = yield when_any([activity, timer])
    return "timer" if winner is timer else activity.get_result()


def late(ctx: DaprWorkflowContext, _: Any) -> Steps:
    timer = ctx.create_timer(timedelta(milliseconds=100))
    activity = ctx.call_activity("slow", input=2)
    winner = yield when_any([activity, timer])
    return "timer" if winner is timer else activity.get_result()


def timers(ctx: DaprWorkflowContext, milliseconds: list[int]) -> Steps:
    elapsed = []
    for each in milliseconds:
        begin = ctx.current_utc_datetime
        yield ctx.create_timer(timedelta(milliseconds=each))
        elapsed.append(ctx.current_utc_datetime - begin >= timedelta(milliseconds=each))
    return elapsed


def one_event(ctx: DaprWorkflowContext, name: str) -> Steps:
    ctx.set_custom_status("waiting")
    return (yield ctx.wait_for_external_event(name))


def two_events(ctx: DaprWorkflowContext, _: Any) -> Steps:
    ctx.set_custom_status("waiting")
    first = yield ctx.wait_for_external_event("number")
    second = yield ctx.wait_for_external_event("number")
    return [first, second]


def buffered_event(ctx: DaprWorkflowContext, _: Any) -> Steps:
    ctx.set_custom_status("waiting")
    yield ctx.wait_for_external_event("go")
    return (yield ctx.wait_for_external_event("early"))


def event_or_timeout(ctx: DaprWorkflowContext, milliseconds: int) -> Steps:
    ctx.set_custom_status("waiting")
    try:
        return (yield ctx.wait_for_external_event("answer", timeout=timedelta(milliseconds=milliseconds)))
    except TimeoutError:
        return "timeout"


def child(ctx: DaprWorkflowContext, number: int) -> Steps:
    return (yield ctx.call_activity("add_one", input=number))


def failing_child(ctx: DaprWorkflowContext, text: str) -> Steps:
    yield ctx.call_activity("fail", input=text)


def waiting_child(ctx: DaprWorkflowContext, _: Any) -> Steps:
    ctx.set_custom_status("waiting")
    return (yield ctx.wait_for_external_event("never"))


def parent(ctx: DaprWorkflowContext, number: int) -> Steps:
    return (yield ctx.call_child_workflow(child, input=number))


def parent_with_id(ctx: DaprWorkflowContext, number: int) -> Steps:
    return (yield ctx.call_child_workflow(child, input=number, instance_id=f"{ctx.instance_id}-named"))


def parents(ctx: DaprWorkflowContext, width: int) -> Steps:
    return (yield when_all([ctx.call_child_workflow(child, input=number) for number in range(width)]))


def parent_of_failure(ctx: DaprWorkflowContext, text: str) -> Steps:
    try:
        yield ctx.call_child_workflow(failing_child, input=text)
    except Exception as error:
        return text in str(error)
    return "not raised"


def parent_of_waiting(ctx: DaprWorkflowContext, _: Any) -> Steps:
    ctx.set_custom_status("waiting")
    return (yield ctx.call_child_workflow(waiting_child, instance_id=f"{ctx.instance_id}-child"))


def uncaught(ctx: DaprWorkflowContext, text: str) -> Steps:
    yield ctx.call_activity("fail", input=text)


def caught(ctx: DaprWorkflowContext, text: str) -> Steps:
    try:
        yield ctx.call_activity("fail", input=text)
    except Exception as error:
        found = text in str(error)
    return [found, (yield ctx.call_activity("add_one", input=1))]


def own_error(ctx: DaprWorkflowContext, text: str) -> Steps:
    yield ctx.call_activity("add_one", input=1)
    raise KeyError(text)


def retried(ctx: DaprWorkflowContext, attempts: int) -> Steps:
    return (yield ctx.call_activity("fail_until", input=attempts, retry_policy=MANY))


def retried_child(ctx: DaprWorkflowContext, text: str) -> Steps:
    try:
        yield ctx.call_child_workflow(failing_child, input=text, retry_policy=MANY)
    except Exception as error:
        return text in str(error)
    return "not raised"


def counter(ctx: DaprWorkflowContext, number: int) -> Steps:
    number = yield ctx.call_activity("add_one", input=number)
    if number < 5:
        ctx.continue_as_new(number)
        return None
    return number


def collector(ctx: DaprWorkflowContext, found: list[Any]) -> Steps:
    ctx.set_custom_status("waiting")
    found = [*found, (yield ctx.wait_for_external_event("item"))]
    if len(found) < 4:
        ctx.continue_as_new(found, save_events=True)
        return None
    return found


def status(ctx: DaprWorkflowContext, texts: list[str]) -> Steps:
    for text in texts:
        ctx.set_custom_status(text)
        yield ctx.call_activity("add_one", input=0)
    return len(texts)


def big(ctx: DaprWorkflowContext, length: int) -> Steps:
    text = yield ctx.call_activity("size", input="x" * length)
    return len(text)


def values(ctx: DaprWorkflowContext, inputs: list[Any]) -> Steps:
    found = []
    for value in inputs:
        found.append((yield ctx.call_activity("echo", input=value)))
    return found


def nothing(ctx: DaprWorkflowContext, _: Any) -> Steps:
    yield ctx.call_activity("add_one", input=1)


def patched(ctx: DaprWorkflowContext, _: Any) -> Steps:
    before = ctx.is_patched("new")
    yield ctx.call_activity("add_one", input=1)
    return [before, ctx.is_patched("new")]


def replayed(ctx: DaprWorkflowContext, steps: int) -> Steps:
    for number in range(steps):
        if not ctx.is_replaying:
            note(ctx.instance_id, "said", number)
        yield ctx.call_activity("add_one", input=number)


def unregistered_activity(ctx: DaprWorkflowContext, _: Any) -> Steps:
    try:
        yield ctx.call_activity("nobody_has_registered_this", input=1)
    except Exception as error:
        return "nobody_has_registered_this" in str(error)
    return "not raised"


def long_chain(ctx: DaprWorkflowContext, arguments: list[float]) -> Steps:
    """A chain with some work in each step, for the tests that kill what runs it."""
    steps, seconds = arguments
    done = []
    for number in range(int(steps)):
        yield ctx.call_activity("slow", input=seconds)
        done.append((yield ctx.call_activity("add_one", input=number)))
    return done


def stages(ctx: DaprWorkflowContext, count: int) -> Steps:
    """Each stage begins with an event, so that another worker can take over between two of them."""
    found: list[Any] = []
    for number in range(count):
        ctx.set_custom_status(f"stage {number}")
        found.append((yield ctx.wait_for_external_event("go")))
        yield ctx.create_timer(timedelta(milliseconds=10))
        found.append((yield ctx.call_child_workflow(child, input=number)))
        found += yield when_all([ctx.call_activity("double", input=each) for each in (number, number + 1)])
        try:
            yield ctx.call_activity("fail", input="broken", retry_policy=MANY)
        except Exception as error:
            found.append("broken" in str(error))
    return [*found, ctx.is_patched("stages")]


WORKFLOWS: list[Callable[..., Any]] = [
    async_activities, big, buffered_event, caught, chain, child, collector, counter, event_or_timeout, failing_child,
    fan_out, late, long_chain, nothing, one_event, own_error, parent, parent_of_failure, parent_of_waiting,
    parent_with_id, parents, patched, race, replayed, retried, retried_child, stages, status, timers, two_events,
    uncaught, unregistered_activity, values, waiting_child,
]  # fmt: skip


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
