"""`CancelRequests`: recognises the requests to cancel an instance on arrival, and cancels its main task.

The reserved event has a waiter from the start of the execution on, so that upstream itself tells the waiter when a
request arrives, and no other event is looked at.  The waiter is no operation: it is not counted as outstanding, and
emits no action.  The main task is then cancelled in the ordinary way of asyncio, by `Task.cancel`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from durabletask_aio.core import _upstream
from durabletask_aio.core._upstream import task
from durabletask_aio.core.cancellation import CANCEL_EVENT, Cancellation, reason_in

if TYPE_CHECKING:
    from durabletask_aio.core.loop import WorkflowLoop, WorkflowTask


class CancelRequests:
    """Listens for the requests to cancel one execution, and passes them to its main task.

    While one is in progress, further ones have no effect, so that a client that repeats a request does not interrupt
    the cleanup.  A request is in progress until the main task has called `uncancel()` as often as it was cancelled.
    """

    def __init__(self, loop: WorkflowLoop, main: WorkflowTask[Any]) -> None:
        """Create the listener of an execution.

        Args:
            loop: the loop of the execution.
            main: its main task.
        """
        self._loop = loop
        self._main = main

    def listen(self, upstream: task.OrchestrationContext) -> None:
        """Take the requests that have arrived already, and wait for the next one."""
        waiting = upstream.wait_for_external_event(CANCEL_EVENT)
        while waiting.is_complete:
            self._cancel(waiting.get_result())
            waiting = upstream.wait_for_external_event(CANCEL_EVENT)
        _upstream.add_listener(waiting, id(self), self)

    def on_child_completed(self, task: task.Task[Any]) -> None:
        """Take a request; called by upstream when it arrives, when no user code may be run."""
        if not self._loop.execution.evicted:
            self._loop.call_soon(self._take, task.get_result())

    def _take(self, payload: object) -> None:
        self._cancel(payload)
        self.listen(self._loop.execution.upstream)

    def _cancel(self, payload: object) -> None:
        execution = self._loop.execution
        if execution.cancellation is None:
            execution.cancellation = Cancellation(reason_in(payload))
            self._main.cancel(execution.cancellation.reason)
