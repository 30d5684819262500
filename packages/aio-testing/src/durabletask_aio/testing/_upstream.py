"""The adapter to `durabletask`: every private name that the test kit uses.

Upstream may change these in any release.  `verify` reports what has changed, and a test calls it.  No other module of
the package imports from upstream's internals.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple, cast

import durabletask.history as _history
import durabletask.internal.helpers as helpers
import durabletask.internal.orchestrator_service_pb2 as pb
import durabletask.worker as _worker
from durabletask import task as _task
from durabletask.internal import tracing, type_discovery
from durabletask.serialization import DataConverter, JsonDataConverter

from durabletask_aio.core import hosting

# Here, because every module that needs the core imports this one, and the pytest plugin is loaded without the core.
hosting.require_version(1, "durabletask-aio-testing")

__all__ = [
    "Registration",
    "UpstreamRegistry",
    "activity_input_type",
    "entity_batch",
    "generator_of",
    "helpers",
    "pb",
    "registration_of",
    "retry_on_workflow_clock",
    "suppress_spans",
    "typed_event",
    "verify",
]

typed_event: Callable[[pb.HistoryEvent], _history.HistoryEvent] = _history._from_protobuf  # pyright: ignore[reportPrivateUsage]

activity_input_type = type_discovery.activity_input_type
suppress_spans = tracing.suppress_span_emission


class UpstreamRegistry(_worker._Registry):  # pyright: ignore[reportPrivateUsage]
    """Upstream's registry of functions, under a name that may be used."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]


class Registration(NamedTuple):
    """What is registered with a worker, and its settings that replays need.

    Without the workflow that answers requests, which each worker registers by itself.
    """

    orchestrators: dict[str, Callable[..., Any]]
    data_converter: DataConverter
    maximum_timer_interval: timedelta | None


def registration_of(candidate: object) -> Registration | None:
    """Return what is registered with a worker, of this project or upstream's; `None` for anything else."""
    if not isinstance(candidate, _worker.TaskHubGrpcWorker):
        return None
    worker: Any = candidate
    orchestrators = {
        name: function for name, function in worker._registry.orchestrators.items() if name != hosting.REPLY_WORKFLOW
    }
    return Registration(orchestrators, worker._data_converter, worker._maximum_timer_interval)


def generator_of(context: Any) -> Any:
    """Return the generator that upstream drives, `None` before the start and for an orchestrator that is none."""
    return context._generator


def retry_on_workflow_clock(context: Any, task_id: int) -> None:
    """Have the `retry_timeout` of a failed task measured on the workflow's clock.

    Upstream compares it with the machine's clock.  A task whose delays the core computes is left alone.
    """
    if not isinstance(context._pending_tasks.get(task_id), _task.RetryableTask):
        return
    retried: Any = context._pending_tasks[task_id]
    if "compute_next_delay" in vars(retried) or retried._retry_policy.retry_timeout is None:
        return
    expires_at = retried._start_time + retried._retry_policy.retry_timeout
    without_timeout = copy.copy(retried._retry_policy)
    without_timeout._retry_timeout = None
    retryable: type[_task.RetryableTask[Any]] = _task.RetryableTask

    def compute_next_delay() -> timedelta | None:
        if context.current_utc_datetime >= expires_at:
            return None
        unlimited = copy.copy(retried)
        unlimited._retry_policy = without_timeout
        return retryable.compute_next_delay(unlimited)

    retried.compute_next_delay = compute_next_delay


def entity_batch(
    registry: Any, converter: DataConverter, logger: logging.Logger, request: pb.EntityRequest, token: str
) -> pb.EntityBatchResult:
    """Execute a batch of entity operations with upstream's code, without a worker."""
    worker = SimpleNamespace(
        _payload_store=None,
        _data_converter=converter,
        _registry=registry,
        _logger=logger,
        _entity_method_cache=_worker._EntityMethodSignatureCache(),  # pyright: ignore[reportPrivateUsage]
        _emit_trace_spans=False,
        _exception_properties_provider=None,
    )

    def discard(result: pb.EntityBatchResult) -> None:
        """Upstream also returns the result of the batch."""

    stub = SimpleNamespace(CompleteEntityTask=discard)
    return cast(pb.EntityBatchResult, _execute_entity_batch()(worker, request, stub, token))


def _execute_entity_batch() -> Callable[..., Any]:
    """Copy upstream's method, with failures described as this project's worker does."""
    method = cast(Any, _worker.TaskHubGrpcWorker)._execute_entity_batch
    describing = SimpleNamespace(
        get_string_value_or_empty=helpers.get_string_value_or_empty,
        new_failure_details=hosting.activity_failure_details,
    )
    return FunctionType(
        method.__code__,
        {**method.__globals__, "ph": describing},
        method.__name__,
        method.__defaults__,
        method.__closure__,
    )


_CONTEXT_STATE = ("_pending_tasks", "_generator")

_WORKER_STATE = ("_registry", "_data_converter", "_maximum_timer_interval")


def verify() -> list[str]:
    """Return one sentence for each name that this version of `durabletask` lacks or has changed."""
    problems: list[str] = []
    executor = hosting.TurnExecutor(UpstreamRegistry(), logging.getLogger(__name__), JsonDataConverter())
    executor.open("verify")
    context = vars(cast("object", executor.context))
    problems += [
        f"upstream's orchestration context no longer keeps {name}" for name in _CONTEXT_STATE if name not in context
    ]
    policy = _task.RetryPolicy(first_retry_interval=timedelta(1), max_number_of_attempts=2)
    retried = _task.RetryableTask[Any](policy, pb.OrchestratorAction(), datetime(2024, 1, 1), is_sub_orch=False)  # noqa: DTZ001
    for owner, names in ((policy, ("_retry_timeout",)), (retried, ("_retry_policy", "_start_time"))):
        kind = type(owner).__name__
        problems += [f"upstream's {kind} no longer keeps {name}" for name in names if name not in vars(owner)]
    worker: Any = _worker.TaskHubGrpcWorker(logger=logging.getLogger(__name__))
    problems += [
        f"upstream's TaskHubGrpcWorker no longer keeps {name}" for name in _WORKER_STATE if name not in vars(worker)
    ]
    if not hasattr(_worker.TaskHubGrpcWorker, "_execute_entity_batch"):
        problems.append("upstream's TaskHubGrpcWorker no longer has the method _execute_entity_batch")
    return problems
