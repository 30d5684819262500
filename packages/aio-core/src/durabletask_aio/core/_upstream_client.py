"""The adapter to upstream's clients; apart from `_upstream`, because the import of them takes as long as the core's."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from durabletask.client import (
    AsyncTaskHubGrpcClient,
    OrchestrationFailedError,
    OrchestrationState,
    OrchestrationStatus,
    TaskHubGrpcClient,
)
from durabletask.history import HistoryEvent
from durabletask.serialization import JsonDataConverter
from durabletask.task import FailureDetails

__all__ = [
    "AsyncTaskHubGrpcClient",
    "FailureDetails",
    "HistoryEvent",
    "OrchestrationFailedError",
    "OrchestrationState",
    "OrchestrationStatus",
    "RpcError",
    "TaskHubGrpcClient",
    "has_ended",
    "not_found_as",
    "output_of",
]

RpcError = grpc.RpcError

_ENDED = (OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED, OrchestrationStatus.TERMINATED)


def has_ended(state: OrchestrationState) -> bool:
    """Whether an instance will not continue."""
    return state.runtime_status in _ENDED


def output_of(state: OrchestrationState, expected_type: Any) -> Any:
    """Return the output of an instance as `expected_type`, if the client's data converter can make that.

    Upstream's own converter makes more types than it says: it is asked in any case, and leaves what it cannot make.
    """
    converter = state._data_converter
    if expected_type is not None and not isinstance(converter, JsonDataConverter):
        expected_type = expected_type if converter.can_reconstruct(expected_type) else None
    return state.get_output(expected_type)


@contextmanager
def not_found_as(error: Exception) -> Iterator[None]:
    """Raise `error` in place of gRPC's error that says that there is no such instance."""
    try:
        yield
    except grpc.RpcError as rpc_error:
        code = getattr(rpc_error, "code", None)  # The base class has none.
        if callable(code) and code() is grpc.StatusCode.NOT_FOUND:
            raise error from rpc_error
        raise
