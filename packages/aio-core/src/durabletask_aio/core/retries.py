"""When a failed activity or sub-orchestration with a retry policy is tried again, on the workflow's clock."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from durabletask_aio.core import _upstream_retries
from durabletask_aio.core._upstream import RetryPolicy, task


def use_workflow_clock(context: Any, scheduled: task.Task[Any]) -> None:
    """Have `RetryPolicy.retry_timeout` of a task that has just been scheduled measured on the workflow's clock.

    Upstream compares with `datetime.now()` while it processes the failure, on replay too: a history that is replayed
    after the timeout takes another branch than it took live, returns no actions, and the instance hangs.  Here the time
    is compared when the failure is processed, and again when the pause after it has passed.
    """
    state = _upstream_retries.retry_state(scheduled)
    if state is None:
        return
    policy = state.policy
    has_no_timeout = policy.retry_timeout is None
    if state.version is not None or not has_no_timeout:
        _upstream_retries.control_retries(context)
    if has_no_timeout and policy.backoff_coefficient in (None, 1):
        return  # Upstream's computation then does not depend on the clock, and cannot overflow.

    def next_delay() -> timedelta | None:
        if not has_no_timeout:
            _upstream_retries.note_failure(context, _upstream_retries.event_of_caller(), scheduled)
        now: datetime = context.current_utc_datetime
        return delay_after(state.attempts, policy, now=now, expires_at=state.expires_at)

    _upstream_retries.set_next_delay(scheduled, next_delay)


def delay_after(attempts: int, policy: RetryPolicy, *, now: datetime, expires_at: datetime) -> timedelta | None:
    """Compute the delay after so many failed attempts; `None` if there is to be no other one.

    The formula is upstream's, without its overflow: a policy that retries without end, a minute at most between two
    attempts, would fail its instance with `math range error` after a thousand attempts.
    """
    if attempts >= policy.max_number_of_attempts or now >= expires_at:
        return None
    first = policy.first_retry_interval.total_seconds()
    coefficient = 1.0 if policy.backoff_coefficient is None else policy.backoff_coefficient
    try:
        seconds = math.pow(coefficient, attempts - 1) * first
    except OverflowError:
        seconds = math.inf if first else 0.0
    if policy.max_retry_interval is not None:
        seconds = min(seconds, policy.max_retry_interval.total_seconds())
    try:
        delay = timedelta(seconds=seconds)
        _ = now + delay
    except OverflowError:  # The next attempt would be after the year 9999.
        return None
    return delay
