"""The adapter to `durabletask`: the only module of this package that imports it, and the home of its private names.

Nothing of upstream is patched here.  Two mechanisms are used: attributes that are set on one worker instance, and
copies of upstream's functions that find another class under one global name (`rebind`).  Since a copy runs upstream's
own code, our turn and our activities do not drift from upstream's.

Required names are listed in `_REQUIRED` and checked when this module is imported.  An upstream name that serves only a
log line does not belong there: it is read with `getattr` and a default, so that the worker runs without it.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import durabletask.internal.orchestrator_service_pb2 as pb
import durabletask.worker as upstream
import grpc
from durabletask import task
from durabletask.entities import DurableEntity
from durabletask.grpc_options import GrpcChannelOptions, GrpcWorkerResiliencyOptions
from durabletask.internal import exceptions, helpers, tracing, type_discovery
from durabletask.payload import helpers as payload_helpers
from durabletask.worker import TaskHubGrpcWorker

from durabletask_aio.worker import reconnecting
from durabletask_aio.worker.rebind import rebind_globals
from durabletask_aio.worker.work_item import WorkItem

if TYPE_CHECKING:
    from durabletask.exception_properties import ExceptionPropertiesProvider as ExceptionPropertiesProvider
    from durabletask.payload.store import PayloadStore as PayloadStore
    from durabletask.serialization import DataConverter as DataConverter
    from durabletask.worker import ConcurrencyOptions as ConcurrencyOptions

    from durabletask_aio.worker.work_items import WorkItems
    from durabletask_aio.worker.work_stream import WorkStream

__all__ = [
    "SERVER",
    "DurableEntity",
    "EntityExecutor",
    "GrpcChannelOptions",
    "GrpcWorkerResiliencyOptions",
    "TaskHubGrpcWorker",
    "TurnAbandoned",
    "helpers",
    "payload_helpers",
    "pb",
    "task",
    "tracing",
    "type_discovery",
]

# `Any`, because upstream chooses the class at run time: OpenTelemetry may not be installed.
SERVER: Any = cast(Any, tracing).SpanKind.SERVER

_METADATA_INTERCEPTOR: Any = getattr(cast(Any, upstream), "DefaultClientInterceptorImpl", None)

Worker: TypeAlias = TaskHubGrpcWorker

_REQUIRED: dict[str, tuple[str, ...]] = {
    "TaskHubGrpcWorker": (
        "_async_run_loop",
        "_cancel_activity",
        "_cancel_entity_batch",
        "_cancel_orchestrator",
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
    "_AsyncWorkerManager": (
        "prepare_for_run",
        "run",
        "shutdown",
        "submit_activity",
        "submit_entity_batch",
        "submit_orchestration",
    ),
    "_InFlightChannelTracker": ("acquire", "retire"),
    "_Registry": ("add_named_orchestrator", "add_named_activity", "get_orchestrator", "get_activity"),
}
"""Classes of `durabletask.worker`, and what is used of each."""

_REQUIRED_OF_MODULES: tuple[tuple[ModuleType, tuple[str, ...]], ...] = (
    (exceptions, ("AbandonOrchestrationError",)),
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
        # Not at the top: it takes longer to import than all of this package.
        from importlib.metadata import PackageNotFoundError, version

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
    make_context: Callable[[str, int], task.ActivityContext],
    spans: Any,
    *,
    new_failure_details: Callable[..., Any],
    make_converter: Callable[[DataConverter], Any],
) -> Callable[..., None]:
    """Copy `TaskHubGrpcWorker._execute_activity`.

    Args:
        make_context: Makes the activity's context of instance id and task id.
        spans: Takes the place of the module `tracing`.
        new_failure_details: Takes the place of `helpers.new_failure_details`.
        make_converter: Makes the data converter of an activity of the worker's.

    Returns:
        The copy, as a function whose first argument is the worker.
    """

    class Executor(upstream._ActivityExecutor):
        # `execute` is assigned below: one in the class body would add a frame to every traceback an activity reports.

        def __init__(self, registry: Any, logger: logging.Logger, data_converter: DataConverter) -> None:
            super().__init__(registry, logger, make_converter(data_converter))

    cast(Any, Executor).execute = rebind_globals(
        upstream._ActivityExecutor.execute, task=SimpleNamespace(ActivityContext=make_context)
    )
    return rebind_globals(
        TaskHubGrpcWorker._execute_activity,
        _ActivityExecutor=Executor,
        ph=SimpleNamespace(get_string_value=helpers.get_string_value, new_failure_details=new_failure_details),
        tracing=spans,
    )


TurnAbandoned = exceptions.AbandonOrchestrationError
"""What an executor raises for a turn that upstream is to give back to the engine."""

EntityExecutor = upstream._EntityExecutor
ActivityNotRegisteredError = upstream.ActivityNotRegisteredError


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


TURN = "turn"
ACTIVITY = "activity"
ENTITY_BATCH = "entity batch"
"""The kinds of work items; each has a limit of its own."""

REQUESTS: dict[str, tuple[str, str, str]] = {
    "orchestratorRequest": (TURN, "_execute_orchestrator", "_cancel_orchestrator"),
    "activityRequest": (ACTIVITY, "_execute_activity", "_cancel_activity"),
    "entityRequest": (ENTITY_BATCH, "_execute_entity_batch", "_cancel_entity_batch"),
    "entityRequestV2": (ENTITY_BATCH, "_execute_entity_batch", "_cancel_entity_batch"),
}
"""The requests of work items: their kind, and the methods of the worker that execute and abandon them."""


class _Manager(upstream._AsyncWorkerManager):
    """Upstream's manager of work items, which leaves them to `WorkItems`; upstream uses its thread pool."""

    def __init__(self, worker: Worker, work_items: WorkItems) -> None:
        super().__init__(worker.concurrency_options, worker._logger)
        self._work_items = work_items

    def prepare_for_run(self) -> None:
        super().prepare_for_run()
        # Before the stream is opened; `run` may begin after its first item has arrived.
        self._work_items.open()

    async def run(self) -> None:
        """Run until all work items have ended after `shutdown`."""
        loop = asyncio.get_running_loop()
        finished = asyncio.Event()
        self._ensure_thread_pool()

        def finish() -> None:
            loop.call_soon_threadsafe(finished.set)

        self._work_items.call_when_finished(finish)
        try:
            await finished.wait()
        finally:
            self._work_items.call_when_finished(None)  # The loop may end now.
            if not self._pool_is_shutdown:
                self.thread_pool.shutdown(wait=True)
                self._pool_is_shutdown = True

    def shutdown(self) -> None:
        super().shutdown()
        self._work_items.shut_down()

    # Called by the run loop of a class that overrides upstream's; the copy below does not call them.

    def submit_orchestration(self, *item: Any) -> None:
        self._work_items.submit(WorkItem(TURN, *item))

    def submit_activity(self, *item: Any) -> None:
        self._work_items.submit(WorkItem(ACTIVITY, *item))

    def submit_entity_batch(self, *item: Any) -> None:
        self._work_items.submit(WorkItem(ENTITY_BATCH, *item))


_GET_WORK_ITEMS = "/TaskHubSidecarService/GetWorkItems"


def set_work_items(worker: Worker, work_items: WorkItems) -> None:
    """Have the work items of this one worker go from the thread that reads them to `work_items`."""
    cast(Any, worker)._async_worker_manager = _Manager(worker, work_items)
    if type(worker)._async_run_loop is not TaskHubGrpcWorker._async_run_loop:
        return
    tracker: Any = None
    # What the user's interceptors find on the stream stays what it is.
    is_own = owns_channel(worker) and all(
        type(each).__module__.partition(".")[0] in ("durabletask", "durabletask_aio")
        for each in worker._interceptors or ()
    )

    def make_tracker() -> Any:
        nonlocal tracker
        tracker = cast(Any, upstream)._InFlightChannelTracker()
        return tracker

    def make_stub(channel: Any) -> Any:
        stub = cast(Any, upstream).stubs.TaskHubSidecarServiceStub(channel)
        open_stream, hello = stub.GetWorkItems, stub.Hello
        of_run = tracker
        metadata: Sequence[tuple[str, str]] | None = None

        def say_hello(request: Any, timeout: float | None = None) -> Any:
            nonlocal metadata
            answer, call = hello.with_call(request, timeout=timeout)
            metadata = work_items.stream_metadata(call.trailing_metadata() or ())
            return answer

        def submit(stream: WorkStream, message: Any, name: str) -> None:
            kind, execute, cancel = REQUESTS[name]
            # Upstream closes a channel that it has replaced when nothing uses it any more.
            release = of_run.acquire(channel)
            try:
                work_items.submit(
                    WorkItem(
                        kind,
                        getattr(worker, execute),
                        getattr(worker, cancel),
                        getattr(message, name),
                        stub,
                        message.completionToken,
                        stream=stream,
                        release=release,
                    )
                )
            except BaseException:
                release()
                raise

        def get_work_items(request: pb.GetWorkItemsRequest) -> WorkStream:
            read_item = work_items.item_reader(metadata) if is_own else None
            if read_item is None or not isinstance(open_stream, grpc.UnaryStreamMultiCallable):
                return work_items.make_stream(open_stream(request, metadata=metadata), submit)
            open_raw = channel.unary_stream(
                _GET_WORK_ITEMS,
                request_serializer=pb.GetWorkItemsRequest.SerializeToString,
                response_deserializer=read_item,
            )
            return work_items.make_stream(open_raw(request, metadata=metadata), submit)

        # A channel of the user's may have plain functions.
        first_call = say_hello if isinstance(hello, grpc.UnaryUnaryMultiCallable) else hello
        return SimpleNamespace(Hello=first_call, GetWorkItems=get_work_items)

    run_loop = rebind_globals(
        TaskHubGrpcWorker._async_run_loop,
        stubs=SimpleNamespace(TaskHubSidecarServiceStub=make_stub),
        _InFlightChannelTracker=make_tracker,
    )
    cast(Any, worker)._async_run_loop = cast(Any, run_loop).__get__(worker)


def is_stopping(worker: Worker) -> bool:
    """Whether `stop` has been called, and `start` has not since."""
    return worker._shutdown.is_set()


def end_loop(worker: Worker) -> None:
    """Have the loop of this worker end, as `stop` does, without waiting for it."""
    worker._shutdown.set()


def end_stream(worker: Worker) -> None:
    """Have the stream and the loop of this worker end, as `stop` does, without waiting for them."""
    end_loop(worker)
    stream = worker._response_stream
    if stream is not None:
        stream.cancel()


def silence_timeout_of(worker: Worker) -> float:
    """Return the seconds without a message after which a stream is taken for dead; 0 for no limit."""
    return worker._resiliency_options.silent_disconnect_timeout_seconds


def limits_of(worker: Worker) -> dict[str, int]:
    """Return how many work items of each kind may run at a time."""
    options = worker.concurrency_options
    return {
        TURN: options.maximum_concurrent_orchestration_work_items,
        ACTIVITY: options.maximum_concurrent_activity_work_items,
        ENTITY_BATCH: options.maximum_concurrent_entity_work_items,
    }


def owns_channel(worker: Worker) -> bool:
    """Whether this worker opens its channels itself."""
    return worker._owns_channel


def has_interceptors(worker: Worker) -> bool:
    """Whether the channels of this worker have interceptors, other than that of upstream's which adds metadata."""
    return any(type(each) is not _METADATA_INTERCEPTOR for each in worker._interceptors or ())


def reconnect_quickly(worker: Worker) -> None:
    """Bound the pauses of this worker while its engine is away; see `reconnecting`.

    Options that the user has given stay.
    """
    instance: Any = worker
    options = instance._channel_options or GrpcChannelOptions()
    instance._channel_options = dataclasses.replace(
        options, raw_options=reconnecting.with_channel_options(options.raw_options)
    )
    if instance._resiliency_options == GrpcWorkerResiliencyOptions():
        instance._resiliency_options = GrpcWorkerResiliencyOptions(
            reconnect_backoff_base_seconds=reconnecting.BASE_PAUSE,
            reconnect_backoff_cap_seconds=reconnecting.MAX_PAUSE,
        )


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


def turn_slots_of(worker: Worker) -> int:
    """Return how many turns the worker takes from the engine at a time."""
    return worker.concurrency_options.maximum_concurrent_orchestration_work_items


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


def registered_names(worker: Worker) -> dict[str, list[str]]:
    """Return the names of what is registered, by kind."""
    return {"orchestrator": list(worker._registry.orchestrators), "activity": list(worker._registry.activities)}


def register_orchestrator(worker: Worker, name: str, function: Callable[..., Any]) -> None:
    """Register an orchestrator; upstream raises a `ValueError` if the name is empty or taken."""
    worker._registry.add_named_orchestrator(name, function)


def replace_orchestrator(worker: Worker, name: str, function: Callable[..., Any]) -> None:
    worker._registry.orchestrators[name] = function


def register_activity(worker: Worker, name: str, function: Callable[..., Any]) -> None:
    """Register an activity; upstream raises a `ValueError` if the name is empty or taken."""
    worker._registry.add_named_activity(name, function)
