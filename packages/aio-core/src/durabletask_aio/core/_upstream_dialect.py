"""The seam: what the core needs of the SDK that runs its workflows, in the words of the SDK that this process has.

`families` says which SDK that is; its dialect is a module with the names below. `_upstream_microsoft` is the one of
Microsoft's `durabletask`, and documents them; that of Dapr's SDK is in the distribution `durabletask-aio-dapr`. The
other `_upstream` modules are written against these names and against the private names that both SDKs share, since
both are the same code by origin. Nothing else in the core knows that there is more than one.
"""

# ruff: noqa: TC004 - what type checkers see here is bound below

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from durabletask_aio import families

__all__ = [
    "ACTION_KIND",
    "CHILD",
    "CHILD_CREATED",
    "CHILD_FAILED",
    "END",
    "END_STATUS",
    "EXECUTOR_MODULE",
    "CompletableTask",
    "EntityInstanceId",
    "EntityOperationFailedException",
    "ExecutionResults",
    "ExecutorBase",
    "FailureDetails",
    "OrchestratorNotRegisteredError",
    "RetryPolicy",
    "TaskCancelledError",
    "TaskFailedError",
    "TaskHubGrpcWorker",
    "UnserializableResult",
    "activity_output_type",
    "buffered_event",
    "encoded_event",
    "missing_names",
    "new_context",
    "new_failure_details",
    "new_results",
    "new_schedule_task_action",
    "pb",
    "qualified_name",
    "self_check",
    "status_name",
    "summary",
    "task",
]

if TYPE_CHECKING:
    from durabletask_aio.core._upstream_microsoft import (
        ACTION_KIND,
        CHILD,
        CHILD_CREATED,
        CHILD_FAILED,
        END,
        END_STATUS,
        EXECUTOR_MODULE,
        CompletableTask,
        EntityInstanceId,
        EntityOperationFailedException,
        ExecutionResults,
        ExecutorBase,
        FailureDetails,
        OrchestratorNotRegisteredError,
        RetryPolicy,
        TaskCancelledError,
        TaskFailedError,
        TaskHubGrpcWorker,
        UnserializableResult,
        activity_output_type,
        buffered_event,
        encoded_event,
        missing_names,
        new_context,
        new_failure_details,
        new_results,
        new_schedule_task_action,
        pb,
        qualified_name,
        status_name,
        summary,
        task,
    )
else:
    _dialect = import_module(families.chosen().dialect)
    globals().update({name: getattr(_dialect, name) for name in __all__ if name != "self_check"})


def self_check() -> str | None:
    """Compare upstream with what the `_upstream` modules expect.

    Returns:
        `None`, or the sentence that says which name is gone.
    """
    gone = missing_names()
    if not gone:
        return None
    family = families.chosen()
    sdk, own = family.distribution, family.required_by
    return (
        f"{sdk} has changed under {own}: {', '.join(gone)} is gone; install a version of {sdk} that this {own} "
        f"supports, or a newer {own}"
    )
