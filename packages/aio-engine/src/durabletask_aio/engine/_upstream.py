"""The adapter to `durabletask`: the only module of this package that imports it, and the home of its private names.

The engine implements upstream's protocol, so it needs the protobuf messages (`pb`), the stubs that grpcio generated for
the service (`pb_grpc`), and the two client classes, which take a channel.  The names that it requires are listed in
`_REQUIRED` and checked when this module is imported.
"""

from __future__ import annotations

import inspect
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import durabletask.client as client
import durabletask.internal.orchestrator_service_pb2 as pb
import durabletask.internal.orchestrator_service_pb2_grpc as _stubs

__all__ = [
    "SERVICE",
    "SERVICE_NAME",
    "AsyncTaskHubGrpcClient",
    "EventRaisedEvent",
    "EventSentEvent",
    "HistoryEvent",
    "OrchestrationQuery",
    "OrchestrationState",
    "OrchestrationStatus",
    "Servicer",
    "TaskHubGrpcClient",
    "pb",
    "pb_grpc",
    "to_dict",
]

# `Any`, because the generated module has no annotations.
pb_grpc: Any = _stubs

if TYPE_CHECKING:
    Servicer = object
else:
    Servicer = pb_grpc.TaskHubSidecarServiceServicer

SERVICE_NAME = "TaskHubSidecarService"
"""The full name of upstream's service."""

_REQUIRED: dict[ModuleType, tuple[str, ...]] = {
    client: ("AsyncTaskHubGrpcClient", "TaskHubGrpcClient"),
    _stubs: (
        f"{SERVICE_NAME}Servicer",
        f"{SERVICE_NAME}Stub",
        f"add_{SERVICE_NAME}Servicer_to_server",
    ),
}
"""What is used of each module, except for messages: those are checked by the type checkers."""

_REQUIRED_METHODS = (
    "AbandonTaskActivityWorkItem",
    "AbandonTaskEntityWorkItem",
    "AbandonTaskOrchestratorWorkItem",
    "CleanEntityStorage",
    "CompleteActivityTask",
    "CompleteEntityTask",
    "CompleteOrchestratorTask",
    "CreateTaskHub",
    "DeleteTaskHub",
    "GetEntity",
    "GetInstance",
    "GetWorkItems",
    "Hello",
    "ListInstanceIds",
    "PurgeInstances",
    "QueryEntities",
    "QueryInstances",
    "RaiseEvent",
    "RestartInstance",
    "ResumeInstance",
    "RewindInstance",
    "SignalEntity",
    "StartInstance",
    "StreamInstanceHistory",
    "SuspendInstance",
    "TerminateInstance",
    "WaitForInstanceCompletion",
    "WaitForInstanceStart",
)
"""The methods of the service that the engine implements."""


def missing_names(messages: Any = pb) -> list[str]:
    """Return the names that this package requires and does not find; `messages` stands for the module `pb`."""
    missing: list[str] = []
    for module, names in _REQUIRED.items():
        missing += [f"{module.__name__}.{name}" for name in names if not hasattr(module, name)]
    service = messages.DESCRIPTOR.services_by_name.get(SERVICE_NAME)
    if service is None:
        return [*missing, f"{messages.__name__}.{SERVICE_NAME}"]
    missing += [f"{SERVICE_NAME}.{name}" for name in _REQUIRED_METHODS if name not in service.methods_by_name]
    for name in ("AsyncTaskHubGrpcClient", "TaskHubGrpcClient"):
        kind = getattr(client, name, None)
        if kind is not None and "channel" not in inspect.signature(kind).parameters:
            missing.append(f"the parameter 'channel' of {name}")
    return missing


def self_check(messages: Any = pb) -> None:
    """Compare `durabletask` with what this module requires; `messages` stands for the module `pb`.

    Raises:
        ImportError: if a name is missing; the message has the names and the installed version of `durabletask`.
    """
    missing = missing_names(messages)
    if missing:
        try:
            installed = version("durabletask")
        except PackageNotFoundError:
            installed = "of unknown version"
        raise ImportError(
            f"durabletask {installed} lacks {', '.join(missing)}, which durabletask-aio-engine builds on; install a "
            "release of durabletask that its metadata allows, or upgrade durabletask-aio-engine"
        )


self_check()

# After the check, whose message is clearer than that of an import that fails.
from durabletask.client import (  # noqa: E402
    AsyncTaskHubGrpcClient,
    OrchestrationQuery,
    OrchestrationState,
    OrchestrationStatus,
    TaskHubGrpcClient,
)
from durabletask.history import EventRaisedEvent, EventSentEvent, HistoryEvent, to_dict  # noqa: E402

SERVICE: Any = cast(Any, pb).DESCRIPTOR.services_by_name[SERVICE_NAME]
"""The descriptor of upstream's service: its methods, their messages, and which of them stream."""
