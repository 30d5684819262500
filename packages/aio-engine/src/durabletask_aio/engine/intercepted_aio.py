"""Calls of the asyncio API that interceptors make; see `channel_aio`.

The interceptors run in a task.  It ends with a call, or with what an interceptor returns in place of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Final, cast

import grpc

from durabletask_aio.engine.calls import LOCALLY_CANCELLED

if TYPE_CHECKING:
    _UnaryUnaryCall = grpc.aio.UnaryUnaryCall[Any, Any]
    _UnaryStreamCall = grpc.aio.UnaryStreamCall[Any, Any]
else:  # The classes of grpcio are not generic.
    _UnaryUnaryCall = grpc.aio.UnaryUnaryCall
    _UnaryStreamCall = grpc.aio.UnaryStreamCall

_CANCELLED: Final = grpc.StatusCode.CANCELLED


class InterceptedCall(grpc.aio.Call):
    """A call that is made by interceptors: a task that ends with a call, or with a response of an interceptor's own."""

    def __init__(self, interceptors: Awaitable[Any]) -> None:
        self._task: asyncio.Task[Any] = asyncio.ensure_future(cast(Any, interceptors))
        self._task.add_done_callback(_retrieve_exception)

    def cancelled(self) -> bool:
        """Return whether the client has cancelled the call."""
        return self._task.cancelled() or (_succeeded(self._task) and self._made_call_or(False, "cancelled"))

    def done(self) -> bool:
        """Return whether the call has ended."""
        return self._task.done() and (not _succeeded(self._task) or self._made_call_or(True, "done"))

    def time_remaining(self) -> float | None:
        """Refuse, as gRPC does.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError

    def cancel(self) -> bool:
        """Cancel the interceptors or the call, and return whether it had not ended."""
        if not self._task.done():
            return self._task.cancel()
        return _succeeded(self._task) and self._made_call_or(False, "cancel")

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Have a function called with this object when the call ends, at once if it has."""

        def call_back(_: object) -> None:
            callback(self)

        def when_intercepted(task: asyncio.Task[Any]) -> None:
            if _succeeded(task) and isinstance(task.result(), grpc.aio.Call):
                task.result().add_done_callback(call_back)
            else:
                callback(self)

        if self._task.done():
            when_intercepted(self._task)
        else:
            self._task.add_done_callback(when_intercepted)

    async def initial_metadata(self) -> Any:
        """Wait for the initial metadata of the server."""
        return await self._of_call("initial_metadata", grpc.aio.Metadata())

    async def trailing_metadata(self) -> Any:
        """Wait for the end of the call, and return the trailing metadata of the server."""
        return await self._of_call("trailing_metadata", grpc.aio.Metadata())

    async def code(self) -> Any:
        """Wait for the end of the call, and return its status code."""
        return await self._of_call("code", grpc.StatusCode.OK, _CANCELLED)

    async def details(self) -> Any:
        """Wait for the end of the call, and return the details of its status."""
        return await self._of_call("details", "", LOCALLY_CANCELLED)

    async def debug_error_string(self) -> Any:
        """Wait for the end of the call, and return the details of its status."""
        return await self._of_call("debug_error_string", "", "")

    async def wait_for_connection(self) -> None:
        """Wait until the interceptors have made the call."""
        made = await asyncio.shield(self._task)
        if isinstance(made, grpc.aio.Call):
            await made.wait_for_connection()

    def _made_call_or(self, otherwise: bool, method: str) -> bool:
        made = self._task.result()
        return getattr(made, method)() if isinstance(made, grpc.aio.Call) else otherwise

    async def _of_call(self, method: str, if_response: Any, if_cancelled: Any = None) -> Any:
        """Return what a method of the call gives, or of the error that an interceptor has raised."""
        await asyncio.wait({self._task})
        if self._task.cancelled():
            return if_cancelled
        error = self._task.exception()
        if isinstance(error, grpc.aio.AioRpcError):
            return getattr(error, method)()
        made = self._task.result()
        return await getattr(made, method)() if isinstance(made, grpc.aio.Call) else if_response


class InterceptedUnaryCall(InterceptedCall, _UnaryUnaryCall):
    """A call with one response, made by interceptors."""

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the response; cancelling the wait cancels the call.

        Raises:
            grpc.aio.AioRpcError: if the call ends with another status than `OK`.
            asyncio.CancelledError: if the call was cancelled.
        """
        return self._response().__await__()

    async def _response(self) -> Any:
        made: Any = await self._task
        if isinstance(made, grpc.aio.UnaryUnaryCall):
            return await cast(Any, made)
        return made


class InterceptedStreamCall(InterceptedCall, _UnaryStreamCall):
    """A call with a stream of responses, made by interceptors, one of which may return an iterator of its own."""

    def __init__(self, interceptors: Awaitable[Any]) -> None:
        super().__init__(interceptors)
        self._iterator: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over the responses.

        Raises:
            grpc.aio.AioRpcError: if the call ends with another status than `OK`.
            asyncio.CancelledError: if the call was cancelled.
        """
        return self._iterate()

    async def read(self) -> Any:
        """Wait for the next response, or `grpc.aio.EOF`.

        Raises:
            grpc.aio.AioRpcError: if the call ends with another status than `OK`.
            asyncio.CancelledError: if the call was cancelled.
        """
        if self._iterator is None:
            self._iterator = self._iterate()
        return await anext(self._iterator, grpc.aio.EOF)

    async def _iterate(self) -> AsyncIterator[Any]:
        async for message in await self._task:
            yield message


def _succeeded(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    """Mark the exception as retrieved: a call that is not awaited fails without a message, as with gRPC."""
    if not task.cancelled():
        task.exception()
