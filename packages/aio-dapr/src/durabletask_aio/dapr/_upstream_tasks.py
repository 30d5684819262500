"""Dapr's tasks with what the core asks of a task: several listeners, and a way back; see `_upstream_dapr`.

The module has all names of Dapr's `task` module, so that it can stand in the place of Microsoft's.
"""

# Dapr's SDK is typed in parts.
# mypy: disable-error-code="no-untyped-call"
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dapr.ext.workflow._durabletask import task as _dapr
from dapr.ext.workflow._durabletask.internal import protos as pb
from dapr.ext.workflow._durabletask.task import (
    Activity,
    ActivityContext,
    CompositeTask,
    NonDeterminismError,
    OrchestrationContext,
    Orchestrator,
    RetryPolicy,
    Task,
    TaskFailedError,
    WhenAllTask,
    WhenAnyTask,
    get_name,
    when_all,
    when_any,
)

__all__ = [
    "Activity",
    "ActivityContext",
    "CancellableTask",
    "CompletableTask",
    "CompositeTask",
    "FailureDetails",
    "NonDeterminismError",
    "OrchestrationContext",
    "OrchestrationStateError",
    "Orchestrator",
    "RetryPolicy",
    "RetryableTask",
    "Task",
    "TaskCancelledError",
    "TaskFailedError",
    "TimerTask",
    "WhenAllTask",
    "WhenAnyTask",
    "get_name",
    "when_all",
    "when_any",
    "with_listeners",
]

OrchestrationStateError = _dapr.WorkflowStateError


class TaskCancelledError(Exception):
    """The failure of a workflow that has cancelled itself; Dapr's SDK has no type for it."""


class FailureDetails(_dapr.FailureDetails):
    """Dapr's failure details, and the two fields that its protocol does not carry."""

    inner_failure: FailureDetails | None = None
    properties: dict[str, Any] | None = None


class Listeners(dict[int, Any]):
    """The listeners of a task by key; stands where Dapr's task has its one parent, and passes completion on to all."""

    @property
    def is_complete(self) -> bool:
        """Whether a combination of Dapr's may take the place: it refuses a task that something else waits for."""
        return not self

    def on_child_completed(self, task: Any) -> None:
        """Tell all listeners; called by Dapr's task when it completes."""
        for listener in list(self.values()):
            listener.on_child_completed(task)


def _listen(task: Any) -> None:
    task._parents = task._parent = Listeners()


def with_listeners(task: Any) -> Any:
    """Give a combination that Dapr's SDK has made a place for listeners, and return it."""
    if isinstance(task, Task) and task._parent is None:
        _listen(task)
    return task


class _FailsWithDetails(_dapr.CompletableTask[Any]):
    """A task whose failure has the details that the core reads."""

    def get_exception(self) -> Exception:
        """Return the failure."""
        return _described(super().get_exception())

    def get_result(self) -> Any:
        """Return the result, or raise the failure."""
        if self._exception is not None:
            _described(self._exception)
        return super().get_result()


class CompletableTask(_FailsWithDetails):
    """A task of an activity or a child."""

    def __init__(self, expected_type: type | None = None) -> None:
        super().__init__()
        _listen(self)


def _described(error: Exception) -> Exception:
    if isinstance(error, TaskFailedError) and not isinstance(error.details, FailureDetails):
        details = error.details
        error._details = FailureDetails(details.message, details.error_type, details.stack_trace)
        described: Any = error
        described._failure_details = pb.TaskFailureDetails(errorType=details.error_type, errorMessage=details.message)
        if details.stack_trace is not None:
            described._failure_details.stackTrace.value = details.stack_trace
    return error


class CancellableTask(CompletableTask):
    """The wait for an external event."""

    withdraw: Callable[[], None] | None = None
    """Takes the wait back."""

    def cancel(self, exc: Exception | None = None) -> None:
        """Take the wait back, so that it does not consume the next event.

        Args:
            exc: not used; Dapr's tasks are cancelled with an exception.
        """
        if not self._is_complete and self.withdraw is not None:
            self.withdraw()
        self._is_complete = True


class RetryableTask(_FailsWithDetails, _dapr.RetryableTask[Any]):
    """A task of an activity or a child with a retry policy."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        _listen(self)
        self._action: Any = None


class TimerTask(_dapr.TimerTask[Any]):
    """A timer."""

    def __init__(self) -> None:
        super().__init__()
        _listen(self)
        self.context: Any = None
        self.number = 0

    def cancel(self, exc: Exception | None = None) -> None:
        """Take the timer back, or forget it if the engine has it already.

        Args:
            exc: not used; Dapr's tasks are cancelled with an exception.
        """
        if not self._is_complete:
            self._is_complete = True
            self.context._pending_actions.pop(self.number, None)
            self.context._pending_tasks.pop(self.number, None)
