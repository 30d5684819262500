"""When a failed activity or sub-orchestration with a retry policy is tried again, on the workflow's clock."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, cast

from durabletask_aio.core import _upstream_retries
from durabletask_aio.core._upstream import RetryPolicy as UpstreamRetryPolicy
from durabletask_aio.core._upstream import task
from durabletask_aio.core.cancellation import is_cancellation
from durabletask_aio.core.errors import WorkflowValidationError, shown
from durabletask_aio.core.recorded_types import is_of_type


class RetryPolicy(UpstreamRetryPolicy):
    """When a failed activity or sub-orchestration is tried again: upstream's policy, and the failures that are final.

    It is accepted wherever upstream's is.  Generator orchestrators follow `non_retryable` on a worker of this project.
    """

    def __init__(
        self,
        *,
        first_retry_interval: timedelta,
        max_number_of_attempts: int,
        backoff_coefficient: float | None = 1.0,
        max_retry_interval: timedelta | None = None,
        retry_timeout: timedelta | None = None,
        non_retryable: Iterable[type[BaseException] | str] = (),
    ) -> None:
        """Create the policy.

        Args:
            first_retry_interval: the pause before the second attempt.
            max_number_of_attempts: how often it is tried in all.
            backoff_coefficient: by how much each pause is longer than the one before.
            max_retry_interval: the longest pause.
            retry_timeout: the time after the first call at which no other attempt begins.
            non_retryable: exception types, or their names with or without the module.  A failure of such a type, or of
                a subtype as far as the record names the bases, is the last one, and is raised at once.

        Raises:
            ValueError: if a duration or a number is negative.
            WorkflowValidationError: (a `ValueError`) if `non_retryable` has something else than types and names.
        """
        super().__init__(
            first_retry_interval=first_retry_interval,
            max_number_of_attempts=max_number_of_attempts,
            backoff_coefficient=backoff_coefficient,
            max_retry_interval=max_retry_interval,
            retry_timeout=retry_timeout,
        )
        self._non_retryable = _checked(non_retryable)

    @property
    def non_retryable(self) -> tuple[type[BaseException] | str, ...]:
        """The types, or their names, whose failures are final."""
        return self._non_retryable


def _checked(given: object) -> tuple[type[BaseException] | str, ...]:
    several = tuple(cast("Iterable[object]", given)) if _is_collection(given) else None
    if several is not None and all(map(_is_type_or_name, several)):
        return cast("tuple[type[BaseException] | str, ...]", several)
    raise WorkflowValidationError(
        f"non_retryable= takes a list of exception types or their names, and not {shown(given)}\n"
        f"  wrong: RetryPolicy(..., non_retryable={shown(given)})\n"
        f"  right: RetryPolicy(..., non_retryable=[CardDeclined, 'shop.errors.OutOfStock'])"
    )


def _is_collection(given: object) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, str | bytes | type)


def _is_type_or_name(each: object) -> bool:
    return (isinstance(each, type) and issubclass(each, BaseException)) or (isinstance(each, str) and bool(each))


def _is_final(policy: UpstreamRetryPolicy, event: Any) -> bool:
    """Whether the failure that `event` records is one after which `policy` does not try again.

    That a sub-orchestration was cancelled always is: it would be started again, against what was asked for.
    """
    details = _upstream_retries.failure_of(event)
    if details is None:
        return False
    if is_cancellation(details):
        return True
    return isinstance(policy, RetryPolicy) and any(is_of_type(details, kind) for kind in policy.non_retryable)


def stop_if_final(context: Any, event: Any) -> None:
    """Have a failure be the last one if it is final for its policy.

    For hosts that see each event, of generator orchestrators too; elsewhere `use_workflow_clock` decides the same.

    Args:
        context: upstream's context of the instance.
        event: the failure of an activity or a sub-orchestration, before it is processed.
    """
    scheduled = _upstream_retries.failed_task(context, event)
    state = None if scheduled is None else _upstream_retries.retry_state(scheduled)
    if state is not None and _is_final(state.policy, event):
        _upstream_retries.set_next_delay(scheduled, lambda: None)


def use_workflow_clock(context: Any, scheduled: task.Task[Any]) -> None:
    """Have the policy of a task that has just been scheduled decided by the workflow's clock and the recorded failures.

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
    retries_all = not (state.is_child or (isinstance(policy, RetryPolicy) and policy.non_retryable))
    if has_no_timeout and retries_all and policy.backoff_coefficient in (None, 1):
        return  # Upstream's computation then does not depend on the clock, and cannot overflow.

    def next_delay() -> timedelta | None:
        event = _upstream_retries.event_of_caller()
        if not retries_all and _is_final(policy, event):
            return None
        if not has_no_timeout:
            _upstream_retries.note_failure(context, event, scheduled)
        now: datetime = context.current_utc_datetime
        return delay_after(state.attempts, policy, now=now, expires_at=state.expires_at)

    _upstream_retries.set_next_delay(scheduled, next_delay)


def delay_after(attempts: int, policy: UpstreamRetryPolicy, *, now: datetime, expires_at: datetime) -> timedelta | None:
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
