"""When a failed activity or sub-orchestration with a retry policy is tried again, on the workflow's clock."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from durabletask_aio.core import _upstream
from durabletask_aio.core._upstream import RetryPolicy, RetryState, task


def use_workflow_clock(context: Any, scheduled: task.Task[Any]) -> None:
    """Have `RetryPolicy.retry_timeout` of a task that has just been scheduled measured on the workflow's clock.

    Upstream compares with `datetime.now()` while it processes the failure, on replay too: a history that is replayed
    after the timeout takes another branch than it took live, returns no actions, and the instance hangs.
    """
    state = _upstream.retry_state(scheduled)
    if state is None:
        return
    policy = state.policy
    if policy.retry_timeout is None and policy.backoff_coefficient in (None, 1):
        return  # Upstream's computation then does not depend on the clock, and cannot overflow.
    expires_at = _expiry(state)

    def next_delay() -> timedelta | None:
        now: datetime = context.current_utc_datetime
        return delay_after(state.attempts, policy, now=now, expires_at=expires_at)

    _upstream.set_next_delay(scheduled, next_delay)


def _expiry(state: RetryState) -> datetime:
    """When no attempt may be planned any more: naive UTC, as the clock it is compared with."""
    timeout = state.policy.retry_timeout
    try:
        return datetime.max if timeout is None else state.started_at + timeout  # noqa: DTZ901 - naive, as the clock
    except OverflowError:
        return datetime.max  # noqa: DTZ901 - naive, as the clock


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
