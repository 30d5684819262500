"""Channels to servicers in this process: what `grpc.insecure_channel` is to a server, without socket and bytes.

Clients and workers that take a `channel` run on them as they are.  Status codes, deadlines, cancellation, metadata and
interceptors are gRPC's (one test suite runs over both); `calls` says how messages are kept apart.

Differences from a socket, which follow from the handler running on the client's thread:

- A blocking call returns when its handler does, even if the deadline has passed or the channel is closed meanwhile.  A
  handler that waits must wait no longer than `context.time_remaining()`, or wake up by `context.add_callback`.
- The code of a generator that is a handler runs when its responses are asked for, and at most one response ahead.
- Credentials, compression and `wait_for_ready` have no effect, and `context.time_remaining()` is `None` without a
  deadline, as documented by gRPC, where its server returns a very large number.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, cast

import grpc

from durabletask_aio.engine.calls import (
    CHANNEL_CLOSED,
    GARBAGE_COLLECTED,
    LOCALLY_CANCELLED,
    CallContext,
    CallStatus,
    Metadatum,
    Method,
    MethodTable,
    Responses,
    check_metadata,
    logger,
)
from durabletask_aio.engine.channel_aio import InProcessAioChannel
from durabletask_aio.engine.deadlines import DeadlineTimer
from durabletask_aio.engine.threads import DaemonThreads

if TYPE_CHECKING:
    from typing_extensions import Self

    _Future = grpc.Future[Any]
    _UnaryUnary = grpc.UnaryUnaryMultiCallable[Any, Any]
    _UnaryStream = grpc.UnaryStreamMultiCallable[Any, Any]
else:  # The classes of grpcio are not generic.
    _Future = grpc.Future
    _UnaryUnary = grpc.UnaryUnaryMultiCallable
    _UnaryStream = grpc.UnaryStreamMultiCallable

__all__ = ["InProcessAioChannel", "InProcessChannel", "InProcessRpcError"]

_CANCELLED: Final = grpc.StatusCode.CANCELLED

_METHODS_OF_CLIENT: Final = {
    "WaitForInstanceCompletion": "wait_for_orchestration_completion",
    "WaitForInstanceStart": "wait_for_orchestration_start",
}
"""What upstream's clients call the methods that wait."""


class InProcessChannel(grpc.Channel):
    """A channel to servicers in this process, for the synchronous API of gRPC.

    It can be used by several threads at once.

    Args:
        servicers: The servicers by the descriptors of their services, or else one servicer of upstream's service.
        blocking_loops: Tells whether an event loop must not be blocked.  On the thread of such a loop, blocking calls
            of methods whose name starts with `WaitFor` are refused with a `RuntimeError`.

    Raises:
        ValueError: if a servicer's `futures` does not fit its service.
    """

    def __init__(
        self,
        servicers: object,
        *,
        blocking_loops: Callable[[asyncio.AbstractEventLoop], bool] | None = None,
    ) -> None:
        self._methods = MethodTable(servicers)
        self._blocking_loops = blocking_loops
        self._timer = DeadlineTimer()
        self._lock = threading.Lock()
        self._executor: DaemonThreads | None = None
        self._in_flight: set[CallContext] = set()
        self._subscribed: list[Callable[[grpc.ChannelConnectivity], None]] = []
        self._closed = False

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[..., Any] | None = None,
        response_deserializer: Callable[..., Any] | None = None,
        _registered_method: bool | None = False,
    ) -> UnaryCallable:
        """Return a method with one response, by its full name; nothing is serialised."""
        return UnaryCallable(self, self._methods.find(method, is_streaming=False))

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[..., Any] | None = None,
        response_deserializer: Callable[..., Any] | None = None,
        _registered_method: bool | None = False,
    ) -> StreamCallable:
        """Return a method with a stream of responses, by its full name; nothing is serialised."""
        return StreamCallable(self, self._methods.find(method, is_streaming=True))

    def stream_unary(self, method: str, *args: Any, **keywords: Any) -> Any:
        """Refuse a stream of requests.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{method}: streams of requests are not implemented in process")

    def stream_stream(self, method: str, *args: Any, **keywords: Any) -> Any:
        """Refuse a stream of requests.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{method}: streams of requests are not implemented in process")

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool | None = False
    ) -> None:
        """Report the connectivity, which is always `READY`: once, on another thread."""
        self._check_open()
        self._subscribed.append(callback)
        self.executor().submit(self._report_ready, callback)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Cancel a subscription that has not been served."""
        if callback in self._subscribed:
            self._subscribed.remove(callback)

    def close(self) -> None:
        """End all calls with the status `CANCELLED`, and refuse new ones."""
        self._closed = True
        for context in list(self._in_flight):
            context.finish(CallStatus(_CANCELLED, CHANNEL_CLOSED))
        self._timer.close()
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        """Return the channel."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Close the channel."""
        self.close()

    # For the callables.

    def begin(self, method: Method, timeout: float | None, metadata: Any) -> CallContext:
        """Register a call, until `end` is called with it.

        Raises:
            ValueError: if the channel is closed.
            TypeError: if a value of the metadata has the wrong type.
        """
        self._check_open()
        try:
            context = CallContext(method, timeout, check_metadata(metadata), self._timer)
        except ValueError as error:
            context = CallContext(method, None)
            context.finish(CallStatus(grpc.StatusCode.INTERNAL, f"Invalid metadata: {error}"))
        self._in_flight.add(context)
        if self._closed:  # by another thread, which may not have seen the call
            self._in_flight.discard(context)
            self._check_open()
        return context

    def end(self, context: CallContext) -> None:
        """Forget a call that has ended."""
        self._in_flight.discard(context)

    def refuse_blocking(self, method: Method) -> None:
        """Check that this thread may wait.

        Raises:
            RuntimeError: if an event loop runs on it that must not be blocked.
        """
        if self._blocking_loops is None or not method.name.startswith("WaitFor"):
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._blocking_loops(loop):
            name = _METHODS_OF_CLIENT.get(method.name, method.name)
            raise RuntimeError(
                f"{name}() would block the event loop that runs the activities it waits for, forever\n"
                f"  wrong: client.{name}(...)\n"
                f"  right: await async_client.{name}(...), with the async client\n"
                f"  right: await asyncio.to_thread(client.{name}, ...)"
            )

    def executor(self) -> Executor:
        """Return the threads for calls by `future()`, except for those that the servicer answers with a future itself.

        Raises:
            ValueError: if the channel is closed.
        """
        with self._lock:
            self._check_open()
            if self._executor is None:
                self._executor = DaemonThreads("durabletask-aio-channel")
            return self._executor

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("Cannot invoke RPC on closed channel!")

    def _report_ready(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        if callback in self._subscribed:
            try:
                callback(grpc.ChannelConnectivity.READY)
            except Exception:
                logger.exception("Exception calling connectivity callback!")


class UnaryCallable(_UnaryUnary):
    """A method with one response."""

    def __init__(self, channel: InProcessChannel, method: Method) -> None:
        self._channel = channel
        self._method = method

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Call the method, whose handler runs on this thread, and return the response.

        Raises:
            InProcessRpcError: if the call ends with another status than `OK`.
            ValueError: if the channel is closed.
            RuntimeError: if the call would wait on the thread of an event loop that must not be blocked.
        """
        return self._run(request, timeout, metadata).response

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> tuple[Any, grpc.Call]:
        """Do the same as a plain call, and return the response with the call, which has the metadata of the server."""
        context = self._run(request, timeout, metadata)
        return context.response, ClientCall(context)

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Start a call, and return it as a future of its response.

        Raises:
            ValueError: if the channel is closed.
        """
        context = self._channel.begin(self._method, timeout, metadata)
        received = context.to_handler(request, copy=True)
        if self._method.future is not None:
            context.start_future(self._method.future, received)
        elif context.is_active():
            self._channel.executor().submit(context.run, received)
        if not context.add_callback(lambda: self._channel.end(context)):
            self._channel.end(context)
        return ClientCall(context)

    def _run(self, request: Any, timeout: float | None, metadata: Any) -> CallContext:
        channel = self._channel
        channel.refuse_blocking(self._method)
        context = channel.begin(self._method, timeout, metadata)
        try:
            context.run(context.to_handler(request, copy=False))
        finally:
            channel.end(context)
        if context.status is None or context.status.code is not grpc.StatusCode.OK:
            raise InProcessRpcError(context)
        return context


class StreamCallable(_UnaryStream):
    """A method with a stream of responses."""

    def __init__(self, channel: InProcessChannel, method: Method) -> None:
        self._channel = channel
        self._method = method

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Start a call, and return it as an iterator of its responses.

        Raises:
            ValueError: if the channel is closed.
        """
        context = self._channel.begin(self._method, timeout, metadata)
        responses = Responses(context, context.to_handler(request, copy=True))
        responses.start()
        channel = self._channel
        if not context.add_callback(lambda: channel.end(context)):
            channel.end(context)
        return ResponseStream(context, responses)


class ClientCall(grpc.Call, _Future):
    """A call as its client sees it."""

    def __init__(self, context: CallContext) -> None:
        self._context = context

    # grpc.RpcContext

    def is_active(self) -> bool:
        """Return whether the call has not ended."""
        return self._context.is_active()

    def time_remaining(self) -> Any:
        """Return the seconds until the deadline, or `None` if there is none."""
        return self._context.time_remaining()

    def cancel(self) -> bool:
        """Cancel the call, and return whether it had not ended."""
        return self._context.finish(CallStatus(_CANCELLED, LOCALLY_CANCELLED, is_local=True))

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Have a function called when the call ends, and return whether it will be."""
        return self._context.add_callback(callback)

    # grpc.Call

    def initial_metadata(self) -> Any:
        """Return the initial metadata of the server, and wait for them."""
        return self._context.wait_for_initial_metadata()

    def trailing_metadata(self) -> Any:
        """Return the trailing metadata of the server, and wait for the end of the call."""
        self._wait()
        return self._context.sent_trailing_metadata

    def code(self) -> Any:
        """Return the status code, and wait for the end of the call."""
        return self._wait().code

    def details(self) -> Any:
        """Return the details of the status, and wait for the end of the call."""
        return self._wait().details

    def debug_error_string(self) -> str:
        """Return the details of the status, and wait for the end of the call."""
        return self._wait().details

    # grpc.Future

    def cancelled(self) -> bool:
        """Return whether the client has cancelled the call."""
        status = self._context.status
        return status is not None and status.is_local

    def running(self) -> bool:
        """Return whether the call has not ended."""
        return self._context.is_active()

    def done(self) -> bool:
        """Return whether the call has ended."""
        return not self._context.is_active()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the response.

        Raises:
            grpc.FutureTimeoutError: if the call does not end within that number of seconds.
            grpc.FutureCancelledError: if the call was cancelled.
            InProcessRpcError: if the call ends with another status than `OK`.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._context.response

    def exception(self, timeout: float | None = None) -> Any:
        """Wait for the end of the call, and return its error or `None`.

        Raises:
            grpc.FutureTimeoutError: if the call does not end within that number of seconds.
            grpc.FutureCancelledError: if the call was cancelled.
        """
        status = self._context.wait_for_status(timeout)
        if status is None:
            raise grpc.FutureTimeoutError
        if status.is_local:
            raise grpc.FutureCancelledError
        return None if status.code is grpc.StatusCode.OK else InProcessRpcError(self._context)

    def traceback(self, timeout: float | None = None) -> Any:
        """Wait for the end of the call, and return the traceback of its error or `None`."""
        error = self.exception(timeout)
        return None if error is None else error.__traceback__

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Have a function called with this object when the call ends, at once if it has."""
        if not self._context.add_callback(lambda: fn(self)):
            fn(self)

    def __repr__(self) -> str:
        """Show the status as gRPC does."""
        status = self._context.status
        if status is None:
            return f"<{type(self).__name__} object>"
        return (
            f"<{type(self).__name__} of RPC that terminated with:\n"
            f'\tstatus = {status.code}\n\tdetails = "{status.details}"\n>'
        )

    def _wait(self) -> CallStatus:
        return cast(CallStatus, self._context.wait_for_status())


class InProcessRpcError(grpc.RpcError, ClientCall):  # type: ignore[misc]  # two ways to declare one method
    """A call ended with another status than `OK`."""

    def __init__(self, context: CallContext) -> None:
        super().__init__()
        self._context = context

    # Explicitly, because those of `Exception` come first.

    def __repr__(self) -> str:
        """Show the status as gRPC does."""
        return ClientCall.__repr__(self)

    def __str__(self) -> str:
        """Show the status as gRPC does."""
        return ClientCall.__repr__(self)


class ResponseStream(ClientCall):
    """A call with a stream of responses: an iterator, which runs the handler on the thread that asks for the next one.

    An unreferenced stream is cancelled.
    """

    def __init__(self, context: CallContext, responses: Responses) -> None:
        super().__init__(context)
        self._responses = responses

    def __iter__(self) -> ResponseStream:
        """Return the stream."""
        return self

    def __next__(self) -> Any:
        """Wait for the next response.

        Raises:
            InProcessRpcError: if the call ends with another status than `OK`.
        """
        message = self._responses.next()
        if message is not None:
            return message
        if self._wait().code is grpc.StatusCode.OK:
            raise StopIteration
        raise InProcessRpcError(self._context)

    def next(self) -> Any:
        """Do the same as `next(stream)`."""
        return next(self)

    def initial_metadata(self) -> tuple[Metadatum, ...]:
        """Return the initial metadata of the server; the handler runs for that up to its first response."""
        if self._context.sent_initial_metadata is None:
            self._responses.read_ahead()
        return self._context.wait_for_initial_metadata()

    def _wait(self) -> CallStatus:
        if self._context.status is None:
            self._responses.read_ahead()
        return super()._wait()

    def __del__(self) -> None:
        """Cancel the call if it has not ended."""
        self._context.finish(CallStatus(_CANCELLED, GARBAGE_COLLECTED, is_local=True))
