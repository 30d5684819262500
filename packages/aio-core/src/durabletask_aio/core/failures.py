"""What the history records of an exception that a workflow does not catch.

The rule is that failures keep their type: an uncaught `ValueError` fails the instance as a `ValueError`.  Translated
are only those that upstream would not survive (exceptions that are no `Exception`), those that it would record
differently from a generator orchestrator's (our richer failure of an activity), and those that it would record
unreadably.
"""

from __future__ import annotations

import asyncio
import os
import re
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from durabletask_aio.core import _upstream
from durabletask_aio.core._upstream import task
from durabletask_aio.core.activity_results import is_unserializable_result
from durabletask_aio.core.call_sites import user_lines
from durabletask_aio.core.descriptions import AWAITABLES, call_of, close_if_coroutine, describe_awaitable
from durabletask_aio.core.divergence import divergence
from durabletask_aio.core.errors import (
    AsyncWorkflowError,
    OperationFailedError,
    WorkflowCancelledError,
    WorkflowValidationError,
    add_note,
    message_of,
    shown,
)
from durabletask_aio.core.functions import describe_function
from durabletask_aio.core.operations import UnawaitedResultError
from durabletask_aio.core.serialization import SERIALIZABLE, UnserializablePart, find_unserializable
from durabletask_aio.core.stack_traces import own_traceback, set_description
from durabletask_aio.core.wrong_calls import MissingInput, corrected_call, explained_missing_input, runs_loop

if TYPE_CHECKING:
    from durabletask_aio.core.execution import Execution
    from durabletask_aio.core.loop import WorkflowLoop

_GROUP_DEPTH = 10
_GROUP_LENGTH = 20
_CHAIN_LENGTH = 10
"""The number of causes that upstream records."""

_FOREIGN_FUTURE = ("attached to a different loop", "await wasn't used with future")
"""asyncio's messages for a future of another loop, the first time it is awaited and later."""

_NOT_DONE = ("Result is not set.", "Exception is not set.")
"""asyncio's messages for `result()` and `exception()` of a future that is not done."""

_STANDARD_LIBRARY = os.path.dirname(os.__file__)  # as sysconfig has it, whose import takes a millisecond

_OPERATION = re.compile(r"\b(Retried|Lock)?Operation\b")
"""The type name in Python's message for a builtin function that was given an operation."""


def as_recorded(
    error: BaseException, execution: Execution, context: type = object, missing: MissingInput | None = None
) -> Exception:
    """Return the exception to raise to upstream for `error`: the same one wherever that is possible.

    Args:
        error: what left the workflow function.
        execution: the execution of the workflow.
        context: the class of the workflow's context, whose methods may have been called wrongly.
        missing: the parameter for the input, if the instance was started without one.
    """
    recorded = _recorded(error, execution, context)
    if missing is not None and recorded is error:
        recorded = explained_missing_input(error, missing) or recorded
    if recorded is not error:
        recorded.__traceback__ = error.__traceback__
    _plain_chain(recorded)
    _add_context(recorded, execution)
    return recorded


def _recorded(error: BaseException, execution: Execution, context: type) -> Exception:
    if isinstance(error, OperationFailedError):
        return _upstream_error(error)
    if _is_group(error):
        return _readable_group(error, execution)
    if isinstance(error, RuntimeError) and any(text in message_of(error) for text in _FOREIGN_FUTURE):
        return _foreign_future(error, execution)
    if isinstance(error, AttributeError) and (explained := _explained_attribute_error(error)) is not None:
        return explained
    if type(error) is asyncio.InvalidStateError and message_of(error) in _NOT_DONE:
        return _asked_too_early(error, execution)
    if type(error) is RuntimeError and (run := runs_loop(message_of(error))) is not None:
        return execution.usage_error(
            f"{run} cannot be used in a workflow, whose loop is run by its worker",
            f"{run.replace('()', '(work())')}",
            "await work()",
            place=_place(error),
        )
    if type(error) is TypeError and (explained := _wrong_call(error, execution, context)) is not None:
        return explained
    if type(error) is TypeError and _OPERATION.search(message_of(error)):
        return _unawaited_argument(error, execution)
    if isinstance(error, Exception):
        return error
    if isinstance(error, asyncio.CancelledError):
        if execution.cancellation is not None:
            reason = execution.cancellation.reason
            return execution.error(WorkflowCancelledError, reason or WorkflowCancelledError.NO_REASON)
        return task.TaskCancelledError(
            f"the workflow was cancelled: {message_of(error)}" if error.args else "the workflow was cancelled"
        )
    kind = type(error).__name__
    msg = (
        f"the workflow raised {kind}({', '.join(map(shown, error.args))}), which is meant for the process and not for "
        f"a workflow; to end the instance, return from the workflow or raise an Exception"
    )
    converted = execution.error(AsyncWorkflowError, msg)
    converted.__cause__ = error
    return converted


def _upstream_error(error: OperationFailedError) -> task.TaskFailedError:
    plain = error.task_error
    if plain is not error:
        plain.__cause__, plain.__context__ = error.__cause__, error.__context__
        plain.__suppress_context__ = error.__suppress_context__
    set_description(plain, str(error))
    return plain


def _plain_chain(recorded: BaseException) -> None:
    """Replace our failures by upstream's in the causes of `recorded`, because the history has them by type name."""
    seen: set[int] = set()
    error: BaseException | None = recorded
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        cause, context = _attribute_of(error, "__cause__"), _attribute_of(error, "__context__")
        suppress = error.__suppress_context__
        if isinstance(cause, OperationFailedError):
            error.__cause__ = _upstream_error(cause)
            error.__suppress_context__ = suppress
        if isinstance(context, OperationFailedError):
            error.__context__ = _upstream_error(context)
        cause = _attribute_of(error, "__cause__")
        error = _attribute_of(error, "__context__") if cause is None else cause


def _add_context(error: BaseException, execution: Execution) -> None:
    """Add a note that names workflow and instance; notes are shown with a traceback and are not recorded."""
    note = f"in workflow {execution.workflow_name!r}, instance {execution.instance_id!r}"
    try:
        if note in (getattr(error, "__notes__", None) or ()):
            return
        add_note(error, note)
        for name in ("instance_id", "workflow_name"):
            if not hasattr(error, name):
                setattr(error, name, getattr(execution, name))
    except Exception:  # An exception type with slots or properties; its failure is recorded without the note.
        pass


# -- exception groups: duck-typed, because Python 3.10 has them as a backport only ------------------------------------


def _is_group(error: BaseException) -> bool:
    return isinstance(_attribute_of(error, "exceptions"), tuple) and _attribute_of(error, "derive") is not None


def _attribute_of(error: BaseException, name: str) -> Any:
    """Return an attribute of any exception; `None` if there is none, or if its property raises."""
    try:
        return getattr(error, name, None)
    except Exception:
        return None


def _leaves(error: Any, depth: int = 0) -> Iterator[BaseException]:
    for part in error.exceptions:
        if _is_group(part) and depth < _GROUP_DEPTH:
            yield from _leaves(part, depth + 1)
        else:
            yield part


def _summary(leaves: list[BaseException]) -> str:
    listed = [f"{type(leaf).__name__}: {message_of(leaf)}" for leaf in leaves[:_GROUP_LENGTH]]
    if len(leaves) > _GROUP_LENGTH:
        listed.append(f"and {len(leaves) - _GROUP_LENGTH:,} more")
    return "; ".join(listed)


def _readable_group(group: Any, execution: Execution | None = None) -> Exception:
    """Return a group whose message lists its exceptions, with the first as the cause: upstream records no more."""
    leaves = list(_leaves(group))
    first = next((leaf for leaf in leaves if isinstance(leaf, Exception)), None)
    recorded: Exception
    kind = cast("Any", type(group))
    if execution is not None and not isinstance(group, Exception):
        recorded = execution.error(AsyncWorkflowError, f"the workflow raised {kind.__name__}: {_summary(leaves)}")
    elif kind.__name__ == "ExceptionGroup":
        facts: Any = group
        recorded = kind(f"{facts.message}: {_summary(leaves)}", facts.exceptions)
        recorded.__cause__, recorded.__context__ = group.__cause__, group.__context__
        for note in getattr(group, "__notes__", ()):
            add_note(recorded, note)
    else:
        recorded = group  # A type of the user's, with an unknown constructor.
    if recorded.__cause__ is None:
        recorded.__cause__ = _upstream_error(first) if isinstance(first, OperationFailedError) else first
    return recorded


def foreign_future(execution: Execution, what: str, shown: str, place: str | None = None) -> WorkflowValidationError:
    """Return the error for a future of another event loop; `shown` is its description or its `repr`."""
    if "Operation " in shown or ("(" in shown and not shown.startswith("<")):
        owner = "an operation of another instance"
        wrong, right = "await other_ctx_operation", "await ctx.wait_for_external_event('done')  # which the other sends"
    else:
        owner = "a future of the application's event loop"
        wrong, right = "await client.get(url)", "await ctx.call_activity(fetch, input=url)"
    return execution.usage_error(
        f"{what} {owner}, which this workflow's loop cannot wait for: {shown}", wrong, right, place=place
    )


def _foreign_future(error: RuntimeError, execution: Execution) -> Exception:
    _, _, shown = str(error).partition(" got Future ")
    shown = shown.partition(" attached to a different loop")[0] or "<Future awaited elsewhere>"
    shown = re.sub(r" at 0x[0-9a-fA-F]+", "", shown)  # An address differs on each replay.
    lines = user_lines(error)  # The call is not on the stack any more.
    return foreign_future(execution, "the workflow awaited", shown, lines[-1] if lines else None)


def _place(error: BaseException) -> str | None:
    """Return `file:line` of the last line of the user's that `error` was raised through, or else of any line."""
    lines = user_lines(error)
    own = [line for line in lines if not line.startswith(_STANDARD_LIBRARY)] or lines
    return own[-1].partition(" in ")[0] if own else None


def _asked_too_early(error: BaseException, execution: Execution) -> Exception:
    usage_error = execution.usage_error(
        "the workflow asked a future for its outcome before it was done",
        "ctx.call_activity('work').result()",
        "await ctx.call_activity('work')",
        place=_place(error),
    )
    return UnawaitedResultError(
        usage_error.message, instance_id=usage_error.instance_id, workflow_name=usage_error.workflow_name
    )


def _wrong_call(error: BaseException, execution: Execution, context: type) -> Exception | None:
    """Return a better error for a call of the context that Python refused; `None` for any other `TypeError`."""
    correction = corrected_call(message_of(error), context)
    if correction is None:
        return None
    return execution.usage_error(correction.what, correction.wrong, correction.right, place=_place(error))


def _unawaited_argument(error: BaseException, execution: Execution) -> Exception:
    # In addition to Python's message, because the name may be that of a class of the user's.
    return execution.usage_error(
        f"{message_of(error)}; was an operation used without being awaited?",
        "text = ', '.join([ctx.call_activity('name')])",
        "text = ', '.join([await ctx.call_activity('name')])",
        place=_place(error),
    )


def _explained_attribute_error(error: Any) -> Exception | None:
    """Return a better error for an attribute that an operation or the context does not have; `None` for others."""
    explain = getattr(type(cast(object, _attribute_of(error, "obj"))), "_explain_attribute_error", None)
    if explain is None or not explain.__module__.startswith("durabletask_aio.core"):
        return None
    explained: Exception | None = explain(error.obj, error.name, _place(error))
    return explained


# -- what upstream raises outside of workflow code --------------------------------------------------------------------


def translate(execution: Execution, loop: WorkflowLoop, function: Any, context: Any, error: Any) -> Any:
    """Return what to record for an `error` with which upstream is about to fail the instance of `context`."""
    if _upstream.is_mismatch(error) and not isinstance(error, AsyncWorkflowError):
        return divergence(execution, loop, error)
    if isinstance(error, _upstream.UnserializableResult):
        return _unserializable_result(execution, function, error, _upstream.serializer(context))
    return recordable(error) if isinstance(error, Exception) else error


def of_activity(error: BaseException) -> BaseException:
    """Return what to record for an `error` of an activity: itself, if its message can be recorded and says enough.

    Its traceback begins with the first frame of the activity.
    """
    if is_unserializable_result(error):
        return error.with_traceback(None)
    # Not the method of an exception type of the user's, which may override it.
    error = BaseException.with_traceback(error, own_traceback(error))
    if _is_group(error) and type(error).__name__ == "ExceptionGroup":
        return recordable(_readable_group(error).with_traceback(error.__traceback__))
    return recordable(error)


def is_recordable(error: BaseException) -> bool:
    """Whether upstream can record `error` as it is.

    Upstream formats messages and tracebacks of an error and its causes while it ends the instance.  One that a protobuf
    cannot hold, for example a lone surrogate in the name of a file, leaves the turn unanswered, and the engine delivers
    it again without end.
    """
    return all(map(_can_be_recorded, _chain(error)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    for _ in range(_CHAIN_LENGTH + 1):
        if current is None:
            return
        yield current
        current = _cause_of(current)


def _cause_of(error: BaseException) -> BaseException | None:
    try:
        return error.__cause__ or error.__context__
    except BaseException:
        return None


def _can_be_recorded(error: BaseException) -> bool:
    try:
        _ = error.__cause__ or error.__context__
        return str(error) == message_of(error) and _has_text_traceback(error)
    except BaseException:
        return False


def _has_text_traceback(error: BaseException) -> bool:
    try:
        "".join(traceback.format_tb(error.__traceback__)).encode()
    except UnicodeEncodeError:
        return False
    return True


def recordable(error: BaseException, depth: int = 0) -> BaseException:
    """Return `error`, or a substitute of the same type name if it is not `is_recordable`."""
    kept = inner = _cause_of(error)
    if isinstance(inner, Exception) and depth < _CHAIN_LENGTH:
        kept = recordable(inner, depth + 1)
    recorded = error if _can_be_recorded(error) else _substitute(error)
    if recorded is not error or kept is not inner:
        recorded.__cause__ = kept
    return recorded


def _substitute(error: BaseException) -> Exception:
    kind = type(error)
    named = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    substitute: Exception = type(kind.__name__, (Exception,), named)(message_of(error))
    return substitute.with_traceback(error.__traceback__ if _has_text_traceback(error) else None)


_ANY_RESULT = "a dict, list, string, number, dataclass, or whatever the worker's data converter takes"


def unawaited_result(execution: Execution, result: Any, path: str = "result") -> WorkflowValidationError:
    """Return the error for a `result`, or a part of one at `path`, that was never awaited."""
    close_if_coroutine(result)
    call = call_of(result)
    what = "the workflow returned" if path == "result" else f"{path} of the workflow is"
    msg = (
        f"{what} {describe_awaitable(result)} that was never awaited\n"
        f"  wrong: return {call}\n"
        f"  right: return await {call}"
    )
    return execution.error(WorkflowValidationError, msg)


def _unserializable_result(execution: Execution, function: Any, error: Any, serialize: Any) -> Exception:
    found = find_unserializable(error.problem_object, "result", serialize)
    if isinstance(found.value, AWAITABLES):
        converted = unawaited_result(execution, found.value, found.path)
    else:
        if found.value is SERIALIZABLE:
            kind = type(error.problem_object).__name__
            found = UnserializablePart("result", error.problem_object, f"its type is {kind!r}")
        msg = (
            f"{found.path} of workflow function {describe_function(function)} cannot be serialised: {found.reason}\n"
            f"  wrong: return {found.wrong}\n"
            f"  right: return {found.replacement or _ANY_RESULT}{found.converter_hint}"
        )
        converted = execution.error(WorkflowValidationError, msg)
    # Without upstream's error as the cause: its message contains the result, memory addresses included.
    return converted
