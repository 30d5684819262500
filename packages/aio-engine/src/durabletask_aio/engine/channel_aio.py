"""The channel to servicers in this process for the asyncio API of gRPC; see `channel`.

A call of a method that its servicer answers with a future (`futures`, see `calls`) holds no thread while it waits.  The
handlers of other methods run in threads, and those of streams whenever a response is asked for.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, cast

import grpc

from durabletask_aio.engine.calls import (
    GARBAGE_COLLECTED,
    LOCALLY_CANCELLED,
    CallContext,
    CallStatus,
    Metadatum,
    Method,
    MethodTable,
    Responses,
    check_metadata,
)
from durabletask_aio.engine.intercepted_aio import InterceptedStreamCall, InterceptedUnaryCall
from durabletask_aio.engine.threads import DaemonThreads

if TYPE_CHECKING:
    from typing_extensions import Self

    _UnaryUnary = grpc.aio.UnaryUnaryMultiCallable[Any, Any]
    _UnaryStream = grpc.aio.UnaryStreamMultiCallable[Any, Any]
    _UnaryUnaryCall = grpc.aio.UnaryUnaryCall[Any, Any]
    _UnaryStreamCall = grpc.aio.UnaryStreamCall[Any, Any]
else:  # The classes of grpcio are not generic.
    _UnaryUnary = grpc.aio.UnaryUnaryMultiCallable
    _UnaryStream = grpc.aio.UnaryStreamMultiCallable
    _UnaryUnaryCall = grpc.aio.UnaryUnaryCall
    _UnaryStreamCall = grpc.aio.UnaryStreamCall

_CANCELLED: Final = grpc.StatusCode.CANCELLED


class InProcessAioChannel(grpc.aio.Channel):
    """A channel to servicers in this process, for the asyncio API of gRPC.

    It belongs to the event loop that uses it.  Different loops need channels of their own, which are cheap.

    Args:
        servicers: The servicers by the descriptors of their services, or else one servicer of upstream's service.
        interceptors: The interceptors of all calls.  As with gRPC, one that has methods for several kinds of calls is
            used for one kind only, the first of unary-unary, unary-stream, stream-unary and stream-stream.

    Raises:
        ValueError: if a servicer's `futures` does not fit its service, or an interceptor is none.
    """

    def __init__(
        self,
        servicers: object,
        *,
        interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
    ) -> None:
        self._methods = MethodTable(servicers)
        self._unary_interceptors: list[Any] = []
        self._stream_interceptors: list[Any] = []
        for interceptor in interceptors or ():
            if isinstance(interceptor, grpc.aio.UnaryUnaryClientInterceptor):
                self._unary_interceptors.append(interceptor)
            elif isinstance(interceptor, grpc.aio.UnaryStreamClientInterceptor):
                self._stream_interceptors.append(interceptor)
            elif not isinstance(
                interceptor, (grpc.aio.StreamUnaryClientInterceptor, grpc.aio.StreamStreamClientInterceptor)
            ):
                raise ValueError(f"{interceptor!r} is not an interceptor of grpc.aio")
        self._executor = DaemonThreads("durabletask-aio-channel")
        self._in_flight: weakref.WeakSet[AioCall] = weakref.WeakSet()
        self._closed = False
        self._state_waiters: set[asyncio.Future[None]] = set()

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[..., Any] | None = None,
        response_deserializer: Callable[..., Any] | None = None,
        _registered_method: bool | None = False,
    ) -> AioUnaryCallable:
        """Return a method with one response, by its full name; nothing is serialised."""
        return AioUnaryCallable(self, method, self._unary_interceptors)

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[..., Any] | None = None,
        response_deserializer: Callable[..., Any] | None = None,
        _registered_method: bool | None = False,
    ) -> AioStreamCallable:
        """Return a method with a stream of responses, by its full name; nothing is serialised."""
        return AioStreamCallable(self, method, self._stream_interceptors)

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

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return `READY`, or `SHUTDOWN` once the channel is closed."""
        return grpc.ChannelConnectivity.SHUTDOWN if self._closed else grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait while the state is the one given."""
        if self.get_state() is last_observed_state:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._state_waiters.add(waiter)
            try:
                await waiter
            finally:
                self._state_waiters.discard(waiter)

    async def channel_ready(self) -> None:
        """Return at once, since the channel is ready."""
        self.check_open()

    async def close(self, grace: float | None = None) -> None:
        """Refuse new calls, and cancel those that have not ended after a number of seconds, or at once."""
        if self._closed:
            return
        self._closed = True
        calls = [call for call in self._in_flight if not call.done()]
        if grace and calls:
            await asyncio.wait([asyncio.ensure_future(call.code()) for call in calls], timeout=grace)
        for call in calls:
            call.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)
        for waiter in self._state_waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def __aenter__(self) -> Self:
        """Return the channel."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Close the channel."""
        await self.close()

    # For the callables.

    def check_open(self) -> None:
        """Check that calls are possible.

        Raises:
            grpc.aio.UsageError: if the channel is closed.
        """
        if self._closed:
            raise grpc.aio.UsageError("Channel is closed.")

    def begin_unary(self, path: str, request: Any, timeout: float | None, metadata: Any) -> AioUnaryCall:
        """Start a call of a method with one response."""
        context = self._begin(self._methods.find(path, is_streaming=False), timeout, metadata)
        call = AioUnaryCall(context, timeout)
        self._in_flight.add(call)
        received = context.to_handler(request, copy=True)
        if context.method.future is not None:
            context.start_future(context.method.future, received)
        elif context.is_active():
            self._executor.submit(context.run, received)
        return call

    def begin_stream(self, path: str, request: Any, timeout: float | None, metadata: Any) -> AioStreamCall:
        """Start a call of a method with a stream of responses."""
        context = self._begin(self._methods.find(path, is_streaming=True), timeout, metadata)
        responses = Responses(context, context.to_handler(request, copy=True))
        call = AioStreamCall(context, timeout, responses, self._executor)
        self._in_flight.add(call)
        return call

    def _begin(self, method: Method, timeout: float | None, metadata: Any) -> CallContext:
        self.check_open()
        try:
            return CallContext(method, timeout, check_metadata(metadata))
        except ValueError as error:
            context = CallContext(method, None)
            context.finish(CallStatus(grpc.StatusCode.INTERNAL, f"Invalid metadata: {error}"))
            return context


class AioUnaryCallable(_UnaryUnary):
    """A method with one response."""

    def __init__(self, channel: InProcessAioChannel, path: str, interceptors: list[Any]) -> None:
        self._channel = channel
        self._path = path
        self._interceptors = interceptors

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Start a call; awaiting it gives the response.

        Raises:
            grpc.aio.UsageError: if the channel is closed.
        """
        if not self._interceptors:
            return self._channel.begin_unary(self._path, request, timeout, metadata)
        self._channel.check_open()
        details = _call_details(self._path, timeout, metadata, credentials, wait_for_ready)
        return InterceptedUnaryCall(self._intercept(self._interceptors, details, request))

    async def _intercept(self, interceptors: list[Any], details: Any, request: Any) -> Any:
        """Run the first interceptor, whose continuation runs the others and then starts the call."""
        if not interceptors:
            return self._channel.begin_unary(_text(details.method), request, details.timeout, details.metadata)
        continuation = partial(self._intercept, interceptors[1:])
        return await interceptors[0].intercept_unary_unary(continuation, details, request)


class AioStreamCallable(_UnaryStream):
    """A method with a stream of responses."""

    def __init__(self, channel: InProcessAioChannel, path: str, interceptors: list[Any]) -> None:
        self._channel = channel
        self._path = path
        self._interceptors = interceptors

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Start a call, and return it as an asynchronous iterator of its responses.

        Raises:
            grpc.aio.UsageError: if the channel is closed.
        """
        if not self._interceptors:
            return self._channel.begin_stream(self._path, request, timeout, metadata)
        self._channel.check_open()
        details = _call_details(self._path, timeout, metadata, credentials, wait_for_ready)
        return InterceptedStreamCall(self._intercept(self._interceptors, details, request))

    async def _intercept(self, interceptors: list[Any], details: Any, request: Any) -> Any:
        """Run the first interceptor, whose continuation runs the others and then starts the call."""
        if not interceptors:
            return self._channel.begin_stream(_text(details.method), request, details.timeout, details.metadata)
        continuation = partial(self._intercept, interceptors[1:])
        return await interceptors[0].intercept_unary_stream(continuation, details, request)


def _call_details(
    path: str, timeout: float | None, metadata: Any, credentials: Any, wait_for_ready: bool | None
) -> grpc.aio.ClientCallDetails:
    # The method as bytes, and metadata always as an object, as gRPC passes them.
    method: Any = path.encode()
    return grpc.aio.ClientCallDetails(
        method, timeout, grpc.aio.Metadata(*(metadata or ())), credentials, wait_for_ready
    )


def _text(method: str | bytes) -> str:
    return method.decode() if isinstance(method, bytes) else method


class AioCall(grpc.aio.Call):
    """A call as its client sees it, on the event loop that has started it."""

    def __init__(self, context: CallContext, timeout: float | None) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._done_callbacks: list[Callable[[Any], object]] = []
        self._deadline = None if timeout is None else self._loop.call_later(timeout, self._expire)
        # The context must not refer to the call: an unreferenced stream is cancelled.
        reference = weakref.WeakMethod(self._end)
        if not context.add_callback(partial(_call_in_loop, self._loop, reference)):
            self._end()

    def cancelled(self) -> bool:
        """Return whether the client has cancelled the call."""
        status = self._context.status
        return status is not None and status.is_local

    def done(self) -> bool:
        """Return whether the call has ended."""
        return not self._context.is_active()

    def time_remaining(self) -> Any:
        """Return the seconds until the deadline, or `None` if there is none."""
        return self._context.time_remaining()

    def cancel(self) -> bool:
        """Cancel the call, and return whether it had not ended."""
        return self._context.finish(CallStatus(_CANCELLED, LOCALLY_CANCELLED, is_local=True))

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Have a function called with this object when the call ends, at once if it has."""
        if self._ended.done():
            callback(self)
        else:
            self._done_callbacks.append(callback)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Wait for the initial metadata of the server."""
        sent = asyncio.Event()
        self._context.add_metadata_callback(partial(_call_soon_threadsafe, self._loop, sent.set))
        await sent.wait()
        return _metadata(self._context.sent_initial_metadata)

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Wait for the end of the call, and return the trailing metadata of the server."""
        await self._wait()
        return _metadata(self._context.sent_trailing_metadata)

    async def code(self) -> grpc.StatusCode:
        """Wait for the end of the call, and return its status code."""
        return (await self._wait()).code

    async def details(self) -> str:
        """Wait for the end of the call, and return the details of its status."""
        return (await self._wait()).details

    async def debug_error_string(self) -> str:
        """Wait for the end of the call, and return the details of its status."""
        return (await self._wait()).details

    async def wait_for_connection(self) -> None:
        """Return at once if the call has begun, as it always has.

        Raises:
            grpc.aio.AioRpcError: if the call has ended with another status than `OK`.
        """
        if self._context.status is not None:
            self._raise_for_status()

    def __repr__(self) -> str:
        """Show the status."""
        status = self._context.status
        return f"<{type(self).__name__} {'in flight' if status is None else status}>"

    async def _wait(self) -> CallStatus:
        await asyncio.shield(self._ended)
        return cast(CallStatus, self._context.status)

    def _raise_for_status(self) -> None:
        status = cast(CallStatus, self._context.status)
        if status.is_local:
            raise asyncio.CancelledError
        if status.code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                status.code,
                _metadata(self._context.sent_initial_metadata),
                _metadata(self._context.sent_trailing_metadata),
                status.details,
                status.details,
            )

    def _expire(self) -> None:
        self._context.expire_if_due()
        if self._context.status is None and self._deadline is not None:
            # The clock of the loop is that of the deadline, but the loop may be early by its resolution.
            remaining: float = self._context.time_remaining()
            self._deadline = self._loop.call_later(remaining, self._expire)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if not self._ended.done():
            self._ended.set_result(None)
            callbacks, self._done_callbacks = self._done_callbacks, []
            for callback in callbacks:
                callback(self)


class AioUnaryCall(AioCall, _UnaryUnaryCall):
    """A call with one response."""

    def __init__(self, context: CallContext, timeout: float | None) -> None:
        super().__init__(context, timeout)
        # As with gRPC, a call that is not awaited is still made, and its callbacks are called.
        context.add_callback(partial(_ignore, self))

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the response; cancelling the wait cancels the call.

        Raises:
            grpc.aio.AioRpcError: if the call ends with another status than `OK`.
            asyncio.CancelledError: if the call was cancelled.
        """
        return self._response().__await__()

    async def _response(self) -> Any:
        try:
            await self._wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        self._raise_for_status()
        return self._context.response


class AioStreamCall(AioCall, _UnaryStreamCall):
    """A call with a stream of responses.  An unreferenced stream is cancelled."""

    def __init__(
        self, context: CallContext, timeout: float | None, responses: Responses, executor: DaemonThreads
    ) -> None:
        super().__init__(context, timeout)
        self._responses = responses
        self._executor = executor
        # The handler begins with the call, and waits after its first response until that is read.
        self._ahead: asyncio.Future[Any] | None = None
        if context.is_active():
            self._ahead = self._loop.run_in_executor(self._executor, partial(_start, responses))

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over the responses.

        Raises:
            grpc.aio.AioRpcError: if the call ends with another status than `OK`.
            asyncio.CancelledError: if the call was cancelled.
        """
        return self._iterate()

    async def read(self) -> Any:
        """Wait for the next response, or `grpc.aio.EOF`; cancelling the wait cancels the call.

        Raises:
            grpc.aio.AioRpcError: if the call ends with another status than `OK`.
            asyncio.CancelledError: if the call was cancelled.
        """
        message = await self._next()
        if message is not None:
            return message
        await self._wait()
        self._raise_for_status()
        return grpc.aio.EOF

    async def _iterate(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def _next(self) -> Any:
        reading, self._ahead = self._ahead, None
        if reading is None:
            if not self._context.is_active():
                return None
            reading = self._loop.run_in_executor(self._executor, self._responses.next)
        try:
            # The handler may be slow to notice that the call has ended; the client is not.
            await asyncio.wait({reading, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.cancel()
            raise
        return reading.result() if reading.done() and not reading.cancelled() else None

    def __del__(self) -> None:
        """Cancel the call if it has not ended."""
        self._context.finish(CallStatus(_CANCELLED, GARBAGE_COLLECTED, is_local=True))


def _start(responses: Responses) -> Any:
    responses.start()
    return responses.next()


def _ignore(call: object) -> None:
    """Keep a call alive until it ends."""


def _call_in_loop(loop: asyncio.AbstractEventLoop, reference: weakref.WeakMethod[Callable[[], None]]) -> None:
    method = reference()
    if method is not None:
        _call_soon_threadsafe(loop, method)


def _call_soon_threadsafe(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    # The loop may have been closed while a call was in flight: then nothing waits for it any more.
    if not loop.is_closed():
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError:
            if not loop.is_closed():
                raise


def _metadata(metadata: tuple[Metadatum, ...] | None) -> grpc.aio.Metadata:
    return grpc.aio.Metadata(*((key, value) for key, value in metadata or ()))
