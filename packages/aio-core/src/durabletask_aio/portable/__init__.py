"""Names for workflow files that run on every SDK this project supports: Microsoft's `durabletask`, and Dapr's.

`durabletask.aio` and `durabletask_aio.dapr` each choose the SDK of the process when they are imported. This module
chooses nothing and imports neither, so a file with workflows can be imported before or after either of them:

    from durabletask_aio.portable import ActivityFailedError, RetryPolicy, WorkflowContext

    async def order(ctx: WorkflowContext, item: str) -> str:
        try:
            return await ctx.call_activity("charge", input=item, retry_policy=RetryPolicy(max_number_of_attempts=3))
        except ActivityFailedError as failure:
            return failure.details.message

The exceptions are bases of those of both SDKs. So what a workflow catches by these names is also an instance of the
SDK's `TaskFailedError`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durabletask_aio.core import AsyncWorkflowContext as WorkflowContext
else:

    class WorkflowContext:
        """The context that a workflow gets as its first argument, for annotations; a base of those of both SDKs."""

        __slots__ = ()


__all__ = [
    "ActivityFailedError",
    "ChildWorkflowFailedError",
    "RetryPolicy",
    "WorkflowCancelledError",
    "WorkflowContext",
    "WorkflowTimeoutError",
]


class _Failure(Exception):
    """Common base of the failures below."""

    if TYPE_CHECKING:
        details: Any
        """The failure as its worker reported it: `error_type`, `message` and `stack_trace`."""


class ActivityFailedError(_Failure):
    """An awaited activity failed."""


class ChildWorkflowFailedError(_Failure):
    """An awaited child, a sub-orchestration in Microsoft's words, failed or was cancelled."""


class WorkflowTimeoutError(TimeoutError):
    """A timeout set with `ctx.with_timeout` expired."""


class WorkflowCancelledError(Exception):
    """An instance was asked to cancel itself, and ended because of that."""


class RetryPolicy:
    """When a failed activity or child is tried again.

    The values are checked where the policy is used, by the SDK of the process.
    """

    def __init__(
        self,
        *,
        max_number_of_attempts: int,
        first_retry_interval: timedelta = timedelta(seconds=1),
        backoff_coefficient: float | None = 1.0,
        max_retry_interval: timedelta | None = None,
        retry_timeout: timedelta | None = None,
        non_retryable: Iterable[type[BaseException] | str] = (),
    ) -> None:
        """Create the policy.

        Args:
            max_number_of_attempts: how often it is tried in all.
            first_retry_interval: the pause before the second attempt.
            backoff_coefficient: by how much each pause is longer than the one before.
            max_retry_interval: the longest pause.
            retry_timeout: the time after the first call at which no other attempt begins.
            non_retryable: exception types, or their names with or without the module, whose failures are final.
        """
        self.arguments: dict[str, Any] = {
            "first_retry_interval": first_retry_interval,
            "max_number_of_attempts": max_number_of_attempts,
            "backoff_coefficient": backoff_coefficient,
            "max_retry_interval": max_retry_interval,
            "retry_timeout": retry_timeout,
            "non_retryable": non_retryable,
        }
        """The arguments of the policy of the SDK."""
