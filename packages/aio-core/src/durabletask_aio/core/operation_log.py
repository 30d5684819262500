"""The record of a workflow's operations in debug mode, shown by `ctx.get_debug_info()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from durabletask_aio.core.operations import exception_of, is_done

if TYPE_CHECKING:
    from durabletask_aio.core.operations import ScheduledOperation
    from durabletask_aio.core.workflow_logger import ReplaySafeLogger


class OperationLog:
    """Keeps every operation of an execution in the order in which it was scheduled."""

    def __init__(self, logger: ReplaySafeLogger) -> None:
        self._logger = logger
        self._operations: list[ScheduledOperation[Any]] = []

    def add(self, operation: ScheduledOperation[Any]) -> None:
        """Keep an operation that has just been scheduled, and log it at DEBUG."""
        self._operations.append(operation)
        self._logger.debug("scheduled %s", operation.description)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one JSON-serialisable mapping for each operation, with facts that are the same on replay."""
        return [_facts(number, operation) for number, operation in enumerate(self._operations, 1)]


def _facts(number: int, operation: ScheduledOperation[Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "sequence": number,
        "step": operation.step,
        "kind": operation.kind,
        "name": operation.name,
        "state": "pending",
        "outcome": None,
    }
    if operation.cancelled():
        facts["state"] = "cancelled"
    elif is_done(operation):  # The operation's own methods count as a use of it.
        error = exception_of(operation)
        facts["state"] = "completed" if error is None else "failed"
        facts["outcome"] = None if error is None else str(getattr(error, "message", error))
    return facts
