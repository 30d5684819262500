"""Sub-orchestrations that are cancelled together with the operation that waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from durabletask_aio.core import _compat_anyio, _upstream_retries
from durabletask_aio.core._upstream import task
from durabletask_aio.core.cancellation import CANCEL_EVENT, CANCELLED_TYPE, cancel_payload
from durabletask_aio.core.errors import WorkflowCancelledError, shown
from durabletask_aio.core.operations import RetriedOperation, ScheduledOperation

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

_UNTYPED = "builtins.Exception"
"""The type of each failed child for engines that tell the parent no more than the message."""


class ChildOperation(RetriedOperation[T]):
    """A sub-orchestration that is cancelled with the operation, which is done when the child has ended.

    As with an asyncio task, and unlike other operations, `cancel` is a request: if the child ends as cancelled, so does
    the operation; otherwise it has the child's result or failure.
    """

    __slots__ = ("_child_id", "_is_requested", "_message", "_reason")

    _child_id: str
    _is_requested: bool
    _message: Any
    _reason: str | None

    def link(self, child_id: str) -> Self:
        """Name the child, of which nothing can have completed yet.

        Returns:
            This operation.
        """
        self._child_id = child_id
        self._is_requested = False
        self._message = self._reason = None
        self._loop.linked_children[self] = None
        return self

    def cancel(self, msg: Any = None) -> bool:
        """Ask the child to cancel itself.

        Args:
            msg: the reason, and the message of the `CancelledError` that awaiting the operation raises.

        Returns:
            `False` if the operation was done already.
        """
        if self.done():
            return False
        execution = self._loop.execution
        if execution.evicted or _upstream_retries.is_waiting_for_retry(execution.upstream, self.step, id(self)):
            self._loop.linked_children.pop(self, None)
            return super().cancel(msg)  # There is no child now.
        self._message = msg
        self.request_cancellation(msg if msg is None or isinstance(msg, str) else shown(msg))
        return True

    def request_cancellation(self, reason: str | None) -> None:
        """Send the child the request, once."""
        if self._is_requested:
            return
        self._is_requested = True
        self._reason = None if _compat_anyio.is_scope_message(reason) else reason
        self._take_back()  # No further attempts.
        self._loop.execution.upstream.send_event(self._child_id, CANCEL_EVENT, data=cancel_payload(self._reason))

    def on_child_completed(self, task: task.Task[Any]) -> None:
        """Take over the outcome of the child; called by upstream."""
        loop = self._loop
        if loop.execution.evicted or self.done():
            return
        loop.linked_children.pop(self, None)
        if self._is_requested and self._has_been_cancelled(task):
            self.order = loop.operation_finished()
            super(ScheduledOperation, self).cancel(self._message)  # The future alone: the child has ended.
            self.notify_listeners()
        else:
            super().on_child_completed(task)

    def _has_been_cancelled(self, child: task.Task[Any]) -> bool:
        if not child.is_failed:
            return False
        details = child.get_exception().details
        kind, message = details.error_type, details.message
        if kind == _UNTYPED:
            return message == (self._reason or WorkflowCancelledError.NO_REASON)
        return kind == CANCELLED_TYPE
