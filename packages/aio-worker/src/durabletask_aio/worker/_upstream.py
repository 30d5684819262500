"""The adapter to `durabletask`: the only module of this package that imports it, and the home of its private names.

Nothing of upstream is patched here.  Two mechanisms are used: attributes that are set on one worker instance, and
copies of upstream's functions that find another class under one global name (`rebind`).  Since a copy runs upstream's
own code, our turn and our activities do not drift from upstream's.

Required names are listed in `_REQUIRED` and checked when this module is imported.  An upstream name that serves only a
log line does not belong there: it is read with `getattr` and a default, so that the worker runs without it.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import durabletask.internal.orchestrator_service_pb2 as pb
import durabletask.worker as upstream
from durabletask import task
from durabletask.entities import DurableEntity
from durabletask.grpc_options import GrpcChannelOptions
from durabletask.internal import helpers, tracing, type_discovery
from durabletask.payload import helpers as payload_helpers
from durabletask.worker import TaskHubGrpcWorker

from durabletask_aio.worker.rebind import rebind_globals

if TYPE_CHECKING:
    from durabletask.exception_properties import ExceptionPropertiesProvider as ExceptionPropertiesProvider
    from durabletask.grpc_options import GrpcWorkerResiliencyOptions as GrpcWorkerResiliencyOptions
    from durabletask.payload.store import PayloadStore as PayloadStore
    from durabletask.serialization import DataConverter as DataConverter
    from durabletask.worker import ConcurrencyOptions as ConcurrencyOptions

__all__ = [
    "SERVER",
    "DurableEntity",
    "EntityExecutor",
    "GrpcChannelOptions",
    "SubmitWorkItem",
    "TaskHubGrpcWorker",
    "helpers",
    "payload_helpers",
    "pb",
    "task",
    "tracing",
    "type_discovery",
]

# `Any`, because upstream chooses the class at run time: OpenTelemetry may not be installed.
SERVER: Any = cast(Any, tracing).SpanKind.SERVER

Worker: TypeAlias = TaskHubGrpcWorker
SubmitWorkItem: TypeAlias = Callable[..., None]

_REQUIRED: dict[str, tuple[str, ...]] = {
    "TaskHubGrpcWorker": (
        "_execute_activity",
        "_execute_entity_batch",
        "_execute_orchestrator",
        "_on_activity_execution_completed",
        "_on_activity_execution_started",
        "add_entity",
        "start",
        "stop",
    ),
    "_ActivityExecutor": ("execute",),
    "_EntityExecutor": ("execute",),
    "_AsyncWorkerManager": ("submit_activity", "submit_entity_batch", "submit_orchestration"),
    "_Registry": ("add_named_orchestrator", "add_named_activity", "get_orchestrator", "get_activity"),
}
"""Classes of `durabletask.worker`, and what is used of each."""

_REQUIRED_OF_MODULES: tuple[tuple[ModuleType, tuple[str, ...]], ...] = (
    (helpers, ("get_string_value", "get_string_value_or_empty")),
    (payload_helpers, ("deexternalize_payloads_async", "externalize_payloads")),
    (tracing, ("create_span_name", "extract_trace_context", "set_span_error", "start_span", "suppress_span_emission")),
    (type_discovery, ("activity_input_type",)),
)
"""Functions of upstream's other modules."""


def missing_names(module: Any = upstream) -> list[str]:
    """Return the names that this package requires and does not find; `module` stands for `durabletask.worker`."""
    missing: list[str] = []
    for name, attributes in _REQUIRED.items():
        owner = getattr(module, name, None)
        if owner is None:
            missing.append(name)
        else:
            missing.extend(f"{name}.{attribute}" for attribute in attributes if not hasattr(owner, attribute))
    for owner, names in _REQUIRED_OF_MODULES:
        missing.extend(f"{owner.__name__}.{name}" for name in names if not hasattr(owner, name))
    return missing


def self_check(module: Any = upstream) -> None:
    """Compare `durabletask` with what this module requires.

    Raises:
        ImportError: If a name is missing; the message has the names and the installed version of `durabletask`.
    """
    missing = missing_names(module)
    if missing:
        try:
            installed = version("durabletask")
        except PackageNotFoundError:
            installed = "of unknown version"
        raise ImportError(
            f"durabletask {installed} lacks {', '.join(missing)}, which durabletask-aio-worker builds on; install a "
            "release of durabletask that the README of durabletask-aio-worker names, or upgrade durabletask-aio-worker"
        )


self_check()


# -- copies of upstream's functions -----------------------------------------------------------------------------------


def orchestrator_turn(make_executor: Callable[..., Any]) -> Callable[..., None]:
    """Copy `TaskHubGrpcWorker._execute_orchestrator`, which takes the executor of the turn from `make_executor`."""
    return rebind_globals(TaskHubGrpcWorker._execute_orchestrator, _OrchestrationExecutor=make_executor)


def activity_execution(
    make_context: Callable[[str, int], task.ActivityContext], spans: Any, *, new_failure_details: Callable[..., Any]
) -> Callable[..., None]:
    """Copy `TaskHubGrpcWorker._execute_activity`.

    Args:
        make_context: Makes the activity's context of instance id and task id.
        spans: Takes the place of the module `tracing`.
        new_failure_details: Takes the place of `helpers.new_failure_details`.

    Returns:
        The copy, as a function whose first argument is the worker.
    """

    class Executor(upstream._ActivityExecutor):
        # Assigned below: a function in the class body would add a frame to every traceback an activity reports.
        pass

    cast(Any, Executor).execute = rebind_globals(
        upstream._ActivityExecutor.execute, task=SimpleNamespace(ActivityContext=make_context)
    )
    return rebind_globals(
        TaskHubGrpcWorker._execute_activity,
        _ActivityExecutor=Executor,
        ph=SimpleNamespace(get_string_value=helpers.get_string_value, new_failure_details=new_failure_details),
        tracing=spans,
    )


EntityExecutor = upstream._EntityExecutor


def entity_execution(
    executor: type[EntityExecutor], *, new_failure_details: Callable[..., pb.TaskFailureDetails]
) -> Callable[..., Any]:
    """Copy `TaskHubGrpcWorker._execute_entity_batch`, with an executor and a function that describes failures."""
    return rebind_globals(
        TaskHubGrpcWorker._execute_entity_batch,
        _EntityExecutor=executor,
        ph=SimpleNamespace(
            get_string_value_or_empty=helpers.get_string_value_or_empty, new_failure_details=new_failure_details
        ),
    )


def overrides_entities(worker: Worker) -> bool:
    """Whether the class of this worker overrides how entities are executed."""
    return type(worker)._execute_entity_batch is not TaskHubGrpcWorker._execute_entity_batch


def overrides_turn(worker: Worker) -> bool:
    """Whether the class of this worker overrides the turn, which a copy of upstream's would bypass."""
    return type(worker)._execute_orchestrator is not TaskHubGrpcWorker._execute_orchestrator


def overrides_activity(worker: Worker) -> bool:
    """Whether the class of this worker overrides how activities are executed."""
    return type(worker)._execute_activity is not TaskHubGrpcWorker._execute_activity


def own_turn(worker: Worker) -> Callable[..., None]:
    """Return the turn as the worker's class defines it."""
    return cast("Callable[..., None]", type(worker)._execute_orchestrator.__get__(worker))


def own_activity(worker: Worker) -> Callable[..., None]:
    """Return the execution of an activity as the worker's class defines it."""
    return cast("Callable[..., None]", type(worker)._execute_activity.__get__(worker))


def set_turn(worker: Worker, function: Callable[..., None]) -> None:
    """Set the turn of this one worker."""
    cast(Any, worker)._execute_orchestrator = function


def set_activity(worker: Worker, function: Callable[..., None]) -> None:
    """Set the execution of activities of this one worker."""
    cast(Any, worker)._execute_activity = function


def set_entities(worker: Worker, function: Callable[..., Any]) -> None:
    """Set the execution of entities of this one worker."""
    cast(Any, worker)._execute_entity_batch = function.__get__(worker)


def set_activity_submission(worker: Worker, wrap: Callable[[SubmitWorkItem], SubmitWorkItem]) -> None:
    """Wrap the function that puts activities into this worker's queue.

    A coroutine function in place of `_execute_activity` would never be awaited: upstream's manager awaits coroutine
    functions, but its stream reader hides the handler behind a plain function that releases the channel.
    """
    manager: Any = worker._async_worker_manager
    manager.submit_activity = wrap(manager.submit_activity)


def set_turn_submission(worker: Worker, wrap: Callable[[SubmitWorkItem], SubmitWorkItem]) -> None:
    """Wrap the function that puts turns into this worker's queue."""
    manager: Any = worker._async_worker_manager
    manager.submit_orchestration = wrap(manager.submit_orchestration)


def set_entity_submission(worker: Worker, wrap: Callable[[SubmitWorkItem], SubmitWorkItem]) -> None:
    """Wrap the function that puts batches of entity operations into this worker's queue."""
    manager: Any = worker._async_worker_manager
    manager.submit_entity_batch = wrap(manager.submit_entity_batch)


def owns_channel(worker: Worker) -> bool:
    """Whether this worker opens its channels itself."""
    return worker._owns_channel


def add_interceptor(worker: Worker, interceptor: Any) -> None:
    """Have the channels that this worker opens pass their calls through an interceptor, before all others."""
    worker._interceptors = [interceptor, *(worker._interceptors or ())]


# -- the worker -------------------------------------------------------------------------------------------------------


def is_running(worker: Worker) -> bool:
    return worker._is_running


def logger_of(worker: Worker) -> logging.Logger:
    return worker._logger


def data_converter_of(worker: Worker) -> DataConverter:
    return worker._data_converter


def payload_store_of(worker: Worker) -> PayloadStore | None:
    return worker._payload_store


def exception_properties_of(worker: Worker) -> Any:
    return worker._exception_properties_provider


def thread_pool_of(worker: Worker) -> ThreadPoolExecutor:
    return worker._async_worker_manager.thread_pool


def pool_size_of(worker: Worker) -> int:
    """Return the number of threads of upstream's pool."""
    return worker.concurrency_options.maximum_thread_pool_workers


def emits_trace_spans(worker: Worker) -> bool:
    return worker._emit_trace_spans


def activity_started(worker: Worker, request: pb.ActivityRequest) -> None:
    worker._on_activity_execution_started(request)


def activity_completed(worker: Worker, request: pb.ActivityRequest) -> None:
    worker._on_activity_execution_completed(request)


# -- the registry -----------------------------------------------------------------------------------------------------


def find_orchestrator(worker: Worker, name: str) -> Callable[..., Any] | None:
    return worker._registry.get_orchestrator(name)


def find_activity(worker: Worker, name: str) -> Callable[..., Any] | None:
    return worker._registry.get_activity(name)


def register_orchestrator(worker: Worker, name: str, function: Callable[..., Any]) -> None:
    """Register an orchestrator; upstream raises a `ValueError` if the name is empty or taken."""
    worker._registry.add_named_orchestrator(name, function)


def replace_orchestrator(worker: Worker, name: str, function: Callable[..., Any]) -> None:
    worker._registry.orchestrators[name] = function


def register_activity(worker: Worker, name: str, function: Callable[..., Any]) -> None:
    """Register an activity; upstream raises a `ValueError` if the name is empty or taken."""
    worker._registry.add_named_activity(name, function)
