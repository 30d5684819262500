"""The dialect of Dapr's SDK: what `durabletask_aio.core._upstream_dialect` lists.

Dapr's SDK has a copy of upstream's executor, `dapr.ext.workflow._durabletask`, which lacks some of what the core relies
on. `DialectContext` adds to Dapr's context what the core calls; `ExecutorBase` is Dapr's executor with that context.
Generator workflows of the same runtime run on them too, and see no difference.
"""

# Dapr's SDK is typed in parts.
# mypy: disable-error-code="no-untyped-call"
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from dapr.ext.workflow._durabletask import task as dapr_task
from dapr.ext.workflow._durabletask import worker
from dapr.ext.workflow._durabletask.internal import helpers, protos, shared
from durabletask_aio.dapr import _upstream_tasks as task
from durabletask_aio.dapr._upstream_tasks import (
    CompletableTask,
    FailureDetails,
    RetryPolicy,
    TaskCancelledError,
    TaskFailedError,
)

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

ACTION_KIND = "workflowActionType"
CHILD = "createChildWorkflow"
END = "completeWorkflow"
END_STATUS = "workflowStatus"
CHILD_CREATED = "childWorkflowInstanceCreated"
CHILD_FAILED = "childWorkflowInstanceFailed"


class _Messages:
    """Dapr's messages, those with another name than Microsoft's under Microsoft's."""

    OrchestratorAction = protos.WorkflowAction

    def __getattr__(self, name: str) -> Any:
        return getattr(protos, name)


pb: Any = _Messages()

# -- what Dapr lacks --------------------------------------------------------------------------------------------------


class EntityInstanceId:
    """Dapr's workflows have no entities; nothing is an instance of this class."""


class EntityOperationFailedException(Exception):
    """Dapr's workflows have no entities; never raised."""


class UnserializableResult(Exception):
    """Dapr's SDK raises what `json` raises; never raised."""


def activity_output_type(*_: Any) -> None:
    """Return nothing: Dapr's SDK does not reconstruct results by annotation."""


# -- the executor -----------------------------------------------------------------------------------------------------

ExecutionResults = worker.ExecutionResults
OrchestratorNotRegisteredError = worker.OrchestratorNotRegisteredError
TaskHubGrpcWorker = worker.TaskHubGrpcWorker
EXECUTOR_MODULE = worker.__name__
status_name = helpers.get_orchestration_status_str if hasattr(helpers, "get_orchestration_status_str") else str
new_schedule_task_action = helpers.new_schedule_task_action

CANCEL_EVENT = "durabletask-aio.cancel"


def new_failure_details(error: Exception, provider: Any = None, logger: logging.Logger | None = None) -> Any:
    """Describe an exception as Dapr's SDK does; it has no properties of exceptions."""
    return helpers.new_failure_details(error)


def qualified_name(kind: type) -> str:
    """Return the name of a type with its module, without that of Python's own types."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def summary(name: str) -> Callable[[Any], object]:
    """Return the executor's helper of that name for a DEBUG line; counting stands in for one that is gone."""
    found: Callable[[Any], object] = getattr(worker, name, len)
    return found


MAX_INPUT_BYTES = 2 * 1024 * 1024 - 16 * 1024
"""How large the input of an activity may be as JSON.

The scheduler takes 2 MiB, with the names and ids that it is sent with; Dapr tries forever to pass on what is larger.
"""


class InputTooLargeError(Exception):
    """The input of an activity is larger than Dapr can pass on; the message says by how much."""


class _JsonConverter:
    """Dapr's encoding of values, with the methods of a data converter of Microsoft's SDK."""

    @staticmethod
    def serialize(value: Any) -> str | None:
        """Return `value` as JSON."""
        return None if value is None else shared.to_json(value)

    @staticmethod
    def deserialize(data: str | None, expected_type: Any = None) -> Any:
        """Return the value of a JSON text."""
        return None if data is None else shared.from_json(data)


class DialectContext(worker._RuntimeOrchestrationContext):
    """Dapr's context with the keywords and attributes of Microsoft's that the core uses."""

    parent_instance_id: str | None = None
    version: str | None = None
    _data_converter = _JsonConverter()
    _orchestration_trace_context = None
    _parent_trace_context = None
    _entity_context = None

    # -- activities and children --

    def call_activity(self, activity: Any, **keywords: Any) -> Any:
        """Schedule an activity; `app_id` and `propagation` are Dapr's, `tags` and `return_type` have no effect."""
        keywords.pop("tags", None)
        keywords.pop("return_type", None)
        return super().call_activity(activity, **keywords)

    def call_sub_orchestrator(self, orchestrator: Any, **keywords: Any) -> Any:
        """Start a child; `app_id` and `propagation` are Dapr's, `version` and `return_type` have no effect."""
        keywords.pop("version", None)
        keywords.pop("return_type", None)
        return super().call_sub_orchestrator(orchestrator, **keywords)

    def call_activity_function_helper(self, id: Any, activity_function: Any, **keywords: Any) -> None:  # noqa: A002
        """Schedule, with a task of this package; Dapr's own method makes a task only if it is not given one."""
        if keywords.get("fn_task") is None:
            value, policy = keywords.get("input"), keywords.pop("retry_policy", None)
            encoded = None if value is None else shared.to_json(value)
            if self.is_async and encoded is not None and not keywords.get("is_sub_orch", False):
                _check_size(encoded)
            keywords["input"] = encoded  # as for a retry, whose input is encoded already
            if policy is None:
                keywords["fn_task"] = CompletableTask()
            else:
                is_child = keywords.get("is_sub_orch", False)
                if is_child and keywords.get("instance_id") is None:
                    keywords["instance_id"] = f"{self.instance_id}:{id:04x}"
                name = activity_function if isinstance(activity_function, str) else task.get_name(activity_function)
                kept = {key: keywords[key] for key in ("app_id", "propagation", "task_execution_id") if key in keywords}
                keywords["fn_task"] = task.RetryableTask(
                    retry_policy=policy,
                    start_time=self.current_utc_datetime,
                    is_sub_orch=is_child,
                    task_name=name,
                    encoded_input=encoded,
                    instance_id=keywords.get("instance_id"),
                    **kept,
                )
        super().call_activity_function_helper(id, activity_function, **keywords)
        made = keywords["fn_task"]
        if isinstance(made, task.RetryableTask):
            made._action = self._pending_actions[self._sequence_number if id is None else id]

    def create_timer_internal(self, *args: Any, **keywords: Any) -> Any:
        """Start a timer, with a task of this package."""
        made = super().create_timer_internal(*args, **keywords)
        timer = task.TimerTask()
        timer.context, timer.number = self, self._sequence_number
        timer._retryable_parent = made._retryable_parent
        self._pending_tasks[timer.number] = timer
        return timer

    # -- events --

    is_async = False
    """Whether the workflow is an async one, which can cancel its waits."""

    def wait_for_external_event(self, name: str, *, data_type: Any = None, timeout: Any = None) -> Any:
        """Wait for an event, as Dapr's own method does.

        A wait without a timeout reserves a sequence number for an "optional timer", as Dapr's generators do, so that a
        running instance can be continued by code of the other form. The request to cancel an instance is not waited for
        by generators, and reserves none.
        """
        if name == CANCEL_EVENT:
            return self._wait_for_request(name)
        made: Any = super().wait_for_external_event(name, timeout=timeout)
        if timeout is not None or not self.is_async:
            return made
        waiting = getattr(made, "_event_task", made)
        own = task.CancellableTask()
        if waiting.is_complete:
            own.complete(waiting.get_result())
            return own
        several = self._pending_events[name.casefold()]
        several[several.index(waiting)] = own
        own.withdraw = lambda: self._withdraw(name, own)
        return own

    def _wait_for_request(self, name: str) -> Any:
        key = name.casefold()
        waiting = task.CancellableTask()
        buffered = self._received_events.get(key)
        if buffered:
            waiting.complete(buffered.pop(0))
            if not buffered:
                del self._received_events[key]
        else:
            self._pending_events.setdefault(key, []).append(waiting)
            waiting.withdraw = lambda: self._withdraw(name, waiting)
        return waiting

    def _withdraw(self, name: str, waiting: Any) -> None:
        key = name.casefold()
        several = self._pending_events.get(key, [])
        if waiting in several:
            several.remove(waiting)
        if not several:
            self._pending_events.pop(key, None)

    # -- the execution --

    def new_uuid(self) -> str:
        """Return the next deterministic uuid, under Microsoft's name."""
        return str(self.new_guid())

    def set_custom_status(self, custom_status: Any) -> None:
        """Set the custom status: a text as it is, and anything else as JSON."""
        is_text = custom_status is None or isinstance(custom_status, str)
        status: Any = custom_status if is_text else shared.to_json(custom_status)
        super().set_custom_status(status)

    def continue_as_new(self, new_input: Any, *, save_events: bool = False, new_version: str | None = None) -> None:
        """Continue as new; Dapr has no version to continue with."""
        super().continue_as_new(new_input, save_events=save_events)

    def get_actions(self) -> list[Any]:
        """Return the actions; events that are carried over keep payloads like `0`, which Dapr's own method drops."""
        actions = super().get_actions()
        status: Any = self._completion_status
        if self._save_events and status == protos.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
            payloads = [payload for several in self._received_events.values() for payload in several]
            for action in actions:
                for event, payload in zip(action.completeWorkflow.carryoverEvents, payloads, strict=True):
                    if payload is not None:
                        event.eventRaised.input.value = shared.to_json(payload)
        return actions

    def _exit_critical_section(self) -> None:
        """Release entity locks, of which there are none."""


def _check_size(encoded: str) -> None:
    size = len(encoded)  # Dapr's SDK writes JSON in ASCII
    if size > MAX_INPUT_BYTES:
        raise InputTooLargeError(f"has {size:,} bytes as JSON, and Dapr takes {MAX_INPUT_BYTES:,} at most")


def new_context(executor: Any, instance_id: str) -> DialectContext:
    """Return an empty context for the first turn of an instance."""
    context = DialectContext(instance_id)
    if hasattr(context, "set_propagated_history"):
        context.set_propagated_history(executor.propagated_history)
    return context


def new_results(context: Any, actions: list[Any]) -> Any:
    """Return the results of a turn, as the executor's own `execute` does."""
    patches, context._encountered_patches = context._encountered_patches, list(context._encountered_patches)
    return ExecutionResults(
        actions=actions,
        encoded_custom_status=context._encoded_custom_status,
        version_name=context._version_name,
        patches=patches,
    )


def as_committed(events: Sequence[Any], results: Any) -> list[Any]:
    """Return the new events of a turn as the history will have them.

    The sidecar adds the version of the workflow and the patches that it has passed to the first start of a turn.
    """
    committed = list(events)
    if results.version_name or results.patches:
        for position, event in enumerate(committed):
            if event.HasField("workflowStarted"):
                started = type(event)()
                started.CopyFrom(event)
                started.workflowStarted.ClearField("version")
                if results.version_name:
                    started.workflowStarted.version.name = results.version_name
                started.workflowStarted.version.patches.extend(results.patches)
                committed[position] = started
                break
    return committed


class ExecutorBase(worker._OrchestrationExecutor):
    """Dapr's executor of a history, which makes a `DialectContext`.

    `execute` is Dapr's own written out again: it names the class of the context.
    """

    propagated_history: Any = None
    _exception_properties_provider = None
    _persisted_orch_span_id = None
    _task_scheduled_info: dict[int, Any] = {}  # noqa: RUF012 - never filled
    _orchestration_name = ""

    def execute(
        self, instance_id: str, old_events: Sequence[Any], new_events: Sequence[Any], propagated_history: Any = None
    ) -> Any:
        """Run a turn by replaying the whole history."""
        if not new_events:
            raise task.OrchestrationStateError("The new history event list must have at least one event in it.")
        context = new_context(self, instance_id)
        try:
            context._is_replaying = True
            for event in old_events:
                self.process_event(context, event)
            context._is_replaying = False
            for event in new_events:
                self.process_event(context, event)
        except worker.VersionNotRegisteredException:
            context.set_version_not_registered()
        except Exception as error:  # fails the instance, as Dapr's own does
            context.set_failed(error)
        return new_results(context, context.get_actions())

    def process_event(self, ctx: Any, event: Any) -> None:
        """Process one event, and note what Dapr's context does not keep of the first one."""
        if event.HasField("executionStarted"):
            parent = event.executionStarted.parentInstance.workflowInstance.instanceId
            ctx.parent_instance_id = parent or None
        super().process_event(ctx, event)


# -- the buffer of external events ------------------------------------------------------------------------------------


def buffered_event(context: Any, buffered: list[Any], payload: Any) -> Any:
    """Return what goes to the front of the buffer: Dapr's holds decoded payloads."""
    return payload


def encoded_event(context: Any, entry: Any) -> str | None:
    """Return the payload of an event in the buffer as the protocol has it."""
    return None if entry is None else shared.to_json(entry)


# -- the self-check ---------------------------------------------------------------------------------------------------


def missing_names() -> list[str]:
    """Return the private names that are needed and that are gone."""
    timer = vars(dapr_task.TimerTask())
    context = vars(worker._RuntimeOrchestrationContext("self-check"))
    needed = {
        "Task._parent": "_parent" in timer,
        "TimerTask._retryable_parent": "_retryable_parent" in timer,
        "RetryableTask.compute_next_delay": hasattr(dapr_task.RetryableTask, "compute_next_delay"),
        "worker._OrchestrationExecutor.process_event": hasattr(worker._OrchestrationExecutor, "process_event"),
        **{
            f"worker._RuntimeOrchestrationContext.{name}": name in context
            for name in ("_pending_actions", "_pending_tasks", "_pending_events", "_received_events", "_save_events")
        },
        **{
            f"worker._RuntimeOrchestrationContext.{name}": hasattr(worker._RuntimeOrchestrationContext, name)
            for name in ("call_activity_function_helper", "create_timer_internal", "get_actions", "set_failed")
        },
        "TaskHubGrpcWorker._execute_orchestrator": hasattr(worker.TaskHubGrpcWorker, "_execute_orchestrator"),
    }
    return [name for name, found in needed.items() if not found]
