"""`Activities`: executes the activities of one worker, sync ones in upstream's own code, async ones on one event loop.

`WorkItems` begins async activities without waiting, on the thread that reads the work items.  Upstream's limits apply
to them as to all others, and they take no thread of the pool while they wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from durabletask_aio.core.hosting import activity_failure_details, describe_unregistered, serialize_activity_result
from durabletask_aio.worker import _upstream
from durabletask_aio.worker._upstream import SERVER, helpers, payload_helpers, pb, tracing, type_discovery
from durabletask_aio.worker.activity_context import ActivityContext
from durabletask_aio.worker.activity_functions import call_to_future, is_async, may_return_awaitable
from durabletask_aio.worker.activity_tracing import ActivitySpan, ActivityTracing, set_span_error
from durabletask_aio.worker.deliveries import Deliveries
from durabletask_aio.worker.foreign_engines import Answers, StubWith
from durabletask_aio.worker.leases import is_retried

if TYPE_CHECKING:
    import logging

    from durabletask_aio.worker.activity_loop import ActivityLoop
    from durabletask_aio.worker.leases import Leases

_request: contextvars.ContextVar[pb.ActivityRequest] = contextvars.ContextVar("durabletask_aio_activity_request")

_Ended = Callable[[bool, "BaseException | None"], None]


class _Registered(NamedTuple):
    """A registered activity, and what is asked about it for each work item."""

    function: object
    is_async: bool
    """Whether it returns an awaitable, or may return one."""
    may_return_awaitable: bool


class _Cancelled(BaseException):
    """The worker stopped before the activity had a result; the engine gets no response.

    A `BaseException`, so that the span of the activity does not record it as an error.
    """


class _Handled:
    """Passed to upstream's wrapper in place of a request that has been handled, so that it releases the channel.

    Only for the run loop of a class that overrides upstream's: it knows of no other way.
    """


HANDLED = _Handled()


class _ResultConverter:
    """A data converter for upstream's executor that says what cannot be serialised of a result, and where.

    Args:
        converter: The worker's.
        serialize: Serialises a result.
    """

    def __init__(self, converter: Any, serialize: Callable[[Any], str | None]) -> None:
        self._converter = converter
        self.serialize = serialize

    def __getattr__(self, name: str) -> Any:
        return getattr(self._converter, name)


class Activities:
    """Executes the activities of one worker."""

    def __init__(self, worker: _upstream.Worker, loop: ActivityLoop, leases: Leases) -> None:
        self._worker = worker
        self._loop = loop
        self._leases = leases
        self._sends_futures = _upstream.owns_channel(worker) and not _upstream.has_interceptors(worker)
        """Whether the results of async activities leave as futures; an interceptor of the user's may wait for them."""
        self._logger = _upstream.logger_of(worker)
        self._answers = Answers(self._logger)
        self._execute_sync: Callable[..., None] = (
            _upstream.own_activity(worker)
            if _upstream.overrides_activity(worker)
            else _upstream.activity_execution(
                lambda _instance_id, _task_id: self._make_context(_request.get()),
                ActivityTracing(),
                new_failure_details=self._failure_details,
                make_converter=self._result_converter,
            ).__get__(worker)
        )
        self.deliveries = Deliveries()
        self._registered: dict[str, _Registered] = {}
        self.is_stopping = False

    def close(self) -> None:
        """End the delivery threads; called when the worker has stopped."""
        self.deliveries.close()

    # -- sync or async -------------------------------------------------------------------------------------------

    def is_async(self, name: str) -> bool:
        """Whether the activity registered under `name` returns an awaitable, or may return one."""
        return self._find(name).is_async

    def _find(self, name: str) -> _Registered:
        """Return the activity registered under `name`; what is asked about it is computed once for each function."""
        function = _upstream.find_activity(self._worker, name)
        known = self._registered.get(name)
        if known is None or known.function is not function:
            is_wrapper = may_return_awaitable(function)
            known = self._registered[name] = _Registered(function, is_wrapper or is_async(function), is_wrapper)
        return known

    def _make_context(self, request: pb.ActivityRequest) -> ActivityContext:
        instance_id = request.orchestrationInstance.instanceId
        return ActivityContext(instance_id, request.taskId, request.name, request.tags, lambda: self.is_stopping)

    # -- sync activities -----------------------------------------------------------------------------------------

    def execute(self, request: pb.ActivityRequest | _Handled, stub: Any, completion_token: Any) -> None:
        """Run a sync activity, in upstream's pool; takes the place of upstream's `_execute_activity`."""
        if isinstance(request, _Handled):
            return
        reset = _request.set(request)
        try:
            self._execute_sync(request, self._delivering(request, stub), completion_token)
        except Exception:
            raise
        except BaseException as error:
            # Upstream catches `Exception` only; `SystemExit` would end the worker.
            self._deliver(self._failed(request, completion_token, error), request, stub)
        finally:
            _request.reset(reset)

    def _delivering(self, request: pb.ActivityRequest, stub: Any) -> StubWith:
        """Return a stub for upstream's code that sends a failure if the engine refuses the result."""
        return StubWith(
            stub,
            CompleteActivityTask=lambda response: self._answers.complete_activity(stub, response, request.name),
        )

    # -- async activities ----------------------------------------------------------------------------------------

    def begin(self, request: pb.ActivityRequest, stub: Any, token: Any, ended: _Ended) -> None:
        """Start an async activity on its loop, and deliver its result; does not wait.

        Args:
            request: The request to run it.
            stub: For its result.
            token: The completion token.
            ended: Called at the end, on any thread: with whether the activity had an outcome, `False` means that the
                worker stopped before, and with the error if it could not be run.
        """
        name = f"activity {request.name} #{request.taskId} of {request.orchestrationInstance.instanceId}"
        response = self._loop.submit(lambda: self._respond(request, token), name=name)
        response.add_done_callback(lambda response: self._responded(response, request, stub, ended))

    def _responded(
        self, response: Future[pb.ActivityResponse | None], request: pb.ActivityRequest, stub: Any, ended: _Ended
    ) -> None:
        error = response.exception()
        outcome = None if error is not None else response.result()
        if outcome is None:
            ended(False, error)
            return

        def deliver(error: Exception | None) -> None:
            self._deliver(outcome, request, stub, error)
            ended(True, None)

        if not self._sends_futures or _upstream.payload_store_of(self._worker) is not None:
            self.deliveries.run_in_thread(deliver, None)
            return

        def sent(error: Exception | None) -> None:
            if error is not None:
                deliver(error)
            else:
                ended(True, None)

        interceptor = self._leases.interceptor
        self.deliveries.send(lambda: interceptor.start(lambda: stub.CompleteActivityTask.future(outcome)), sent)

    async def _respond(self, request: pb.ActivityRequest, completion_token: Any) -> pb.ActivityResponse | None:
        """Return the response to `request`, or `None` if the worker stopped before there was one.

        The steps are those of upstream's `_execute_activity`; a test compares the responses of the two.
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
            ActivitySpan(
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
                set_span_error(span, error)
                raise

    async def _call(self, request: pb.ActivityRequest) -> str | None:
        instance_id, name, task_id = request.orchestrationInstance.instanceId, request.name, request.taskId
        self._logger.debug("%s/%s: Executing activity '%s'...", instance_id, task_id, name)
        function: Any = _upstream.find_activity(self._worker, name)
        converter = _upstream.data_converter_of(self._worker)
        encoded_input = request.input.value
        input_type = type_discovery.activity_input_type(function, converter) if encoded_input else None
        value = converter.deserialize(encoded_input, input_type)
        context = self._make_context(request)
        try:
            if self._find(name).may_return_awaitable:
                output = await self._called_in_pool(function, context, value)
            else:
                output = await function(context, value)
        except asyncio.CancelledError:
            if self._loop.is_cancelling(asyncio.current_task()):
                raise _Cancelled from None
            raise  # The activity cancelled itself, which is a failure.
        encoded_output = serialize_activity_result(converter, output, name, function)
        self._logger.debug(
            "%s/%s: Activity '%s' completed successfully with %d char(s) of encoded output.",
            instance_id,
            task_id,
            name,
            len(encoded_output) if encoded_output else 0,
        )
        return encoded_output

    async def _called_in_pool(self, function: Callable[..., Any], context: ActivityContext, value: Any) -> Any:
        """Return the result of a plain function around an async one, which may block, by `asyncio.run` for example.

        A call in the pool cannot be cancelled, so a cancellation takes effect when the function has returned. If it has
        returned a result, and not an awaitable, the result is used, as that of a sync activity would be.
        """
        begin = functools.partial(call_to_future, contextvars.copy_context().run, function, context, value)
        call = asyncio.get_running_loop().run_in_executor(_upstream.thread_pool_of(self._worker), begin)
        cancelled: asyncio.CancelledError | None = None
        while not call.done():
            try:
                await asyncio.wait([call])
            except asyncio.CancelledError as error:  # noqa: PERF203 - the loop waits, so its speed does not matter
                cancelled = error
        output = call.result().result()
        if not inspect.isawaitable(output):
            return output
        if cancelled is not None:
            if inspect.iscoroutine(output):
                output.close()
            raise cancelled
        return await output

    # -- responses -----------------------------------------------------------------------------------------------

    def _result_converter(self, converter: Any) -> _ResultConverter:
        name = _request.get().name
        function = _upstream.find_activity(self._worker, name)
        return _ResultConverter(converter, lambda result: serialize_activity_result(converter, result, name, function))

    def _failure_details(self, error: BaseException, provider: Any, logger: logging.Logger) -> pb.TaskFailureDetails:
        """Describe a failure of a sync activity; of one that is not registered, with the names of those that are."""
        if isinstance(error, _upstream.ActivityNotRegisteredError):
            name, names = _request.get().name, _upstream.registered_names(self._worker)
            if name not in names["activity"]:  # and the error is not one of an activity
                error = type(error)(describe_unregistered("activity", name, names.pop("activity"), names))
        return activity_failure_details(error, provider, logger)

    def _failed(self, request: pb.ActivityRequest, token: Any, error: BaseException) -> pb.ActivityResponse:
        return pb.ActivityResponse(
            instanceId=request.orchestrationInstance.instanceId,
            taskId=request.taskId,
            failureDetails=activity_failure_details(
                error, _upstream.exception_properties_of(self._worker), self._logger
            ),
            completionToken=token,
        )

    def _deliver(
        self, response: pb.ActivityResponse, request: pb.ActivityRequest, stub: Any, error: Exception | None = None
    ) -> None:
        """Send a response; `error` is that of a first attempt, which was not tried again."""
        instance_id = request.orchestrationInstance.instanceId
        try:
            store = _upstream.payload_store_of(self._worker)
            if store is not None:
                payload_helpers.externalize_payloads(response, store, instance_id=instance_id)
            if error is None or is_retried(response.completionToken, error):
                self._answers.complete_activity(stub, response, request.name)
            else:
                self._answers.complete_refused_activity(stub, response, request.name, error)
        except Exception as failure:
            self._logger.exception(
                "Failed to deliver activity response for '%s#%s' of orchestration ID '%s' to sidecar: %s",
                request.name,
                request.taskId,
                instance_id,
                failure,
            )
