"""What can go wrong, as types.  Messages are composed where the facts are; the types say what the reader may do next.

Two rules hold for all of them.  An exception of the user's own is never wrapped: it fails the instance under its own
type, and what we know beside it goes into notes.  And whatever upstream or the standard library has a type for is a
subclass of that type too, so ``except TimeoutError`` and ``except TaskFailedError`` go on working.
"""

from __future__ import annotations

import asyncio
import builtins
import re
import sys
from typing import Any

from durabletask import task

_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


class AsyncWorkflowError(Exception):
    """Base of the errors that durabletask-aio raises in workflows.

    ``instance_id``, ``workflow_name`` (as registered) and ``step`` (the sequence number that the history uses for the
    operation concerned) are ``None`` where there is no such thing, as for errors at registration.
    """

    def __init__(
        self,
        message: str,
        *,
        instance_id: str | None = None,
        workflow_name: str | None = None,
        step: int | None = None,
    ) -> None:
        # Messages quote values, and go into the history, where a memory address would be another one on each replay.
        message = _ADDRESS.sub("", message)
        # Not super(): beside us in the bases of some subtypes is upstream's TaskFailedError, with other parameters.
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
        # Behind the first line: the ones below it are code to copy from, or a list.
        first, newline, rest = self.message.partition("\n")
        return f"{first} [{context}]{newline}{rest}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own reduction would call the type with self.args alone and lose the keyword facts.
        return _rebuild, (type(self), self.args, vars(self))


def add_note(error: Any, text: str) -> None:
    """Add a note to an exception: its own method for that came with 3.11, what tracebacks make of it with 3.11 too."""
    if hasattr(error, "add_note"):
        error.add_note(text)
    else:
        error.__notes__ = [*getattr(error, "__notes__", []), text]


_LONGEST = 200
"""Characters of a value that a message quotes: enough to know it again, and not a payload in the history."""


def shown(value: object) -> str:
    """``repr(value)`` for a message: shortened, and never an error of its own in place of the one to report."""
    try:
        text = _ADDRESS.sub("", repr(value))  # before its length is looked at
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"


def message_of(error: BaseException) -> str:
    """The message of an exception of anybody's, as text that a history can hold."""
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
    """A mistake that can be seen before anything runs, or in the arguments of a call: mend the call it names.

    Both a ``TypeError`` and a ``ValueError``, since upstream's registration raises the latter for what Python itself
    would call the former.
    """


class UnsupportedInWorkflowError(AsyncWorkflowError, NotImplementedError):
    """An asyncio feature that cannot be deterministic was used in a workflow: the message says what to use instead.

    A ``NotImplementedError``, because that is what libraries look for when they probe an event loop.
    """


class NonDeterministicUseError(AsyncWorkflowError):
    """A use of asyncio whose order would depend on memory addresses: the message shows the form that does not."""


class SandboxViolationError(AsyncWorkflowError):
    """A workflow in ``strict`` mode did something that gives another result on replay."""


class DeadlockError(AsyncWorkflowError):
    """Nothing is ready, nothing is outstanding, and the workflow is not done: it would wait for ever."""


class StepBudgetError(AsyncWorkflowError):
    """A workflow ran more callbacks without waiting for anything durable than its step budget allows."""


class HistoryDivergenceError(AsyncWorkflowError, task.NonDeterminismError):
    """The history has another operation at a step than the code: the code changed, or is not deterministic."""


class InstanceEvicted(BaseException):
    """Raised by every call of the context and the event loop while an instance that will not go on is closed.

    Do not catch it: the worker is closing the coroutines of an instance that ended, was dropped or was evicted, and
    what the code does now no longer counts.  A ``BaseException``, so that ``except Exception`` lets it through.
    """


class NonDeterminismWarning(UserWarning):
    """A workflow in ``best_effort`` mode, or in debug mode, calls something that gives another result on replay."""


if sys.version_info >= (3, 11):

    class WorkflowTimeoutError(AsyncWorkflowError, builtins.TimeoutError):
        """A timeout set with ``ctx.with_timeout`` ran out; a ``TimeoutError``, as ``asyncio.timeout`` raises."""
else:

    class WorkflowTimeoutError(AsyncWorkflowError, builtins.TimeoutError, asyncio.TimeoutError):
        """A timeout set with ``ctx.with_timeout`` ran out; a ``TimeoutError``, as ``asyncio.timeout`` raises."""


class OperationFailedError(AsyncWorkflowError, task.TaskFailedError):
    """What the two public types below share: both are upstream's ``TaskFailedError``, with its ``details``."""

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
        # Everything upstream's error carries, without naming its private attributes.
        vars(self).update(vars(error))
        self.task_error = error

    def __reduce__(self) -> tuple[Any, ...]:
        # Upstream's error cannot be unpickled; it goes as its parts.
        own = {name: value for name, value in vars(self).items() if name != "task_error"}
        return _rebuild_failed, (type(self), self.args, own, self.task_error.args, vars(self.task_error))


class ActivityFailedError(OperationFailedError):
    """An awaited activity (or entity operation) failed.

    ``details`` holds the failure as the activity's worker reported it, and ``task_error`` the plain upstream error,
    which is what the history records if nothing catches this one.
    """


class SubOrchestrationFailedError(OperationFailedError):
    """An awaited sub-orchestration failed; the attributes are those of :class:`ActivityFailedError`."""


PUBLIC_ERRORS: tuple[type[BaseException], ...] = (
    AsyncWorkflowError,
    ActivityFailedError,
    SubOrchestrationFailedError,
    DeadlockError,
    HistoryDivergenceError,
    InstanceEvicted,
    NonDeterminismWarning,
    NonDeterministicUseError,
    SandboxViolationError,
    StepBudgetError,
    UnsupportedInWorkflowError,
    WorkflowTimeoutError,
    WorkflowValidationError,
)

for _public in PUBLIC_ERRORS:
    # Failure details record qualified names: they must be the ones users can import.
    _public.__module__ = "durabletask.aio"
