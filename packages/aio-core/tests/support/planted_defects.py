"""Defects of the core, by name: as a pytest plugin this module plants one of them before any test is collected.

Each of them reverts a decision whose absence only a proof of determinism detects.  `proof/test_planted_defects.py`
names the test that has to fail; this plugin reports which tests failed and how, so that a failure of the planting does
not count.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import traceback
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from durabletask_aio.core import (
    _upstream,
    _upstream_events,
    asyncio_order,
    cancel_deliveries,
    cancel_requests,
    cancellation,
    children,
    cleanup,
    combinators,
    context,
    disposal,
    execution,
    failures,
    journal,
    loop,
    open_requests,
    requests,
    retries,
    steps,
)
from durabletask_aio.core.deterministic import Streams
from durabletask_aio.core.operations import ScheduledOperation

VARIABLE = "DURABLETASK_AIO_TEST_DEFECT"
"""Names the defect to plant."""

REPORT_VARIABLE = "DURABLETASK_AIO_TEST_DEFECT_REPORT"
"""Names a file to which each failure is appended as a line of JSON: test, phase, exception types, text."""

DEFECTS: dict[str, Callable[[], None]] = {}


def defect(plant: Callable[[], None]) -> Callable[[], None]:
    DEFECTS[plant.__name__] = plant
    return plant


def set_(owner: Any, name: str, value: Any) -> None:
    """Replace an attribute, which must exist: otherwise the defect would change nothing."""
    assert hasattr(owner, name), f"{owner!r} has no {name!r} any more: plant this defect in another way"
    setattr(owner, name, value)


def nothing(*args: Any, **kwargs: Any) -> None:
    """Do nothing; stands in for a function."""


@defect
def scheduling_at_the_await() -> None:
    original = context.AsyncWorkflowContext.call_activity

    def call_activity(self: Any, *args: Any, **kwargs: Any) -> Any:
        async def later() -> Any:
            return await original(self, *args, **kwargs)

        return asyncio.get_running_loop().create_task(later())

    set_(context.AsyncWorkflowContext, "call_activity", call_activity)


@defect
def hashes_by_address() -> None:
    for kind in (loop.WorkflowTask, loop.WorkflowFuture, ScheduledOperation):
        set_(kind, "__hash__", object.__hash__)


@defect
def hashes_without_the_instance_id() -> None:
    set_(loop.zlib, "crc32", lambda data: 0)


class _Round(deque[Any]):
    """A ready queue that runs what is in it, and leaves what is added meanwhile for the next turn."""

    def __init__(self, handles: Any) -> None:
        super().__init__(handles)
        self.later: list[Any] | None = None

    def append(self, handle: Any) -> None:
        super().append(handle) if self.later is None else self.later.append(handle)


@defect
def ready_queue_left_undrained() -> None:
    original = loop.WorkflowLoop.run_ready

    def run_ready(self: Any) -> None:
        if type(self._ready) is not _Round:
            self._ready = _Round(self._ready)
        self._ready.later = []
        original(self)
        left, self._ready.later = self._ready.later, None
        self._ready.extend(left)

    set_(loop.WorkflowLoop, "run_ready", run_ready)


@defect
def workflow_resumed_once_per_batch() -> None:
    """Resume the workflow after the last event of a batch only."""
    from durabletask.worker import _OrchestrationExecutor, _RuntimeOrchestrationContext

    executor, resume = _OrchestrationExecutor.execute, _RuntimeOrchestrationContext.resume

    def execute(self: Any, instance_id: str, old: Any, new: Any) -> Any:
        ends = {id(events[-1]) for events in (old, new) if events}
        process = self.process_event

        def process_event(ctx: Any, event: Any) -> None:
            ctx._ends_batch = id(event) in ends or event.HasField("executionStarted")
            process(ctx, event)

        self.process_event = process_event
        return executor(self, instance_id, old, new)

    def at_the_end(self: Any) -> None:
        if getattr(self, "_ends_batch", True):
            resume(self)

    set_(_OrchestrationExecutor, "execute", execute)
    set_(_RuntimeOrchestrationContext, "resume", at_the_end)


@defect
def user_code_inside_of_upstreams_event() -> None:
    run_attached, complete = execution.Execution.run_attached, ScheduledOperation.on_child_completed
    latest: dict[int, Any] = {}

    def remembering(self: Any, upstream: Any, code: Callable[[], None]) -> None:
        latest[id(self)] = upstream
        run_attached(self, upstream, code)

    def complete_and_run(self: Any, task: Any) -> None:
        complete(self, task)
        its = self._loop.execution
        if id(its) in latest and not its.evicted and not its.attached:
            its.attach(latest[id(its)])
            self._loop.run_ready()
            its.detach()

    set_(execution.Execution, "run_attached", remembering)
    set_(ScheduledOperation, "on_child_completed", complete_and_run)


@defect
def event_wait_not_taken_back() -> None:
    set_(_upstream, "pending_event", nothing)


@defect
def timer_not_taken_back() -> None:
    set_(_upstream, "cancel_timer", nothing)


@defect
def loop_not_woken() -> None:
    original = ScheduledOperation.on_child_completed

    def complete(self: Any, task: Any) -> None:
        wake = self._loop.wake
        before = wake.is_complete
        original(self, task)
        wake.is_complete = before

    set_(ScheduledOperation, "on_child_completed", complete)


@defect
def unordered_start_accepted() -> None:
    set_(asyncio_order, "_UNORDERED", {})


@defect
def cleanups_not_run() -> None:
    async def close(self: Any, error: Any) -> None:
        """Forgets them."""

    set_(cleanup.Cleanups, "close", close)


@defect
def uuids_from_the_stream_of_random_numbers() -> None:
    original = Streams.stream
    set_(Streams, "stream", lambda self, purpose: original(self, "random"))


@defect
def streams_seeded_by_the_process() -> None:
    made: dict[tuple[int, str], random.Random] = {}
    set_(
        Streams,
        "stream",
        lambda self, purpose: made.setdefault((id(self), purpose), random.Random(hash((purpose, *self._seed)))),
    )


@defect
def streams_seeded_by_the_instance_alone() -> None:
    original = Streams.__init__
    set_(
        Streams,
        "__init__",
        lambda self, instance_id, started_at: original(self, instance_id, started_at.replace(2020, 1, 1, 0, 0, 0, 0)),
    )


@defect
def metadata_not_sent_again() -> None:
    original = _upstream.tag_actions

    def tag_actions(context: Any, tags_of: Any) -> None:
        original(context, tags_of)
        tagged = context.get_actions

        def get_actions() -> Any:
            actions = tagged()
            for action in actions:
                retried = getattr(context._pending_tasks.get(action.id), "_attempt_count", 1) > 1
                if retried and action.HasField("createSubOrchestration"):
                    action.createSubOrchestration.tags.clear()
            return actions

        context.get_actions = get_actions

    set_(_upstream, "tag_actions", tag_actions)


@defect
def retry_timeout_by_the_wall_clock() -> None:
    set_(retries, "use_workflow_clock", nothing)


@defect
def entities_left_locked() -> None:
    set_(_upstream, "separate_available_locks", nothing)


@defect
def failures_recorded_under_our_types() -> None:
    set_(failures, "_upstream_error", lambda error: error)


@defect
def task_names_numbered_by_the_process() -> None:
    original = loop.WorkflowLoop.create_task
    count = 0

    def create_task(self: Any, coro: Any, *, name: Any = None, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return original(self, coro, name=name or f"Task-{count}", **kwargs)

    set_(loop.WorkflowLoop, "create_task", create_task)


@defect
def running_loop_left_behind() -> None:
    set_(loop, "restore_loop", nothing)
    set_(disposal._interpreter, "restore_loop", nothing)


@defect
def cancel_requests_not_recognised() -> None:
    set_(cancel_requests.CancelRequests, "on_child_completed", nothing)


@defect
def cancel_requests_waited_for() -> None:
    original = cancel_requests.CancelRequests.listen

    def listen(self: Any, upstream: Any) -> None:
        self._loop.operation_started()
        original(self, upstream)

    set_(cancel_requests.CancelRequests, "listen", listen)


@defect
def cancel_requests_interrupt_the_cleanup() -> None:
    def cancel(self: Any, payload: Any) -> None:
        self._loop.execution.cancellation = cancellation.Cancellation(cancellation.reason_in(payload))
        self._main.cancel(self._loop.execution.cancellation.reason)

    set_(cancel_requests.CancelRequests, "_cancel", cancel)


@defect
def cancel_requests_delivered_inside_of_upstreams_event() -> None:
    def on_child_completed(self: Any, task: Any) -> None:
        self._cancel(task.get_result())

    set_(cancel_requests.CancelRequests, "on_child_completed", on_child_completed)


@defect
def cancel_requests_not_carried_over() -> None:
    set_(_upstream_events, "carry_over", nothing)


@defect
def requests_not_carried_over() -> None:
    set_(open_requests.OpenRequests, "carry_over", nothing)


@defect
def open_requests_not_told_of_the_end() -> None:
    set_(open_requests.OpenRequests, "end", nothing)


@defect
def wait_for_a_request_not_taken_back() -> None:
    set_(requests.RequestOperation, "_take_back", nothing)


@defect
def requests_answered_more_than_once() -> None:
    original = requests.Request._send

    def send(self: Any, payload: Any, call: str) -> None:
        self._answered_at = ""
        original(self, payload, call)

    set_(requests.Request, "_send", send)


@defect
def children_not_asked_to_cancel() -> None:
    set_(children.ChildOperation, "request_cancellation", nothing)


@defect
def messages_of_cancellations_dropped() -> None:
    original = combinators.Combination._cancelled

    def cancelled(self: Any, error: Any = None) -> None:
        self._cancel_message = None
        original(self)

    set_(combinators.Combination, "_cancelled", cancelled)


@defect
def cancel_deliveries_not_parked() -> None:
    os.environ["DURABLETASK_AIO_STEP_BUDGET"] = "20000"
    set_(cancel_deliveries, "MAX_IDLE_ROUNDS", 10**9)


@defect
def async_generators_left_open() -> None:
    set_(disposal, "close_generators", nothing)


@defect
def ends_of_steps_in_the_order_of_their_calls() -> None:
    def pass_on_recorded(self: Any, upstream: Any) -> bool:
        for number, operation in self.running.items():
            if number not in self._live and operation.recorded_end is not None:
                self._ends = max(self._ends, operation.recorded_end)
                del self.running[number]
                operation.pass_on(upstream, operation.record)
                return True
        return False

    set_(journal.Journal, "pass_on_recorded", pass_on_recorded)


@defect
def stale_wake_ups_counted() -> None:
    original = journal.Journal.wake_up

    def wake_up(self: Any, name: str) -> None:
        original(self, next(iter(self._waiting), name))

    set_(journal.Journal, "wake_up", wake_up)


@defect
def steps_run_again_on_replay() -> None:
    start, may_run = journal.Journal.start, journal.Journal._may_run

    def start_anew(self: Any, operation: Any, upstream: Any, execution: Any) -> None:
        known = self.known
        self._known = {}
        self._may_run = lambda upstream: True
        start(self, operation, upstream, execution)
        self._known = known
        self._may_run = may_run.__get__(self)

    set_(journal.Journal, "start", start_anew)


@defect
def arguments_of_steps_by_reference() -> None:
    set_(steps, "copy", SimpleNamespace(deepcopy=lambda value: value))


@defect
def steps_begin_before_earlier_records_are_durable() -> None:
    set_(journal.Journal, "wait_until_committed", lambda self, *args: False)


@defect
def patches_turned_on_by_a_replay() -> None:
    original = journal.Journal.patched

    def patched(self: Any, patch: str, upstream: Any, **options: Any) -> bool:
        replaying, upstream._is_replaying = upstream._is_replaying, False
        try:
            return original(self, patch, upstream, **options)
        finally:
            upstream._is_replaying = replaying

    set_(journal.Journal, "patched", patched)


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Append a failure to the report."""
    path = os.environ.get(REPORT_VARIABLE)
    if path is None or call.excinfo is None or isinstance(call.excinfo.value, pytest.skip.Exception):
        return
    error = call.excinfo.value
    line = [
        item.nodeid,
        call.when,
        [kind.__name__ for kind in type(error).__mro__],
        "".join(traceback.format_exception(error)),
    ]
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if VARIABLE in os.environ:
    DEFECTS[os.environ[VARIABLE]]()
