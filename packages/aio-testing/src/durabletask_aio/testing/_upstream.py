"""Every private name of ``durabletask`` that this package touches, in one place.

Upstream promises nothing about these.  ``verify()`` says in plain sentences what has changed, a test calls it, and
nothing else in the package imports from upstream's internals.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import durabletask.history as _history
import durabletask.internal.helpers as helpers
import durabletask.internal.orchestrator_service_pb2 as pb
import durabletask.internal.orchestrator_service_pb2_grpc as _stubs
from durabletask.testing.in_memory_backend import (
    ActivityWorkItem,
    EntityState,
    InMemoryOrchestrationBackend,
    OrchestrationInstance,
    StateWaiter,
)

__all__ = [
    "ActivityWorkItem",
    "EntityState",
    "InMemoryOrchestrationBackend",
    "OrchestrationInstance",
    "StateWaiter",
    "add_servicer",
    "helpers",
    "pb",
    "typed_event",
    "verify",
]

add_servicer = cast(
    Callable[[InMemoryOrchestrationBackend, Any], None],
    _stubs.add_TaskHubSidecarServiceServicer_to_server,  # pyright: ignore[reportUnknownMemberType]
)

typed_event: Callable[[pb.HistoryEvent], _history.HistoryEvent] = _history._from_protobuf  # pyright: ignore[reportPrivateUsage]

_BACKEND_METHODS: dict[str, tuple[str, ...]] = {
    "StartInstance": ("request", "context"),
    "RestartInstance": ("request", "context"),
    "GetWorkItems": ("request", "context"),
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
    return problems
