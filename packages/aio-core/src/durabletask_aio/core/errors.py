"""The public exception types, and the helpers that messages are made with.

Two rules hold for all types.  An exception of the user's own is never wrapped: it fails the instance under its own
type, and the workflow and instance are added as notes.  And where upstream or the standard library has a type for a
failure, the type here is a subclass of it, so that `except TimeoutError` and `except TaskFailedError` keep working.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any

from durabletask_aio import portable
from durabletask_aio.core._upstream import task

_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


class AsyncWorkflowError(Exception):
    """Base of the errors that durabletask-aio raises in workflows.

    Attributes:
        message: the message without the facts below, which `str()` adds to its first line.
        instance_id: the instance, or `None` if there is none, as for errors at registration.
        workflow_name: the name under which the workflow is registered, or `None`.
        step: the sequence number that the history uses for the operation concerned, or `None`.
    """

    def __init__(
        self,
        message: str,
        *,
        instance_id: str | None = None,
        workflow_name: str | None = None,
        step: int | None = None,
    ) -> None:
        """Create the error from its facts.

        Args:
            message: what was wrong and what to do instead; memory addresses are removed from it.
            instance_id: the instance concerned.
            workflow_name: the name under which the workflow is registered.
            step: the sequence number of the operation concerned.
        """
        # Messages quote values and are recorded in the history; a memory address would differ on each replay.
        message = _ADDRESS.sub("", message)
        # Not super(): some subtypes also derive from upstream's TaskFailedError, which has other parameters.
        Exception.__init__(self, message)
        self.message = message
        self.instance_id = instance_id
        self.workflow_name = workflow_name
        self.step = step

    def __str__(self) -> str:
        facts = [
            f"workflow {self.workflow_name!r}" if self.workflow_name is not None else "",
            f"instance {self.instance_id!r}" if self.instance_id is not None else "",
            f"step {self.step}" if self.step is not None else "",
        ]
        context = ", ".join(filter(None, facts))
        if not context:
            return self.message
        # After the first line; the lines below it are code to copy, or a list.
        first, newline, rest = self.message.partition("\n")
        return f"{first} [{context}]{newline}{rest}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own reduction would call the type with self.args alone and lose the keyword arguments.
        return _rebuild, (type(self), self.args, vars(self))


def add_note(error: Any, text: str) -> None:
    """Add a note to an exception, on Python 3.10 as the attribute that 3.11's `add_note` sets."""
    if hasattr(error, "add_note"):
        error.add_note(text)
    else:
        error.__notes__ = [*getattr(error, "__notes__", []), text]


_MAX_SHOWN = 200
"""Characters of a value that a message quotes: enough to recognise it, without a payload in the history."""


def shown(value: object) -> str:
    """Return `repr(value)` for a message: shortened, without memory addresses, and without raising."""
    try:
        text = _ADDRESS.sub("", repr(value))  # before the length is compared
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}... ({len(text):,} characters)"


def message_of(error: BaseException) -> str:
    """Return `str(error)` as text that a history can hold, without raising."""
    try:
        text = str(error)
    except BaseException as problem:
        return f"the message cannot be shown, since its __str__ raised {type(problem).__name__}"
    return text.encode("utf-8", "backslashreplace").decode()  # lone surrogates, as of undecodable file names


def _rebuild(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


def _rebuild_failed(
    kind: type[OperationFailedError],
    args: tuple[Any, ...],
    state: dict[str, Any],
    task_args: tuple[Any, ...],
    task_state: dict[str, Any],
) -> BaseException:
    return _rebuild(kind, args, {**state, "task_error": _rebuild(task.TaskFailedError, task_args, task_state)})


class WorkflowValidationError(AsyncWorkflowError, TypeError, ValueError):
    """A mistake in a registration or in the arguments of a call; correct the call that the message names.

    Both a `TypeError` and a `ValueError`, because upstream's registration raises the latter for mistakes for which
    Python raises the former.
    """


class UnsupportedInWorkflowError(AsyncWorkflowError, NotImplementedError):
    """An asyncio feature that cannot be deterministic was used in a workflow; the message says what to use instead.

    A `NotImplementedError`, because libraries catch that when they probe what an event loop supports.
    """


class NonDeterministicUseError(AsyncWorkflowError):
    """A use of asyncio whose order would depend on memory addresses; the message shows the form that does not."""


class SandboxViolationError(AsyncWorkflowError):
    """A workflow in `strict` mode did something that gives another result on replay."""


class DeadlockError(AsyncWorkflowError):
    """Nothing is ready, nothing is outstanding, and the workflow is not done: it would wait forever."""


class StepBudgetError(AsyncWorkflowError):
    """A workflow ran more callbacks without waiting for anything durable than its step budget allows."""


class TurnTimeoutError(AsyncWorkflowError):
    """A turn ran longer than the worker's `turn_timeout`, and was interrupted; the message names the line."""


class WorkflowCancelledError(AsyncWorkflowError, portable.WorkflowCancelledError):
    """An instance was asked to cancel itself, and ended because of that: the failure that its history records.

    Inside of the workflow the request is an `asyncio.CancelledError`.  The message is the reason.
    """

    NO_REASON = "the workflow was cancelled"
    """The message without a reason: some engines take a failure without a message for none."""

    @property
    def reason(self) -> str | None:
        """Why it was cancelled, or `None` if the request gave no reason."""
        return None if self.message == self.NO_REASON else self.message

    def __str__(self) -> str:
        return self.message  # The reason alone: clients and pages show it.


class HistoryDivergenceError(AsyncWorkflowError, task.NonDeterminismError):
    """The history has another operation at a step than the code: the code changed, or is not deterministic."""


class InstanceEvicted(BaseException):
    """Raised by every call of the context and the event loop while an instance is closed.

    Do not catch it: the worker is closing the coroutines of an instance that ended, was dropped or was evicted, and
    nothing that the code does now has an effect.  A `BaseException`, so that `except Exception` lets it through.
    """


class NonDeterminismWarning(UserWarning):
    """A workflow in `best_effort` mode, or in debug mode, calls something that gives another result on replay."""


if sys.version_info >= (3, 11):

    class WorkflowTimeoutError(AsyncWorkflowError, portable.WorkflowTimeoutError):
        """A timeout set with `ctx.with_timeout` expired; a `TimeoutError`, as `asyncio.timeout` raises."""
else:

    class WorkflowTimeoutError(AsyncWorkflowError, portable.WorkflowTimeoutError, asyncio.TimeoutError):
        """A timeout set with `ctx.with_timeout` expired; a `TimeoutError`, as `asyncio.timeout` raises."""


class OperationFailedError(AsyncWorkflowError, task.TaskFailedError):
    """Common base of the three public types below; both are upstream's `TaskFailedError`, with its `details`."""

    def __init__(
        self,
        error: task.TaskFailedError,
        *,
        what: str,
        instance_id: str | None = None,
        workflow_name: str | None = None,
        step: int | None = None,
    ) -> None:
        details = error.details
        message = f"{what} failed with {details.error_type}: {details.message}"
        AsyncWorkflowError.__init__(self, message, instance_id=instance_id, workflow_name=workflow_name, step=step)
        # All attributes of upstream's error, without naming its private ones.
        vars(self).update(vars(error))
        self.task_error = error

    def __reduce__(self) -> tuple[Any, ...]:
        # Upstream's error cannot be unpickled, so its parts are pickled instead.
        own = {name: value for name, value in vars(self).items() if name != "task_error"}
        return _rebuild_failed, (type(self), self.args, own, self.task_error.args, vars(self.task_error))


class ActivityFailedError(OperationFailedError, portable.ActivityFailedError):
    """An awaited activity or entity operation failed.

    Attributes:
        details: the failure as the activity's worker reported it: `error_type`, `message` and `stack_trace`.
        task_error: upstream's plain error, which the history records if nothing catches this one.
    """


class SubOrchestrationFailedError(OperationFailedError, portable.ChildWorkflowFailedError):
    """An awaited sub-orchestration failed, or was cancelled.

    Its attributes are those of [`ActivityFailedError`][durabletask.aio.ActivityFailedError].  Of one that was
    cancelled, `details.error_type` is `"durabletask.aio.WorkflowCancelledError"`, and `details.message` the reason.
    """


class StepFailedError(OperationFailedError):
    """The function of a step, which `ctx.run` has run, raised an exception or took too long.

    Its attributes are those of [`ActivityFailedError`][durabletask.aio.ActivityFailedError].  The exception itself is
    not raised, because a replay has only the record of it.
    """


PUBLIC_ERRORS: tuple[type[BaseException], ...] = (
    AsyncWorkflowError,
    ActivityFailedError,
    SubOrchestrationFailedError,
    StepFailedError,
    DeadlockError,
    HistoryDivergenceError,
    InstanceEvicted,
    NonDeterminismWarning,
    NonDeterministicUseError,
    SandboxViolationError,
    StepBudgetError,
    TurnTimeoutError,
    UnsupportedInWorkflowError,
    WorkflowCancelledError,
    WorkflowTimeoutError,
    WorkflowValidationError,
)

for _public in PUBLIC_ERRORS:
    # Failure details record qualified names, which must be the names that users import.
    _public.__module__ = "durabletask.aio"
