"""The adapter to upstream's retries: the home of the private names of tasks with a retry policy; see `_upstream`."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from types import FrameType
from typing import Any, NamedTuple, cast

from durabletask_aio.core._upstream import (
    CHILD_CREATED,
    CHILD_FAILED,
    FailureDetails,
    RetryPolicy,
    TaskFailedError,
    cancel_timer,
    is_executor,
    pb,
    task,
)
from durabletask_aio.core._upstream_dialect import CHILD


def retryable_task(context: Any, sequence: int | None, key: int) -> task.Task[Any] | None:
    """Return the incomplete task with a retry policy that has a listener under `key`.

    It is either running, under `sequence`, or waiting for the timer after which it is tried again.
    """
    found = context._pending_tasks.get(sequence)
    if found is not None and key in found._parents:
        return cast("task.Task[Any]", found)
    number = _retry_timer(context, key)
    return None if number is None else cast("task.Task[Any]", context._pending_tasks[number]._retryable_parent)


def listeners_of_pending(context: Any) -> list[Any]:
    """Return the listeners of all that is outstanding: of tasks, of retries that wait, and of waits for events."""
    pending = list(context._pending_tasks.values())
    pending += [timer._retryable_parent for timer in pending if timer._retryable_parent is not None]
    pending += [waiting for several in context._pending_events.values() for waiting in several]
    return [listener for each in pending for listener in each._parents.values()]


def _retry_timer(context: Any, key: int) -> int | None:
    """Return the number of the timer after which the task with a listener under `key` is tried again.

    The index is rebuilt when it lacks the answer: when thousands are cancelled together, as by the end of a group, one
    search through all that is pending serves them all.
    """
    pending = context._pending_tasks
    number: int | None = vars(cast(object, context)).get(_RETRY_TIMERS, _NOT_INDEXED).get(key)
    if number is None or not _retries(pending.get(number), key):
        found: dict[int, int] = {}
        for its_number, timer in pending.items():
            if timer._retryable_parent is not None:
                found.update(dict.fromkeys(timer._retryable_parent._parents, its_number))
        setattr(context, _RETRY_TIMERS, found)
        number = found.get(key)
    return number


_RETRY_TIMERS = "_durabletask_aio_retry_timers"
_NOT_INDEXED: dict[int, int] = {}


def _retries(timer: Any, key: int) -> bool:
    return timer is not None and timer._retryable_parent is not None and key in timer._retryable_parent._parents


def is_waiting_for_retry(context: Any, sequence: int | None, key: int) -> bool:
    """Whether the task with a listener under `key` waits for its next attempt, and does not run."""
    found = context._pending_tasks.get(sequence)
    return (found is None or key not in found._parents) and _retry_timer(context, key) is not None


def stop_retrying(context: Any, retryable: task.Task[Any], sequence: int | None, key: int) -> None:
    """Do not try a cancelled activity or sub-orchestration with a retry policy again."""
    pending = context._pending_tasks
    if pending.get(sequence) is not retryable:  # It is not running, and so it waits for the next attempt.
        number = _retry_timer(context, key)
        if number is not None:
            cancel_timer(context, pending[number], number)
    if isinstance(retryable, task.RetryableTask):
        set_next_delay(retryable, lambda: None)


class RetryState(NamedTuple):
    """What decides when a task with a retry policy is tried again."""

    policy: RetryPolicy
    started_at: datetime
    """When the first attempt was scheduled: naive UTC, on the workflow's clock."""
    retryable: Any

    @property
    def attempts(self) -> int:
        """How many attempts have been made so far."""
        count: int = self.retryable._attempt_count
        return count

    @property
    def is_child(self) -> bool:
        """Whether it is a sub-orchestration, and not an activity."""
        return bool(self.retryable._is_sub_orch)

    @property
    def version(self) -> str | None:
        """The version of a sub-orchestration; `None` if it has none."""
        action = getattr(self.retryable._action, CHILD)
        return action.version.value if action.HasField("version") else None

    @property
    def expires_at(self) -> datetime:
        """When no attempt may begin any more: naive UTC, on the workflow's clock."""
        timeout = self.policy.retry_timeout
        try:
            return datetime.max if timeout is None else self.started_at + timeout  # noqa: DTZ901 - naive, as the clock
        except OverflowError:
            return datetime.max  # noqa: DTZ901 - naive, as the clock


def retry_state(scheduled: task.Task[Any]) -> RetryState | None:
    """Return the retry state of a task; `None` if it was not scheduled with a retry policy."""
    if not isinstance(scheduled, task.RetryableTask):
        return None
    retryable: Any = scheduled
    return RetryState(retryable._retry_policy, retryable._start_time, retryable)


def set_next_delay(retryable: Any, next_delay: Callable[[], timedelta | None]) -> None:
    """Have `next_delay` decide after each failure whether and when this one task is tried again."""
    retryable.compute_next_delay = next_delay


_LAST_FAILURE = "_durabletask_aio_last_failure"
_CONTROLS_RETRIES = "_durabletask_aio_controls_retries"


def control_retries(context: Any) -> None:
    """Have each further attempt keep the version of the first, and none begin after `retry_timeout`.

    Upstream loses the version of a sub-orchestration, and starts the attempt that it has planned before the end of
    `retry_timeout`.  It decides by the machine's clock when it processes the failure, on each replay again; so a worker
    that replays does not start that attempt, and one that keeps the instance alive does.

    A history that has such an attempt, of an earlier release, is replayed with it.
    """
    if hasattr(context, _CONTROLS_RETRIES):
        return
    setattr(context, _CONTROLS_RETRIES, True)
    original = context.call_activity_function_helper

    def call_activity_function_helper(*arguments: Any, **keywords: Any) -> None:
        state = retry_state(cast("Any", keywords.get("fn_task")))
        if state is not None:
            failure: tuple[str, pb.TaskFailureDetails] | None = getattr(state.retryable, _LAST_FAILURE, None)
            caller = sys._getframe(1)  # in `process_event`, for the timer after which the task is tried again
            is_over = context.current_utc_datetime >= state.expires_at
            if failure is not None and is_over and not _is_recorded(state.retryable, caller):
                state.retryable.fail(*failure)
                context.resume()
                return
            if keywords.get("is_sub_orch") and state.version is not None:
                keywords["version"] = state.version
        original(*arguments, **keywords)

    context.call_activity_function_helper = call_activity_function_helper


_FAILURES = ("taskFailed", CHILD_FAILED)


def is_failure(event: pb.HistoryEvent) -> bool:
    """Whether `event` is the failure of an activity or a sub-orchestration."""
    return event.WhichOneof("eventType") in _FAILURES


def failed_task(context: Any, event: pb.HistoryEvent) -> Any:
    """Return the task whose failure `event` is, or `None` if it is not outstanding."""
    return context._pending_tasks.get(getattr(event, str(event.WhichOneof("eventType"))).taskScheduledId)


def failure_of(event: Any) -> FailureDetails | None:
    """Return the details of the failure that `event` is; `None` if it is none."""
    if not isinstance(event, pb.HistoryEvent) or not is_failure(event):
        return None
    failed = event.taskFailed if event.HasField("taskFailed") else getattr(event, CHILD_FAILED)
    return TaskFailedError("", failed.failureDetails).details


def note_failure(context: Any, event: Any, retryable: Any = None) -> None:
    """Keep the failure of an attempt, for the case that the time for another one is over when its pause has passed.

    Args:
        context: the context.
        event: the event that is being processed; does nothing unless it is the failure of a task with a retry policy.
        retryable: that task, if the context does not have it among the pending ones any more.
    """
    if not isinstance(event, pb.HistoryEvent):
        return
    if event.HasField("taskFailed"):
        number, details = event.taskFailed.taskScheduledId, event.taskFailed.failureDetails
        message = f"{context.instance_id}: Activity task #{number} failed: {details.errorMessage}"
    elif event.HasField(CHILD_FAILED):
        failed = getattr(event, CHILD_FAILED)
        number, details = failed.taskScheduledId, failed.failureDetails
        message = f"Sub-orchestration task #{number} failed: {details.errorMessage}"
    else:
        return
    pending = context._pending_tasks.get(number) if retryable is None else retryable
    if retry_state(pending) is not None:
        control_retries(context)
        copy = pb.TaskFailureDetails()
        copy.CopyFrom(details)  # a part of the message would keep all of it in memory
        setattr(pending, _LAST_FAILURE, (message, copy))


def event_of_caller() -> Any:
    """Return the event that the caller of the calling function is processing."""
    return sys._getframe(2).f_locals.get("event")


_ATTEMPTS = ("taskScheduled", CHILD_CREATED)


def _is_recorded(retryable: Any, frame: FrameType | None) -> bool:
    """Whether the history has another attempt of a task after the timer that `frame` is processing."""
    event = None if frame is None else frame.f_locals.get("event")
    history: Sequence[pb.HistoryEvent] = ()
    while frame is not None and not history:
        executor = frame.f_locals.get("self")
        if is_executor(executor):
            history = getattr(executor, "recorded", ()) or frame.f_locals.get("old_events", ())
        frame = frame.f_back
    number, timer = retryable._action.id, None if event is None else event.timerFired.timerId
    has_fired = False
    for each in history:
        if each.HasField("timerFired"):
            has_fired = has_fired or each.timerFired.timerId == timer
        elif has_fired and each.eventId == number and each.WhichOneof("eventType") in _ATTEMPTS:
            return True
    return False
