"""Every private name of ``durabletask`` that this package touches, in one place.

Upstream promises nothing about these.  ``verify()`` says in plain sentences what has changed, a test calls it, and
nothing else in the package imports from upstream's internals.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import durabletask.history as _history
import durabletask.internal.helpers as helpers
import durabletask.internal.orchestrator_service_pb2 as pb
import durabletask.internal.orchestrator_service_pb2_grpc as _stubs
import durabletask.worker as _worker
from durabletask import task as _task
from durabletask.internal import tracing, type_discovery
from durabletask.serialization import DataConverter, JsonDataConverter
from durabletask.testing.in_memory_backend import (
    ActivityWorkItem,
    EntityState,
    InMemoryOrchestrationBackend,
    OrchestrationInstance,
    StateWaiter,
)
from durabletask.worker import ActivityNotRegisteredError, EntityNotRegisteredError, OrchestratorNotRegisteredError

from durabletask_aio.worker._upstream import OrchestrationExecutor, TurnAborted, failure_details

__all__ = [
    "ActivityNotRegisteredError",
    "ActivityWorkItem",
    "EntityNotRegisteredError",
    "EntityState",
    "InMemoryOrchestrationBackend",
    "OrchestrationInstance",
    "OrchestratorNotRegisteredError",
    "Registry",
    "StateWaiter",
    "TurnExecutor",
    "activity_input_type",
    "add_servicer",
    "entity_batch",
    "failure_details",
    "helpers",
    "not_registered",
    "pb",
    "suppress_spans",
    "typed_event",
    "verify",
]

add_servicer = cast(
    Callable[[InMemoryOrchestrationBackend, Any], None],
    _stubs.add_TaskHubSidecarServiceServicer_to_server,  # pyright: ignore[reportUnknownMemberType]
)

typed_event: Callable[[pb.HistoryEvent], _history.HistoryEvent] = _history._from_protobuf  # pyright: ignore[reportPrivateUsage]

activity_input_type = type_discovery.activity_input_type
suppress_spans = tracing.suppress_span_emission

_silent = logging.getLogger("durabletask.aio.testing.silent")
"""For code of upstream's whose logging would only repeat what a test sees anyway."""

_silent.disabled = True


class Registry(_worker._Registry):  # pyright: ignore[reportPrivateUsage]
    """Upstream's registry, with the names there are in the errors about a name there is not."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def get_orchestrator(self, name: str) -> Any:
        return self._found(super().get_orchestrator(name), "orchestrator", name, OrchestratorNotRegisteredError)

    def get_activity(self, name: str) -> Any:
        return self._found(super().get_activity(name), "activity", name, ActivityNotRegisteredError)

    def get_entity(self, name: str) -> Any:
        return self._found(super().get_entity(name), "entity", name, EntityNotRegisteredError)

    def names(self, kind: str) -> list[str]:
        """The registered names of a kind: ``"orchestrator"``, ``"activity"`` or ``"entity"``."""
        registered: dict[str, Any] = {
            "orchestrator": self.orchestrators,
            "activity": self.activities,
            "entity": self.entities,
        }
        return list(registered[kind])

    def _found(self, function: Any, kind: str, name: str, error: type[Exception]) -> Any:
        if function is None:
            raise error(not_registered(kind, name, self.names(kind)))
        return function


def not_registered(kind: str, name: str, names: Sequence[str]) -> str:
    """The sentence for a name that nobody has registered."""
    if not names:
        return f"no {kind} {name!r} is registered here, nor any other {kind}"
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"no {kind} {name!r} is registered here; there are: {', '.join(sorted(names))}{hint}"


class TurnExecutor(OrchestrationExecutor):
    """The worker's executor, which remembers why a turn failed and keeps retries on the workflow's clock."""

    error: BaseException | None = None

    def __init__(self, registry: Registry, converter: DataConverter, maximum_timer_interval: timedelta | None) -> None:
        super().__init__(registry, _silent, converter, maximum_timer_interval=maximum_timer_interval)

    def process_event(self, ctx: Any, event: pb.HistoryEvent) -> None:
        if event.HasField("taskFailed"):
            _use_workflow_clock(ctx, event.taskFailed.taskScheduledId)
        elif event.HasField("subOrchestrationInstanceFailed"):
            _use_workflow_clock(ctx, event.subOrchestrationInstanceFailed.taskScheduledId)
        try:
            super().process_event(ctx, event)
        except TurnAborted as aborted:
            self.error = aborted.__cause__
            raise
        except Exception as error:
            self.error = error
            raise

    def open(self, instance_id: str) -> Any:
        """Start to feed events one by one; returns upstream's context, which is in replay."""
        self.context = _worker._RuntimeOrchestrationContext(  # pyright: ignore[reportPrivateUsage]
            instance_id,
            self._registry,
            self._data_converter,
            maximum_timer_interval=self._maximum_timer_interval,
            logger=_silent,
        )
        self._orchestration_name = ""
        return self.context

    def feed(self, event: pb.HistoryEvent) -> None:
        """Process one event, as upstream's executor does in its loop: an error fails the instance."""
        if not self.is_complete or event.HasField("executionRewound"):
            try:
                self.process_event(self.context, event)
            except Exception as error:
                self.context.set_failed(error)

    def set_replaying(self, is_replaying: bool) -> None:
        self.context._is_replaying = is_replaying

    def watch_actions(self, actions: dict[int, pb.OrchestratorAction]) -> None:
        """Put the actions of the instance into this mapping from now on, before its first event."""
        self.context._pending_actions = actions

    @property
    def has_continued(self) -> bool:
        """Whether the instance has asked to continue as new."""
        return bool(self.context._completion_status == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW)

    @property
    def generator(self) -> Any:
        """The generator that upstream drives, ``None`` before the start and for orchestrators that are none."""
        return self.context._generator

    def awaited_events(self) -> list[str]:
        """The names of the external events that the orchestrator waits for, in lower case."""
        return [] if self.context is None else list(self.context._pending_events)


def _use_workflow_clock(ctx: Any, task_id: int) -> None:
    """Upstream compares ``retry_timeout`` with the machine's clock, also while replaying; a test has another clock."""
    if not isinstance(ctx._pending_tasks.get(task_id), _task.RetryableTask):
        return
    task: Any = ctx._pending_tasks[task_id]
    if task._retry_policy.retry_timeout is None:
        return
    expires = task._start_time + task._retry_policy.retry_timeout
    unlimited = copy.copy(task._retry_policy)
    unlimited._retry_timeout = None
    retryable: type[_task.RetryableTask[Any]] = _task.RetryableTask

    def compute_next_delay() -> timedelta | None:
        if ctx.current_utc_datetime >= expires:
            return None
        twin = copy.copy(task)
        twin._retry_policy = unlimited
        return retryable.compute_next_delay(twin)

    task.compute_next_delay = compute_next_delay


def entity_batch(
    registry: Registry, converter: DataConverter, request: pb.EntityRequest, token: str
) -> pb.EntityBatchResult:
    """Upstream's execution of a batch of entity operations, without a worker around it."""
    worker = SimpleNamespace(
        _payload_store=None,
        _data_converter=converter,
        _registry=registry,
        _logger=_silent,
        _entity_method_cache=_worker._EntityMethodSignatureCache(),  # pyright: ignore[reportPrivateUsage]
        _emit_trace_spans=False,
        _exception_properties_provider=None,
    )

    def ignore(result: pb.EntityBatchResult) -> None:
        """The batch's result is also returned."""

    stub = SimpleNamespace(CompleteEntityTask=ignore)
    execute = cast(Any, _worker.TaskHubGrpcWorker)._execute_entity_batch
    return cast(pb.EntityBatchResult, execute(worker, request, stub, token))


_BACKEND_METHODS: dict[str, tuple[str, ...]] = {
    "StartInstance": ("request", "context"),
    "RestartInstance": ("request", "context"),
    "GetWorkItems": ("request", "context"),
    "SignalEntity": ("request", "context"),
    "WaitForInstanceStart": ("request", "context"),
    "WaitForInstanceCompletion": ("request", "context"),
    "CompleteOrchestratorTask": ("request", "context"),
    "CompleteActivityTask": ("request", "context"),
    "CompleteEntityTask": ("request", "context"),
    "AbandonTaskActivityWorkItem": ("request", "context"),
    "AbandonTaskOrchestratorWorkItem": ("request", "context"),
    "AbandonTaskEntityWorkItem": ("request", "context"),
    "_parse_work_item_filters": ("request",),
    "_matches_filter": ("name", "version", "filt"),
    "_create_instance_internal": ("instance_id", "name", "encoded_input", "version"),
    "_terminate_instance_internal": ("instance_id", "output", "recursive"),
    "_process_complete_orchestration_action": ("instance", "complete_action"),
    "_process_schedule_task_action": ("instance", "action"),
    "_process_create_timer_action": ("instance", "action"),
    "_process_create_sub_orchestration_action": ("instance", "action"),
    "_watch_sub_orchestration": ("parent_instance_id", "sub_instance_id", "task_id"),
    "_notify_waiters": ("instance_id",),
    "_enqueue_orchestration": ("instance_id",),
    "_enqueue_entity": ("entity_id",),
    "_queue_entity_operation": ("entity_id", "event"),
    "_signal_entity_internal": ("entity_id", "operation", "input_value", "scheduled_time"),
    "_schedule_delayed_entity_operation": ("entity_id", "event", "fire_at"),
    "_is_terminal_status": ("status",),
    "_build_instance_response": ("instance", "include_payloads"),
    "_clone_history_event": ("event",),
}

_BACKEND_STATE = (
    "_lock",
    "_instances",
    "_orchestration_queue",
    "_orchestration_queue_set",
    "_orchestration_in_flight",
    "_activity_queue",
    "_entities",
    "_entity_queue",
    "_entity_queue_set",
    "_entity_in_flight",
    "_state_waiters",
    "_next_completion_token",
    "_work_available",
    "_shutdown_event",
    "_server",
    "_port",
)


_CONTEXT_STATE = (
    "_pending_actions",
    "_pending_tasks",
    "_pending_events",
    "_is_replaying",
    "_completion_status",
    "_generator",
)


def verify() -> list[str]:
    """What this version of ``durabletask`` lacks of what we rely on, one sentence each; empty if all is well."""
    problems: list[str] = []
    for name, expected in _BACKEND_METHODS.items():
        method = getattr(InMemoryOrchestrationBackend, name, None)
        if method is None:
            problems.append(f"upstream's InMemoryOrchestrationBackend no longer has the method {name}")
            continue
        found = tuple(parameter for parameter in inspect.signature(method).parameters if parameter != "self")
        if found != expected:
            problems.append(
                f"upstream's InMemoryOrchestrationBackend.{name} now takes ({', '.join(found)}), "
                f"we call it with ({', '.join(expected)})"
            )
    state = vars(InMemoryOrchestrationBackend())
    problems += [
        f"upstream's InMemoryOrchestrationBackend no longer keeps {name}"
        for name in _BACKEND_STATE
        if name not in state
    ]
    opened: object = TurnExecutor(Registry(), JsonDataConverter(), None).open("verify")
    context = vars(opened)
    problems += [
        f"upstream's orchestration context no longer keeps {name}" for name in _CONTEXT_STATE if name not in context
    ]
    policy = _task.RetryPolicy(first_retry_interval=timedelta(1), max_number_of_attempts=2)
    retried = _task.RetryableTask[Any](policy, pb.OrchestratorAction(), datetime(2024, 1, 1), is_sub_orch=False)  # noqa: DTZ001
    for owner, names in ((policy, ("_retry_timeout",)), (retried, ("_retry_policy", "_start_time"))):
        kind = type(owner).__name__
        problems += [f"upstream's {kind} no longer keeps {name}" for name in names if name not in vars(owner)]
    if not hasattr(_worker.TaskHubGrpcWorker, "_execute_entity_batch"):
        problems.append("upstream's TaskHubGrpcWorker no longer has the method _execute_entity_batch")
    return problems
