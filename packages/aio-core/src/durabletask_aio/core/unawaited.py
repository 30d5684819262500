"""Operations that a workflow never awaited: found when its function has returned.

An operation is scheduled at the call, like a task of asyncio.  One that nothing waits for is nearly always a forgotten
`await`: the workflow is faster than its activity, and a failure goes unnoticed.  To cost nothing while a workflow runs,
nothing is noted for an operation that is awaited: `WorkflowLoop.unawaited` has those that were done before anything
waited for them, until something does, and all combinations; those that are outstanding are found here.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any

from durabletask_aio.core import _interpreter, _upstream_retries
from durabletask_aio.core.errors import WorkflowValidationError
from durabletask_aio.core.operations import ScheduledOperation

if TYPE_CHECKING:
    from durabletask_aio.core._upstream import task
    from durabletask_aio.core.execution import Execution
    from durabletask_aio.core.loop import WorkflowLoop

_MAX_LISTED = 10


def unawaited_operations(loop: WorkflowLoop, upstream: task.OrchestrationContext) -> list[ScheduledOperation[Any]]:
    """Return the operations that nothing has waited for, in the order of the calls.

    An operation of a function that is suspended is left out: it would have been awaited later.
    """
    found = {id(each): each for each in loop.unawaited.values() if not _is_waited_for(each)}
    for listener in _upstream_retries.listeners_of_pending(upstream):
        if isinstance(listener, ScheduledOperation):
            operation: ScheduledOperation[Any] = listener  # pyright: ignore[reportUnknownVariableType]
            if not _is_waited_for(operation):
                found[id(operation)] = operation
    if loop.journal is not None:
        found.update((key, step) for key, step in loop.journal.unfinished.items() if not _is_waited_for(step))
    if not found:
        return []
    suspended = set(_suspended_code(loop))
    return sorted((each for each in found.values() if each.code not in suspended), key=hash)


def _is_waited_for(operation: ScheduledOperation[Any]) -> bool:
    return operation.is_used or operation.has_listeners or _interpreter.has_callbacks(operation)


def _suspended_code(loop: WorkflowLoop) -> Iterator[CodeType]:
    for pending in loop.tasks:
        for awaitable in _interpreter.await_chain(pending.get_coro()):
            frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
            if frame is not None:
                yield frame.f_code


def unawaited_error(execution: Execution, operations: list[ScheduledOperation[Any]]) -> WorkflowValidationError:
    """Return the error for operations that were never awaited; its message is the warning that is logged."""
    first = operations[0]
    if len(operations) == 1:
        msg = (
            f"{first.description} was never awaited, and the workflow returned without waiting for it\n"
            f"  wrong: {first.call_text}\n"
            f"  right: await {first.call_text}"
        )
        return execution.error(WorkflowValidationError, msg, step=first.step)
    listed = "\n".join(f"  {each.site}: await {each.call_text}" for each in operations[:_MAX_LISTED])
    more = f"\n  and {len(operations) - _MAX_LISTED:,} more" if len(operations) > _MAX_LISTED else ""
    msg = (
        f"{len(operations):,} operations were never awaited, and the workflow returned without waiting for them\n"
        f"{listed}{more}"
    )
    return execution.error(WorkflowValidationError, msg)
