"""Log lines about failed attempts of activities and sub-orchestrations: each of them once, when the failure arrives."""

from __future__ import annotations

import logging
from typing import Any

from durabletask_aio.core import _upstream, _upstream_retries
from durabletask_aio.core._upstream import CHILD_FAILED, pb


def log_failed_attempt(context: Any, event: pb.HistoryEvent, logger: logging.Logger) -> None:
    """Log the failure that `event` reports, before it is processed; does nothing for other events.

    Args:
        context: upstream's context of the instance.
        event: an event that is not replayed.
        logger: the worker's.
    """
    failed: pb.TaskFailedEvent | pb.SubOrchestrationInstanceFailedEvent
    if event.HasField("taskFailed"):
        kind, failed = "activity", event.taskFailed
    elif event.HasField(CHILD_FAILED):
        kind, failed = "sub-orchestration", getattr(event, CHILD_FAILED)
    else:
        return
    pending = _upstream.task_under(context, failed.taskScheduledId)
    if pending is None or not logger.isEnabledFor(logging.WARNING):
        return
    details = failed.failureDetails
    trace = details.stackTrace.value.rstrip()
    logger.warning(
        "%s: %s %r failed, %s: %s: %s%s",
        context.instance_id,
        kind,
        _upstream.name_of_task(context, failed.taskScheduledId),
        _attempt(context, pending),
        details.errorType,
        details.errorMessage,
        f"\n{trace}" if trace else "",
    )


def _attempt(context: Any, pending: Any) -> str:
    """Say which attempt has failed, and when the next one starts."""
    state = _upstream_retries.retry_state(pending)
    if state is None:
        return "attempt 1 of 1"
    attempt = f"attempt {state.attempts} of {state.policy.max_number_of_attempts}"
    # Computing it changes nothing: upstream computes it again in a moment.
    delay = state.retryable.compute_next_delay()
    if delay is not None and context.current_utc_datetime + delay >= state.expires_at:
        delay = None  # It is planned, as upstream does, and will not begin.
    return f"{attempt}, no other attempt" if delay is None else f"{attempt}, next try in {delay.total_seconds():g} s"
