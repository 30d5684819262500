"""`Activities`: runs activities without a worker, sync ones in one thread, async ones on the event loop of the test."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, cast

from durabletask.serialization import DataConverter
from durabletask.worker import ActivityNotRegisteredError

from durabletask_aio.core import hosting
from durabletask_aio.testing._upstream import activity_input_type, pb
from durabletask_aio.testing.registry import Registry
from durabletask_aio.testing.stubs import NEVER, ActivityCall, Stub
from durabletask_aio.worker.activity_context import ActivityContext
from durabletask_aio.worker.activity_functions import call_to_future, may_return_awaitable

_logger = logging.getLogger("durabletask.aio.testing")


class Activities:
    """Runs the activities of one environment, or the stubs that take their place."""

    def __init__(
        self,
        registry: Registry,
        converter: DataConverter,
        now: Callable[[], datetime],
        pause: Callable[[timedelta], Awaitable[None]],
    ) -> None:
        self._registry = registry
        self._converter = converter
        self._now = now
        self._pause = pause
        self._thread: ThreadPoolExecutor | None = None
        self._calls_in_thread = 0
        self.stubs: dict[str, Stub] = {}
        self.calls: list[ActivityCall] = []
        self.is_stopping = False

    async def perform(self, request: pb.ActivityRequest) -> pb.ActivityResponse:
        """Run an activity and return its response; a call whose outcome is `NEVER` ends by cancellation only."""
        response = pb.ActivityResponse(instanceId=request.orchestrationInstance.instanceId, taskId=request.taskId)
        call = self._record(request)
        try:
            # A future, because StopIteration cannot leave a coroutine: Python makes a RuntimeError of it.
            call.result = (await self._outcome(request, call)).result()
            encoded = hosting.serialize_activity_result(
                self._converter, call.result, call.name, self._function_of(call.name)
            )
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            if self.is_stopping or isinstance(error, KeyboardInterrupt):
                raise
            # The activity was not cancelled by `close`: it raised CancelledError itself, which a worker reports as a
            # failure.
            self._fail(response, call, error)
        except BaseException as error:
            self._fail(response, call, error)
        else:
            if encoded is not None:
                response.result.value = encoded
        call.is_done = True
        return response

    def _fail(self, response: pb.ActivityResponse, call: ActivityCall, error: BaseException) -> None:
        call.error = error
        response.failureDetails.CopyFrom(hosting.activity_failure_details(error, None, _logger))

    def _record(self, request: pb.ActivityRequest) -> ActivityCall:
        try:
            value = self._converter.deserialize(request.input.value or None)
        except Exception:
            value = request.input.value
        call = ActivityCall(
            request.name,
            value,
            request.orchestrationInstance.instanceId,
            request.taskId,
            self._now(),
            dict(request.tags),
        )
        self.calls.append(call)
        stub = self.stubs.get(request.name)
        if stub is not None:
            stub.calls.append(call)
        return call

    async def _outcome(self, request: pb.ActivityRequest, call: ActivityCall) -> Future[Any]:
        context = ActivityContext(call.instance_id, call.task_id, call.name, request.tags, lambda: self.is_stopping)
        stub = self.stubs.get(call.name)
        if stub is None:
            return await self._call(self._registered(call.name), context, request)
        if stub.delay:
            await self._pause(stub.delay)
        value = call.input if stub.function is None else self._input(stub.function, request)
        answer = call_to_future(stub.answer, context, value)
        if answer.exception() is None:
            if answer.result() is NEVER:
                await self._pause(timedelta.max)
            if asyncio.iscoroutine(answer.result()):
                return _completed(await cast("Awaitable[Any]", answer.result()))
        return answer

    def _function_of(self, name: str) -> Callable[..., Any] | None:
        """Return the function that runs as an activity, `None` for a stub that is none."""
        stub = self.stubs.get(name)
        if stub is not None:
            return stub.function
        return cast("Callable[..., Any]", self._registry.get_activity(name))

    def _registered(self, name: str) -> Callable[..., Any]:
        names = self._registry.names("activity")
        if name in names:
            return cast("Callable[..., Any]", self._registry.get_activity(name))
        # The message lists stubs too: the misspelled name may be that of the stub.
        others = {"orchestrator": self._registry.names("orchestrator")}
        raise ActivityNotRegisteredError(hosting.describe_unregistered("activity", name, [*names, *self.stubs], others))

    async def _call(
        self, function: Callable[..., Any], context: ActivityContext, request: pb.ActivityRequest
    ) -> Future[Any]:
        value = self._input(function, request)
        is_wrapper = may_return_awaitable(function)
        if not is_wrapper and hosting.function_kind(function) is hosting.FunctionKind.COROUTINE:
            return _completed(await function(context, value))
        answer = await self.in_thread(function, context, value)
        if is_wrapper and answer.exception() is None and inspect.isawaitable(answer.result()):
            return _completed(await answer.result())
        return answer

    def _input(self, function: Callable[..., Any], request: pb.ActivityRequest) -> Any:
        """Decode the input, as the type that the function is annotated with."""
        encoded = request.input.value or None
        input_type = activity_input_type(function, self._converter) if encoded else None
        return self._converter.deserialize(encoded, input_type)

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call sync user code in a thread, where it may block or run an event loop of its own, as in a worker.

        One thread for all calls: they run one after the other, in the order in which they were made.

        Returns:
            A future that is done, with the result or the exception of the call.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="durabletask-aio-environment")
        call = functools.partial(call_to_future, contextvars.copy_context().run, function, *arguments)
        self._calls_in_thread += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        finally:
            self._calls_in_thread -= 1

    @property
    def is_threaded(self) -> bool:
        """Whether a call of `in_thread` is running or queued."""
        return self._calls_in_thread > 0

    def close(self) -> None:
        """End the thread after the call that is running."""
        self.is_stopping = True
        if self._thread is not None:
            self._thread.shutdown(wait=True)


def _completed(result: object) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(result)
    return future
