"""Activities of a bound worker: sync ones run in upstream's own code, async ones are awaited on one event loop.

A coroutine function in place of `_execute_activity` would not work: upstream's manager would await it, but upstream's
stream reader wraps the handler in a plain function, which runs in the pool, releases the channel at once and drops the
coroutine.  So async work items become coroutine functions where they are queued; upstream's limits and bookkeeping then
apply to them as to all others, and no pool thread is used while they wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from durabletask_aio.core.hosting import activity_failure_details, metadata_from_tags
from durabletask_aio.worker import _upstream
from durabletask_aio.worker._upstream import SERVER, helpers, payload_helpers, pb, task, tracing, type_discovery
from durabletask_aio.worker.activity_functions import is_async, may_return_awaitable

if TYPE_CHECKING:
    from durabletask_aio.worker.activity_loop import ActivityLoop

_DELIVERY_THREADS = 4


class ActivityContext(task.ActivityContext):
    """The context of an activity, sync or async: upstream's, with name, tags, metadata and a logger."""

    __module__ = "durabletask.aio.worker"

    def __init__(
        self, orchestration_id: str, task_id: int, name: str, tags: Mapping[str, str], stopping: Callable[[], bool]
    ) -> None:
        super().__init__(orchestration_id, task_id)
        self._name = name
        self._tags = dict(tags)
        self._stopping = stopping

    @property
    def name(self) -> str:
        """The name under which the activity was called."""
        return self._name

    @property
    def tags(self) -> dict[str, str]:
        """A copy of the tags of this call (`call_activity(..., tags=...)`), metadata included."""
        return dict(self._tags)

    @property
    def metadata(self) -> dict[str, str] | None:
        """The metadata of the calling workflow; `None` if it has none, or if the engine does not carry tags."""
        return metadata_from_tags(self._tags)

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that names the instance and the activity in each record."""
        facts = {"instance_id": self.orchestration_id, "activity_name": self._name, "task_id": self.task_id}
        return _ActivityLogger(logging.getLogger(f"durabletask.aio.activity.{self._name}"), facts)

    @property
    def is_cancellation_requested(self) -> bool:
        """Whether the worker is stopping.

        An async activity is cancelled when the grace period ends.  A sync one cannot be, and the worker waits for it,
        so a long one should check this from time to time.
        """
        return self._stopping()


class _ActivityLogger(logging.LoggerAdapter):  # type: ignore[type-arg]  # subscriptable at run time since 3.11 only
    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        facts: Any = self.extra
        kwargs["extra"] = {**facts, **(kwargs.get("extra") or {})}
        return f"{facts['instance_id']}/{facts['task_id']}: {msg}", kwargs


_request: contextvars.ContextVar[pb.ActivityRequest] = contextvars.ContextVar("durabletask_aio_activity_request")


class _Handled:
    """Given to upstream's wrapper in place of a request, so that it only releases the channel."""


_HANDLED = _Handled()


class Activities:
    """Executes the activities of one worker."""

    def __init__(self, worker: _upstream.Worker, loop: ActivityLoop) -> None:
        self._worker = worker
        self._loop = loop
        self._logger = _upstream.logger_of(worker)
        self._execute_sync: Callable[..., None] = (
            _upstream.own_activity(worker)
            if _upstream.overrides_activity(worker)
            else _upstream.activity_execution(self._make_context).__get__(worker)
        )
        self._delivery: ThreadPoolExecutor | None = None
        self._kinds: dict[str, tuple[object, bool, bool]] = {}
        self.is_stopping = False

    def close(self) -> None:
        """End the delivery threads: the worker has stopped."""
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.shutdown(wait=True)

    # -- kinds ----------------------------------------------------------------------------------------------------

    def is_async(self, name: str) -> bool:
        """Whether the activity registered under `name` is async, or may be."""
        return self._kind(name)[1]

    def _kind(self, name: str) -> tuple[object, bool, bool]:
        """Return the function, whether it is (perhaps) async, and whether only a call tells."""
        function = _upstream.find_activity(self._worker, name)
        known = self._kinds.get(name)
        if known is None or known[0] is not function:
            is_wrapper = may_return_awaitable(function)
            known = self._kinds[name] = (function, is_wrapper or is_async(function), is_wrapper)
        return known

    def submission(self, submit: _upstream.SubmitWorkItem) -> _upstream.SubmitWorkItem:
        """Wrap the function that puts activities into upstream's queue: async ones become coroutine functions."""

        def submit_activity(handler: Any, cancel: Any, request: pb.ActivityRequest, stub: Any, token: Any) -> None:
            if not self.is_async(request.name):
                submit(handler, cancel, request, stub, token)
                return

            async def execute(request: pb.ActivityRequest, stub: Any, token: Any) -> None:
                await self._execute_async(handler, cancel, request, stub, token)

            submit(execute, cancel, request, stub, token)

        return submit_activity

    def _make_context(self, orchestration_id: str, task_id: int) -> ActivityContext:
        request = _request.get()
        return ActivityContext(orchestration_id, task_id, request.name, request.tags, self._asks_to_stop)

    def _asks_to_stop(self) -> bool:
        return self.is_stopping

    # -- sync activities ------------------------------------------------------------------------------------------

    def execute(self, request: pb.ActivityRequest | _Handled, stub: Any, completion_token: Any) -> None:
        """Execute an activity in upstream's pool; called in place of upstream's `_execute_activity`."""
        if isinstance(request, _Handled):
            return
        reset = _request.set(request)
        try:
            self._execute_sync(request, stub, completion_token)
        except Exception:
            raise
        except BaseException as error:
            # Upstream catches Exception only; SystemExit would end the worker.
            self._deliver(self._failed(request, completion_token, error), request, stub)
        finally:
            _request.reset(reset)

    # -- async activities -----------------------------------------------------------------------------------------

    async def _execute_async(
        self, handler: Any, cancel: Any, request: pb.ActivityRequest, stub: Any, token: Any
    ) -> None:
        """Wait, on upstream's loop, for an activity that runs on the loop of async activities."""
        loop = asyncio.get_running_loop()
        outcome = None
        if not self.is_stopping:  # The grace period is for activities that have begun.
            name = f"activity {request.name} #{request.taskId} of {request.orchestrationInstance.instanceId}"
            outcome = await asyncio.wrap_future(self._loop.submit(lambda: self._respond(request, token), name=name))
        if outcome is None:
            await loop.run_in_executor(self._delivery_pool(), self._give_back, cancel, request, stub, token)
            return
        try:
            # Not in upstream's pool, which may be full of sync activities that the result would wait for.
            await loop.run_in_executor(self._delivery_pool(), self._deliver, outcome, request, stub)
        finally:
            handler(_HANDLED, stub, token)

    def _give_back(self, cancel: Any, request: pb.ActivityRequest, stub: Any, token: Any) -> None:
        """Abandon the work item, so that the engine can deliver it again at once."""
        try:
            cancel(request, stub, token)
        except Exception as error:  # The engine may be unreachable; it then delivers the item again by itself.
            self._logger.debug("Activity '%s' could not be given back to the engine: %s", request.name, error)

    def _delivery_pool(self) -> ThreadPoolExecutor:
        if self._delivery is None:
            self._delivery = ThreadPoolExecutor(_DELIVERY_THREADS, thread_name_prefix="durabletask-aio-delivery")
        return self._delivery

    async def _respond(self, request: pb.ActivityRequest, completion_token: Any) -> pb.ActivityResponse | None:
        """Return the response to `request`, or `None` if the worker stopped before there was one.

        The order of the steps is that of upstream's `_execute_activity`; a test compares the responses of the two.
        """
        worker = self._worker
        _upstream.activity_started(worker, request)
        try:
            store = _upstream.payload_store_of(worker)
            if store is not None:
                await payload_helpers.deexternalize_payloads_async(request, store)
            try:
                result = await self._run(request)
            except _Cancelled:
                return None
            except BaseException as error:
                return self._failed(request, completion_token, error)
            return pb.ActivityResponse(
                instanceId=request.orchestrationInstance.instanceId,
                taskId=request.taskId,
                result=helpers.get_string_value(result),
                completionToken=completion_token,
            )
        finally:
            _upstream.activity_completed(worker, request)

    async def _run(self, request: pb.ActivityRequest) -> str | None:
        instance_id = request.orchestrationInstance.instanceId
        with (
            tracing.suppress_span_emission(not _upstream.emits_trace_spans(self._worker)),
            tracing.start_span(
                tracing.create_span_name("activity", request.name),
                trace_context=request.parentTraceContext,
                kind=SERVER,
                attributes={
                    tracing.ATTR_TASK_TYPE: "activity",
                    tracing.ATTR_TASK_INSTANCE_ID: instance_id,
                    tracing.ATTR_TASK_NAME: request.name,
                    tracing.ATTR_TASK_TASK_ID: str(request.taskId),
                },
            ) as span,
        ):
            try:
                return await self._call(request)
            except Exception as error:
                tracing.set_span_error(span, error)
                raise

    async def _call(self, request: pb.ActivityRequest) -> str | None:
        instance_id, name, task_id = request.orchestrationInstance.instanceId, request.name, request.taskId
        self._logger.debug("%s/%s: Executing activity '%s'...", instance_id, task_id, name)
        function: Any = _upstream.find_activity(self._worker, name)
        converter = _upstream.data_converter_of(self._worker)
        encoded_input = request.input.value
        input_type = type_discovery.activity_input_type(function, converter) if encoded_input else None
        value = converter.deserialize(encoded_input, input_type)
        context = ActivityContext(instance_id, task_id, name, request.tags, self._asks_to_stop)
        try:
            if self._kind(name)[2]:
                output = await self._called_in_pool(function, context, value)
            else:
                output = await function(context, value)
        except asyncio.CancelledError:
            if self._loop.is_cancelling(asyncio.current_task()):
                raise _Cancelled from None
            raise  # The activity cancelled itself, which is a failure.
        encoded_output = converter.serialize(output)
        self._logger.debug(
            "%s/%s: Activity '%s' completed successfully with %d char(s) of encoded output.",
            instance_id,
            task_id,
            name,
            len(encoded_output) if encoded_output else 0,
        )
        return encoded_output

    async def _called_in_pool(self, function: Callable[..., Any], context: ActivityContext, value: Any) -> Any:
        """Return the result of a plain function around an async one, which may call `asyncio.run` and so block.

        A cancellation waits until the function has returned, because a function in the pool cannot be cancelled; its
        result is delivered, as that of any sync activity.
        """
        begin = functools.partial(outcome_of, contextvars.copy_context().run, function, context, value)
        call = asyncio.get_running_loop().run_in_executor(_upstream.thread_pool_of(self._worker), begin)
        cancelled: asyncio.CancelledError | None = None
        while not call.done():
            try:
                await asyncio.wait([call])
            except asyncio.CancelledError as error:  # noqa: PERF203 - this loop waits
                cancelled = error
        output = call.result().result()
        if not inspect.isawaitable(output):
            return output
        if cancelled is not None:
            if inspect.iscoroutine(output):
                output.close()
            raise cancelled
        return await output

    # -- responses ------------------------------------------------------------------------------------------------

    def _failed(self, request: pb.ActivityRequest, token: Any, error: BaseException) -> pb.ActivityResponse:
        return pb.ActivityResponse(
            instanceId=request.orchestrationInstance.instanceId,
            taskId=request.taskId,
            failureDetails=activity_failure_details(
                error, _upstream.exception_properties_of(self._worker), self._logger
            ),
            completionToken=token,
        )

    def _deliver(self, response: pb.ActivityResponse, request: pb.ActivityRequest, stub: Any) -> None:
        instance_id = request.orchestrationInstance.instanceId
        try:
            store = _upstream.payload_store_of(self._worker)
            if store is not None:
                payload_helpers.externalize_payloads(response, store, instance_id=instance_id)
            stub.CompleteActivityTask(response)
        except Exception as error:
            self._logger.exception(
                "Failed to deliver activity response for '%s#%s' of orchestration ID '%s' to sidecar: %s",
                request.name,
                request.taskId,
                instance_id,
                error,
            )


def outcome_of(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Call `function` in a thread of a pool for which an event loop waits.

    A future as the result, because the loop's own does not accept `StopIteration` and would never be done.
    """
    outcome: Future[Any] = Future()
    try:
        outcome.set_result(function(*arguments))
    except BaseException as error:
        outcome.set_exception(error)
    return outcome


class _Cancelled(BaseException):
    """The worker stopped before the activity had a result, and no response is sent.

    A `BaseException`, so that the tracing span around it does not record it as an error.
    """
