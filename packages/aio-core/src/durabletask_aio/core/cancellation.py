"""Graceful cancellation as clients, engines and commands see it: the reserved event, its payload, and how it ends.

A request to cancel is an external event of the name `CANCEL_EVENT`, so that each engine delivers it and each history
records it.  A workflow does not wait for it: `cancel_requests` recognises it on arrival and cancels the main task.  An
instance that ends because of it fails with the type `WorkflowCancelledError` and the reason as the message, because the
protocol's own status for this is unknown to upstream's clients.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, NamedTuple, Protocol, cast, overload

from durabletask_aio.core.errors import WorkflowCancelledError, WorkflowValidationError, shown

CANCEL_EVENT = "durabletask-aio.cancel"
"""The name of the external event that requests a cancellation; reserved, and in lower case, as engines compare it."""

CANCELLED_TYPE = f"{WorkflowCancelledError.__module__}.{WorkflowCancelledError.__qualname__}"
"""The type of the failure that a cancelled instance ends with, as the history records it."""


class Cancellation(NamedTuple):
    """A request to cancel an instance, while it is in progress."""

    reason: str | None
    """The message of the `CancelledError`, and of the failure that the instance ends with."""


class Failure(Protocol):
    """The failure of an instance, as `OrchestrationState.failure_details` of upstream's clients."""

    @property
    def message(self) -> str:
        """The message of the exception."""
        ...

    @property
    def error_type(self) -> str:
        """The type of the exception, by its qualified name."""
        ...


class EventClient(Protocol):
    """A synchronous client, such as upstream's `TaskHubGrpcClient`."""

    def raise_orchestration_event(self, instance_id: str, event_name: str, *, data: Any | None = None) -> None:
        """Raise an external event."""
        ...


class AsyncEventClient(Protocol):
    """An asynchronous client, such as upstream's `AsyncTaskHubGrpcClient`."""

    def raise_orchestration_event(
        self, instance_id: str, event_name: str, *, data: Any | None = None
    ) -> Coroutine[Any, Any, None]:
        """Raise an external event."""
        ...


@overload
def request_cancellation(client: EventClient, instance_id: str, reason: str | None = None) -> None: ...


@overload
def request_cancellation(
    client: AsyncEventClient, instance_id: str, reason: str | None = None
) -> Coroutine[Any, Any, None]: ...


def request_cancellation(client: Any, instance_id: str, reason: str | None = None) -> Any:
    """Ask an instance to cancel itself: its main task gets `asyncio.CancelledError(reason)`, and can clean up.

    The instance need not run at this moment, and may ignore the request, as any asyncio task may.  A generator
    orchestrator always does.

    Args:
        client: a client of upstream's; with an asynchronous one, the result has to be awaited.
        instance_id: the id of the instance.
        reason: the message of the `CancelledError`, and of the failure that the instance ends with.

    Returns:
        What the client returns: a coroutine, if it is asynchronous.

    Raises:
        WorkflowValidationError: if the reason is no text.
    """
    return client.raise_orchestration_event(instance_id, CANCEL_EVENT, data=cancel_payload(reason))


def cancel_payload(reason: str | None) -> dict[str, str] | None:
    """Return the payload of a request.

    Args:
        reason: why, or `None`.

    Returns:
        An object that every data converter can serialise; `None` for no payload.

    Raises:
        WorkflowValidationError: if the reason is no text.
    """
    if reason is None:
        return None
    if not isinstance(cast(object, reason), str):
        msg = f"the reason of a cancellation is a string or None, and not {shown(reason)}"
        raise WorkflowValidationError(msg)
    return {"reason": reason}


def reason_in(payload: object) -> str | None:
    """Return the reason in the payload of a request, which is text or an object with the key `reason`."""
    reason: object = cast("dict[str, object]", payload).get("reason") if isinstance(payload, dict) else payload
    return reason if isinstance(reason, str) and reason else None


def is_cancellation(failure: Failure | None) -> bool:
    """Whether an instance with this failure was cancelled.

    Args:
        failure: the failure, or `None` if the instance has not failed.
    """
    return failure is not None and failure.error_type == CANCELLED_TYPE


def cancellation_reason(failure: Failure | None) -> str | None:
    """Return why an instance with this failure was cancelled; `None` if no reason was given, or if it was not."""
    if failure is None or not is_cancellation(failure) or failure.message == WorkflowCancelledError.NO_REASON:
        return None
    return failure.message
