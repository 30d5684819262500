"""How an exception leaves a workflow, and what the history records of it.

The rule is that failures keep their type: an uncaught ``ValueError`` fails the instance as a ``ValueError``.  What is
translated here is only what upstream could not survive (exceptions that are no ``Exception``), what it would record
differently from a generator orchestrator's (our richer failure of an activity), and what it would record unreadably.
"""

from __future__ import annotations

import asyncio
import os
import re
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from durabletask import task

from durabletask_aio.core import _upstream, debug, validation
from durabletask_aio.core.errors import (
    AsyncWorkflowError,
    HistoryDivergenceError,
    OperationFailedError,
    WorkflowValidationError,
    add_note,
    message_of,
    shown,
)
from durabletask_aio.core.operations import Operation, UnawaitedResultError

if TYPE_CHECKING:
    from durabletask_aio.core.host import Host
    from durabletask_aio.core.loop import WorkflowLoop

_GROUP_DEPTH = 10
_GROUP_LENGTH = 20
_CHAIN_LENGTH = 10
"""Upstream records no more causes of causes than these."""

_FOREIGN_FUTURE = ("attached to a different loop", "await wasn't used with future")
"""What asyncio says to a future of another loop, the first time and from then on."""

_NOT_YET = ("Result is not set.", "Exception is not set.")
"""What asyncio says of the ``result()`` and the ``exception()`` of a future that is not done."""

_STANDARD_LIBRARY = os.path.dirname(os.__file__)  # what sysconfig says, whose import takes a millisecond

_OPERATION = re.compile(r"\b(Retried|Lock)?Operation\b")
"""How Python names an operation that a function of its own cannot work with."""


def as_recorded(error: BaseException, host: Host, loop: WorkflowLoop) -> Exception:
    """The exception to hand to upstream for ``error``: the same one wherever that is possible."""
    recorded = _recorded(error, host)
    if recorded is not error:
        recorded.__traceback__ = error.__traceback__
    _plain_chain(recorded)
    _add_context(recorded, host)
    return recorded


def _recorded(error: BaseException, host: Host) -> Exception:
    if isinstance(error, OperationFailedError):
        return _upstream_error(error)
    if _is_group(error):
        return _readable_group(error, host)
    if isinstance(error, RuntimeError) and any(text in message_of(error) for text in _FOREIGN_FUTURE):
        return _foreign_future(error, host)
    if isinstance(error, AttributeError) and isinstance(_attribute_of(error, "obj"), Operation):
        return _missed_attribute(error)
    if type(error) is asyncio.InvalidStateError and message_of(error) in _NOT_YET:
        return _asked_too_early(error, host)
    if type(error) is TypeError and _OPERATION.search(message_of(error)):
        return _unawaited_argument(error, host)
    if isinstance(error, Exception):
        return error
    if isinstance(error, asyncio.CancelledError):
        return task.TaskCancelledError(
            f"the workflow was cancelled: {message_of(error)}" if error.args else "the workflow was cancelled"
        )
    kind = type(error).__name__
    msg = (
        f"the workflow raised {kind}({', '.join(map(shown, error.args))}), which is meant for the process and not for "
        f"a workflow; to end the instance, return from the workflow or raise an Exception"
    )
    converted = host.error(AsyncWorkflowError, msg)
    converted.__cause__ = error
    return converted


def _upstream_error(error: OperationFailedError) -> task.TaskFailedError:
    plain = error.task_error
    if plain is not error:
        plain.__cause__, plain.__context__ = error.__cause__, error.__context__
        plain.__suppress_context__ = error.__suppress_context__
    return plain


def _plain_chain(recorded: BaseException) -> None:
    """In the causes of ``recorded`` too, put back upstream's failures for ours: the history has them by type name."""
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


def _add_context(error: BaseException, host: Host) -> None:
    """Say in a note which instance it was; notes are shown with a traceback and are not part of what is recorded."""
    note = f"in workflow {host.workflow_name!r}, instance {host.instance_id!r}"
    try:
        if note in (getattr(error, "__notes__", None) or ()):
            return
        add_note(error, note)
        for name in ("instance_id", "workflow_name"):
            if not hasattr(error, name):
                setattr(error, name, getattr(host, name))
    except Exception:  # slots, guarded attributes, properties: whatever it is, its failure is what counts
        pass


# -- exception groups: duck-typed, since Python 3.10 has them as a backport only --------------------------------------


def _is_group(error: BaseException) -> bool:
    return isinstance(_attribute_of(error, "exceptions"), tuple) and _attribute_of(error, "derive") is not None


def _attribute_of(error: BaseException, name: str) -> Any:
    """An attribute of an exception of anybody's, ``None`` if there is none or it cannot be had."""
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


def _readable_group(group: Any, host: Host | None = None) -> Exception:
    """Upstream records a group's message alone: have it say what the exceptions were, with the first as the cause."""
    leaves = list(_leaves(group))
    first = next((leaf for leaf in leaves if isinstance(leaf, Exception)), None)
    recorded: Exception
    kind = cast("Any", type(group))
    if host is not None and not isinstance(group, Exception):
        recorded = host.error(AsyncWorkflowError, f"the workflow raised {kind.__name__}: {_summary(leaves)}")
    elif kind.__name__ == "ExceptionGroup":
        facts: Any = group
        recorded = kind(f"{facts.message}: {_summary(leaves)}", facts.exceptions)
        recorded.__cause__, recorded.__context__ = group.__cause__, group.__context__
        for note in getattr(group, "__notes__", ()):
            add_note(recorded, note)
    else:
        recorded = group  # a type of the user's own, with a constructor we do not know
    if recorded.__cause__ is None:
        recorded.__cause__ = _upstream_error(first) if isinstance(first, OperationFailedError) else first
    return recorded


def foreign_future(host: Host, what: str, shown: str, place: str | None = None) -> WorkflowValidationError:
    """The error for a future of another event loop; ``shown`` is the future, as its description or its ``repr``."""
    if "Operation " in shown or ("(" in shown and not shown.startswith("<")):
        owner = "an operation of another instance"
        wrong, right = "await other_ctx_operation", "await ctx.wait_for_external_event('done')  # which the other sends"
    else:
        owner = "a future of the application's event loop"
        wrong, right = "await client.get(url)", "await ctx.call_activity(fetch, input=url)"
    return host.slip(f"{what} {owner}, which this workflow's loop cannot wait for: {shown}", wrong, right, place=place)


def _foreign_future(error: RuntimeError, host: Host) -> Exception:
    _, _, shown = str(error).partition(" got Future ")
    shown = shown.partition(" attached to a different loop")[0] or "<Future awaited elsewhere>"
    shown = re.sub(r" at 0x[0-9a-fA-F]+", "", shown)  # another one at each replay
    frames = debug.user_frames(error)  # by now the line has left the stack
    return foreign_future(host, "the workflow awaited", shown, frames[-1] if frames else None)


def _place(error: BaseException) -> str | None:
    """``file:line`` of the user's line that ``error`` came through last, or of any other if there is none."""
    frames = debug.user_frames(error)
    own = [frame for frame in frames if not frame.startswith(_STANDARD_LIBRARY)] or frames
    return own[-1].partition(" in ")[0] if own else None


def _asked_too_early(error: BaseException, host: Host) -> Exception:
    slip = host.slip(
        "the workflow asked a future for its outcome before it was done",
        "ctx.call_activity('work').result()",
        "await ctx.call_activity('work')",
        place=_place(error),
    )
    return UnawaitedResultError(slip.message, instance_id=slip.instance_id, workflow_name=slip.workflow_name)


def _unawaited_argument(error: BaseException, host: Host) -> Exception:
    # Beside what Python said, and not instead of it: the name may be that of a class of the user's.
    return host.slip(
        f"{message_of(error)}; was an operation used without being awaited?",
        "text = ', '.join([ctx.call_activity('name')])",
        "text = ', '.join([await ctx.call_activity('name')])",
        place=_place(error),
    )


def _missed_attribute(error: Any) -> Exception:
    operation: Operation[Any] = error.obj
    return operation.attribute_missed(error.name, _place(error))


# -- what upstream raises outside of workflow code --------------------------------------------------------------------


def translate(host: Host, loop: WorkflowLoop, function: Any, context: Any, error: Any) -> Any:
    """What to record for an ``error`` with which upstream is about to fail the instance of ``context``."""
    if _upstream.is_mismatch(error) and not isinstance(error, AsyncWorkflowError):
        return _divergence(host, loop, error)
    if isinstance(error, _upstream.UnserializableResult):
        return _unserializable_result(host, function, error, _upstream.serializer(context))
    return recordable(error) if isinstance(error, Exception) else error


def of_activity(error: BaseException) -> BaseException:
    """What to record for an ``error`` of an activity: itself, if its message can be recorded and says enough."""
    if _is_group(error) and type(error).__name__ == "ExceptionGroup":
        return recordable(_readable_group(error).with_traceback(error.__traceback__))
    return recordable(error)


def is_recordable(error: BaseException) -> bool:
    """Whether upstream could record ``error`` as it is.

    It asks an error and its causes for their messages and tracebacks while it ends the instance.  An answer that is no
    text for a protobuf, half of a surrogate pair in the name of a file, say, leaves the turn without an end: the engine
    delivers it again, for ever.
    """
    return all(map(_can_be_told, _chain(error)))


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


def _can_be_told(error: BaseException) -> bool:
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
    """``error``, or what stands for it in the history, under its name, if it is not :func:`is_recordable`."""
    kept = inner = _cause_of(error)
    if isinstance(inner, Exception) and depth < _CHAIN_LENGTH:
        kept = recordable(inner, depth + 1)
    recorded = error if _can_be_told(error) else _stand_in(error)
    if recorded is not error or kept is not inner:
        recorded.__cause__ = kept
    return recorded


def _stand_in(error: BaseException) -> Exception:
    kind = type(error)
    named = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    stand_in: Exception = type(kind.__name__, (Exception,), named)(message_of(error))
    return stand_in.with_traceback(error.__traceback__ if _has_text_traceback(error) else None)


_ANY_RESULT = "a dict, list, string, number, dataclass, or whatever the worker's data converter takes"


def unawaited_result(host: Host, result: Any, path: str = "result") -> WorkflowValidationError:
    """The error for a ``result``, or a part of one at ``path``, that was never awaited."""
    debug.discard(result)
    call = debug.call_of(result)
    what = "the workflow returned" if path == "result" else f"{path} of the workflow is"
    msg = (
        f"{what} {debug.describe_awaitable(result)} that was never awaited\n"
        f"  wrong: return {call}\n"
        f"  right: return await {call}"
    )
    return host.error(WorkflowValidationError, msg)


def _unserializable_result(host: Host, function: Any, error: Any, serialize: Any) -> Exception:
    found = debug.culprit(error.problem_object, "result", serialize)
    if isinstance(found.value, debug.AWAITABLES):
        converted = unawaited_result(host, found.value, found.path)
    else:
        if found.value is debug.INNOCENT:
            kind = type(error.problem_object).__name__
            found = debug.Culprit("result", error.problem_object, f"its type is {kind!r}")
        msg = (
            f"{found.path} of workflow function {validation.describe(function)} cannot be serialised: {found.reason}\n"
            f"  wrong: return {found.wrong}\n"
            f"  right: return {found.right or _ANY_RESULT}"
        )
        converted = host.error(WorkflowValidationError, msg)
    # Without upstream's error as the cause: its message has the result in it, down to memory addresses.
    return converted


def _divergence(host: Host, loop: WorkflowLoop, error: Exception) -> Exception:
    context, event, action = _upstream.scene_of(error)
    if event is None or context is None:
        return error
    step = event.eventId
    history = _upstream.describe_event(event)
    listeners = _upstream.listeners_of(context, step)
    described = [listener.describe() for listener in listeners if isinstance(listener, Operation)]
    waits = "; ".join(f"{task.get_name()} waits at {debug.where(task)}" for task in loop.tasks)
    if described:
        code = f"the code scheduled {described[0]}"
    elif action is None and not waits:
        code = "the code had ended by then"
    else:
        code = f"the code {_upstream.describe_action(action)}"
        if waits:
            code += f" ({waits})"
    msg = (
        f"history and code diverge at step {step}: the history has {history}, and {code}. Either the workflow was "
        f"changed while this instance was running, or it decides by something that is not the same on replay"
    )
    converted = host.error(HistoryDivergenceError, msg, step=step)
    if isinstance(error, task.NonDeterminismError):
        converted.__cause__ = error
    return converted
