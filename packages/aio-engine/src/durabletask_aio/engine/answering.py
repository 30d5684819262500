"""Turns the engine's errors into gRPC's, for the methods of both services."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from durabletask_aio.engine.calls import AbortError
from durabletask_aio.engine.commands import InstanceNotFoundError
from durabletask_aio.engine.kernel import EngineBusyError, EngineStoppedError
from durabletask_aio.engine.store import StoreError
from durabletask_aio.engine.transitions import InstanceExistsError, NotAllowedError

T = TypeVar("T")

_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (InstanceNotFoundError, grpc.StatusCode.NOT_FOUND),
    (InstanceExistsError, grpc.StatusCode.ALREADY_EXISTS),
    (NotAllowedError, grpc.StatusCode.FAILED_PRECONDITION),
    (StoreError, grpc.StatusCode.FAILED_PRECONDITION),
    (EngineStoppedError, grpc.StatusCode.UNAVAILABLE),
    (EngineBusyError, grpc.StatusCode.UNAVAILABLE),
)


def answering(method: Callable[..., T]) -> Callable[..., T]:
    """Let a method of a servicer end with the status that an error of the engine stands for."""

    @functools.wraps(method)
    def answer(self: Any, request: Any, context: grpc.ServicerContext) -> T:
        try:
            return method(self, request, context)
        except AbortError as error:
            context.abort(error.code, error.details)
        except tuple(kind for kind, _ in _CODES) as error:
            context.abort(next(code for kind, code in _CODES if isinstance(error, kind)), str(error))
        raise AssertionError("abort() raises")

    return answer


def to_number(text: str, context: grpc.ServicerContext) -> int:
    """Read a number that a client has been given before, or end the call with an error."""
    try:
        return int(text)
    except ValueError:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{text!r} is not a continuation token of this engine")
        raise
