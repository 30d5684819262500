"""`EnvironmentChannel`: takes the requests of upstream's async client to the engine of an environment.

A request runs on the event loop of the test, with all that follows from it, before its response is returned, as the
methods of the environment do.  Messages are not copied: upstream's client makes and reads each one once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NoReturn

import grpc
from durabletask.entities import EntityInstanceId

from durabletask_aio.core.hosting import describe_unregistered
from durabletask_aio.testing._upstream import pb
from durabletask_aio.testing.handle import attach_histories, describe_waiting, histories_of_failure
from durabletask_aio.testing.runner import InProcessRunner
from durabletask_aio.testing.waiting import WorkflowStuckError

_READS = ("Hello", "GetInstance", "QueryInstances", "ListInstanceIds", "GetEntity", "QueryEntities")
"""The requests that change nothing; they are answered when the environment has been closed, too."""

_STARTED = "WaitForInstanceStart"
_ENDED = "WaitForInstanceCompletion"


class _Call:
    """The context of a call, as far as the service of the engine uses it."""

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)

    def is_active(self) -> bool:
        return True

    def set_trailing_metadata(self, trailing_metadata: object) -> None:
        """Ignore what the engine says of itself."""


_CALL = _Call()


class EnvironmentChannel:
    """What upstream's stub uses of a `grpc.aio.Channel`."""

    def __init__(self, runner: InProcessRunner) -> None:
        self._runner = runner

    def unary_unary(self, method: str, *args: Any, **keywords: Any) -> Callable[..., Any]:
        """Return a method with one response, by its full name."""
        name = method.rpartition("/")[2]
        return partial(self._wait if name in (_STARTED, _ENDED) else self._call, name)

    def unary_stream(self, method: str, *args: Any, **keywords: Any) -> Callable[..., Any]:
        """Return a method with a stream of responses, by its full name."""
        return partial(self._stream, method.rpartition("/")[2])

    async def _call(self, name: str, request: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        method = getattr(self._runner.service, name)
        if name in _READS:
            return method(request, _CALL)
        if name == "StartInstance":
            self._check_registered("orchestrator", request.name)
        elif name == "SignalEntity":
            self._check_registered("entity", EntityInstanceId.parse(request.instanceId).entity)
        return await self._runner.call(method, request, _CALL)

    async def _stream(self, name: str, request: Any, **options: Any) -> AsyncIterator[Any]:
        for response in getattr(self._runner.service, name)(request, _CALL):
            yield response

    async def _wait(self, name: str, request: Any, *, timeout: float | None = None, **options: Any) -> Any:
        """Wait for the start or the end of an instance, up to a time of the virtual clock."""
        __tracebackhide__ = True
        runner, instance_id = self._runner, request.instanceId
        waited_for = _has_started if name == _STARTED else _has_ended

        def has_arrived() -> bool:
            status = runner.status(instance_id)
            return status is None or waited_for(status)

        end = None if timeout is None else _time_after(runner.time.now(), timeout)
        describe = partial(describe_waiting, runner, instance_id)
        await asyncio.sleep(0)  # Tasks that begin to wait at the same time set their limits before time passes.
        try:
            if end is None:
                await runner.wait_until(has_arrived, describe)
            elif not await runner.wait_until_time(has_arrived, describe, end):
                _CALL.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"instance {instance_id!r} has not got there in time")
        except WorkflowStuckError as error:
            attach_histories(error, histories_of_failure(runner, instance_id))
            raise
        return runner.service.GetInstance(request, _CALL)

    def _check_registered(self, kind: Any, name: str) -> None:
        """Raise `LookupError` for an unknown name; an engine would wait for a worker that knows it."""
        __tracebackhide__ = True
        names = self._runner.registry.names(kind)
        if name not in names:
            raise LookupError(describe_unregistered(kind, name, names))


def _time_after(now: datetime, seconds: float) -> datetime | None:
    """Return the time after a number of seconds; `None` if it is beyond the calendar."""
    try:
        return now + timedelta(seconds=seconds)
    except OverflowError:
        return None


def _has_started(status: int) -> bool:
    return status != pb.ORCHESTRATION_STATUS_PENDING


def _has_ended(status: int) -> bool:
    return status in (
        pb.ORCHESTRATION_STATUS_COMPLETED,
        pb.ORCHESTRATION_STATUS_FAILED,
        pb.ORCHESTRATION_STATUS_TERMINATED,
    )
