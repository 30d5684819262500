"""The dialect of Microsoft's `durabletask`: what `_upstream_dialect` lists.

The only module of the core that imports the executor of `durabletask`; its clients and its data converter, which have
no counterpart in other SDKs, are imported by `_upstream_client` and `_upstream_data`.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import durabletask.worker as worker
from durabletask import task
from durabletask.entities import EntityInstanceId, EntityOperationFailedException
from durabletask.internal import helpers, type_discovery
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal.json_encode_output_exception import JsonEncodeOutputException
from durabletask.task import CompletableTask, FailureDetails, RetryPolicy, TaskCancelledError, TaskFailedError

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
    "status_name",
    "summary",
    "task",
]

# -- names of the protocol --------------------------------------------------------------------------------------------

ACTION_KIND = "orchestratorActionType"
"""The `oneof` of an action that says what it is."""
CHILD = "createSubOrchestration"
"""The action that starts a child."""
END = "completeOrchestration"
"""The action that ends an execution."""
END_STATUS = "orchestrationStatus"
"""The field of `END` with the status."""
CHILD_CREATED = "subOrchestrationInstanceCreated"
"""The event that confirms the start of a child."""
CHILD_FAILED = "subOrchestrationInstanceFailed"
"""The event of a child that has failed."""

# -- the executor -----------------------------------------------------------------------------------------------------

ExecutionResults = worker.ExecutionResults
OrchestratorNotRegisteredError = worker.OrchestratorNotRegisteredError
TaskHubGrpcWorker = worker.TaskHubGrpcWorker
UnserializableResult = JsonEncodeOutputException
activity_output_type = type_discovery.activity_output_type
new_failure_details = helpers.new_failure_details
new_schedule_task_action = helpers.new_schedule_task_action
qualified_name = helpers.get_qualified_name
status_name = helpers.get_orchestration_status_str

EXECUTOR_MODULE = worker.__name__
"""The module whose code processes events, which is how its own errors are told from those of workflows."""

if TYPE_CHECKING:
    ExecutorBase = worker._OrchestrationExecutor
else:
    # `object` where it is gone, so that this module can be imported and `missing_names` can report it.
    ExecutorBase = getattr(worker, "_OrchestrationExecutor", object)


def new_context(executor: Any, instance_id: str) -> Any:
    """Return an empty context for the first turn of an instance.

    Args:
        executor: the executor, an `ExecutorBase`.
        instance_id: the instance.
    """
    return worker._RuntimeOrchestrationContext(
        instance_id,
        executor._registry,
        executor._data_converter,
        maximum_timer_interval=executor._maximum_timer_interval,
        exception_properties_provider=executor._exception_properties_provider,
        logger=executor._logger,
    )


def new_results(context: Any, actions: list[pb.OrchestratorAction]) -> worker.ExecutionResults:
    """Return the results of a turn, as the executor's own `execute` does."""
    return ExecutionResults(
        actions=actions,
        encoded_custom_status=context._encoded_custom_status,
        orchestration_trace_context=context._orchestration_trace_context,
    )


def summary(name: str) -> Callable[[Any], object]:
    """Return the executor's helper of that name for a DEBUG line; counting stands in for one that is gone."""
    found: Callable[[Any], object] = getattr(worker, name, len)
    return found


# -- the buffer of external events ------------------------------------------------------------------------------------


def buffered_event(context: Any, buffered: list[Any], payload: Any) -> Any:
    """Return what goes to the front of `buffered`, the events of one name, for an event with that payload."""
    index = buffered[0][0] - 1 if buffered else -1
    return index, None if payload is None else context._data_converter.serialize(payload)


def encoded_event(context: Any, entry: Any) -> str | None:
    """Return the payload of an event in the buffer as the protocol has it; `None` if it has none."""
    encoded: str | None = entry[1]
    return encoded


# -- the self-check ---------------------------------------------------------------------------------------------------


def missing_names() -> list[str]:
    """Return the private names that the core needs and that are gone."""
    retryable = vars(task.RetryableTask)
    timer = vars(task.TimerTask())
    executor = getattr(worker, "_OrchestrationExecutor", None)
    context = getattr(worker, "_RuntimeOrchestrationContext", None)
    return [
        name
        for name, found in {
            "Task._parents": "_parents" in timer,
            "TimerTask._retryable_parent": "_retryable_parent" in timer,
            "RetryableTask.compute_next_delay": "compute_next_delay" in retryable,
            "CancellableTask.cancel": hasattr(task.CancellableTask, "cancel"),
            "OrchestrationContext._exit_critical_section": hasattr(task.OrchestrationContext, "_exit_critical_section"),
            "worker._OrchestrationExecutor.execute": hasattr(executor, "execute"),
            "worker._OrchestrationExecutor.process_event": hasattr(executor, "process_event"),
            "worker._RuntimeOrchestrationContext.set_failed": hasattr(context, "set_failed"),
            "worker._RuntimeOrchestrationContext.get_actions": hasattr(context, "get_actions"),
        }.items()
        if not found
    ]
