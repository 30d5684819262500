"""One call in this process: the state that its client and its handler share, and the methods that can be called.

A servicer is an ordinary one of gRPC: methods with the signature `(request, context)`, which return a message, or an
iterator of messages where the service's descriptor has a stream of responses.  Two optional attributes of the servicer
concern calls in this process only:

- `futures`, a mapping of method names to functions that take a request and return a `concurrent.futures.Future` of the
  response.  Calls that wait use it in place of the method, so that they hold no thread.  Such a function is called on
  the client's thread, perhaps that of an event loop, and must not block.  A future that fails with `AbortError` ends
  the call with that status; if the call ends first, the future is cancelled.
- `keeps_messages`, which is `False` if the servicer neither changes a request nor uses it after its method has
  returned, and composes a new message for each response, which it does not use afterwards.

Messages are not serialised, and what a receiver changes in a message must not be seen by its sender.  The side that
copies is the channel, for the sender:

- A request is copied before its handler gets it, because the client may use it again, and the handler may keep or
  change it.  With `keeps_messages = False` this is not needed while the client waits: then only the handler has the
  request, and it only reads.
- A response is copied before the client gets it, because the handler may keep it.  With `keeps_messages = False` it
  need not be, because the client is then the only one that has it.
"""

from __future__ import annotations

import contextvars
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NoReturn, cast

import grpc

from durabletask_aio.engine._upstream import SERVICE
from durabletask_aio.engine.deadlines import DeadlineTimer

logger = logging.getLogger("durabletask.aio.engine")

LOCALLY_CANCELLED: Final = "Locally cancelled by application!"
GARBAGE_COLLECTED: Final = "Cancelled upon garbage collection!"
CHANNEL_CLOSED: Final = "Channel closed!"


class AbortError(Exception):
    """Ends a call with a status: raised by `abort` of the context, and set on futures of a servicer.

    Args:
        code: Any but `OK`.
        details: What the client is told.
    """

    def __init__(self, code: grpc.StatusCode, details: str = "") -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details


# -- metadata ---------------------------------------------------------------------------------------------------------


class Metadatum(NamedTuple):
    """One entry of metadata; values of keys that end with `-bin` are bytes, all others are text."""

    key: str
    value: str | bytes


_KEY = re.compile(r"[0-9a-z_.\-]+")


def check_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> tuple[Metadatum, ...]:
    """Convert metadata to what the other side gets.

    Raises:
        ValueError: if a key has characters that gRPC does not allow.
        TypeError: if a value has the wrong type.
    """
    return tuple(_metadatum(key, value) for key, value in metadata or ())


def _metadatum(key: str, value: str | bytes) -> Metadatum:
    if not _KEY.fullmatch(key):
        raise ValueError(f"metadata key {key!r} is not of lower-case letters, digits, '-', '_' and '.'")
    if key.endswith("-bin"):
        if not isinstance(value, bytes):
            raise TypeError(f"the value of metadata key {key!r} must be bytes, not {type(value).__name__}")
        return Metadatum(key, value)
    if isinstance(value, bytes):
        return Metadatum(key, value.decode("ascii"))
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"the value of metadata key {key!r} must be str, not {type(value).__name__}")
    return Metadatum(key, value)


# -- methods ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """One method of a servicer, as its descriptor describes it."""

    name: str
    handler: Callable[[Any, grpc.ServicerContext], Any]
    future: Callable[[Any], Future[Any]] | None = None
    is_streaming: bool = False
    request: Any = None
    """The descriptor of the request; `None` for a method that does not exist."""
    response: Any = None
    keeps_messages: bool = True


class MethodTable:
    """The methods that a channel can call.

    Args:
        servicers: The servicers by the descriptors of their services, or else one servicer of upstream's service.

    Raises:
        ValueError: if `futures` of a servicer names a method that its service does not have, or a stream.
    """

    def __init__(self, servicers: object) -> None:
        self._methods: dict[str, Method] = {}
        services = cast(Any, servicers) if isinstance(servicers, Mapping) else {SERVICE: servicers}
        for service, servicer in services.items():
            self._add(service, servicer)

    def find(self, path: str, *, is_streaming: bool) -> Method:
        """Return the method with a full name such as `/TaskHubSidecarService/Hello`.

        If there is none, calling the result ends with the same status as with gRPC.
        """
        method = self._methods.get(path)
        if method is None or method.is_streaming is not is_streaming:
            return Method(path, _not_found, is_streaming=is_streaming)
        return method

    def _add(self, service: Any, servicer: object) -> None:
        futures: Mapping[str, Callable[[Any], Future[Any]]] = getattr(servicer, "futures", {})
        keeps_messages: bool = getattr(servicer, "keeps_messages", True)
        unary = {name for name, method in service.methods_by_name.items() if not method.server_streaming}
        if not futures.keys() <= unary:
            raise ValueError(
                f"futures of {type(servicer).__name__} has {', '.join(sorted(futures.keys() - unary))}, which "
                f"{service.full_name} does not have as methods with one response"
            )
        for name, method in service.methods_by_name.items():
            handler = getattr(servicer, name, None)
            if handler is not None and not method.client_streaming:
                self._methods[f"/{service.full_name}/{name}"] = Method(
                    name=name,
                    handler=handler,
                    future=futures.get(name),
                    is_streaming=method.server_streaming,
                    request=method.input_type,
                    response=method.output_type,
                    keeps_messages=keeps_messages,
                )


def _not_found(request: object, context: grpc.ServicerContext) -> NoReturn:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


# -- one call ---------------------------------------------------------------------------------------------------------


class CallStatus(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    details: str
    is_local: bool = False
    """Whether the client cancelled the call."""


class CallContext(grpc.ServicerContext):
    """The state of one call.  It is the context that the handler gets; objects of the client refer to it.

    Args:
        method: The method that is called.
        timeout: The seconds until the deadline, or `None`.
        metadata: What the client sends.
        timer: Ends the call at its deadline if something waits for that: it is started with the first callback.
            Without one, the owner of this object calls `expire_if_due`.
    """

    def __init__(
        self,
        method: Method,
        timeout: float | None,
        metadata: tuple[Metadatum, ...] = (),
        timer: DeadlineTimer | None = None,
    ) -> None:
        self.method = method
        self.status: CallStatus | None = None
        self.response: Any = None
        self.sent_initial_metadata: tuple[Metadatum, ...] | None = None
        self.sent_trailing_metadata: tuple[Metadatum, ...] = ()
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._metadata = metadata
        self._timer = timer
        self._cancel_timer: Callable[[], object] | None = None
        # With a lock that its owner can take again, since the garbage collector may end a call (`Stream.__del__`) on a
        # thread that has it.
        self._changed = threading.Condition()
        self._callbacks: list[Callable[[], object]] | None = []
        self._metadata_callbacks: list[Callable[[], object]] = []
        self._code: grpc.StatusCode | None = None
        self._details: str | None = None

    # What the handler uses.

    def is_active(self) -> bool:
        """Return whether the call has neither ended nor passed its deadline."""
        self.expire_if_due()
        return self.status is None

    def time_remaining(self) -> Any:
        """Return the seconds until the deadline, or `None` if there is none."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def cancel(self) -> bool:
        """End the call with the status `CANCELLED`."""
        return self.finish(CallStatus(grpc.StatusCode.CANCELLED, "CANCELLED"))

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Have a function called when the call ends, on the thread that ends it.

        Returns:
            Whether it will be called: `False` if the call has ended already.
        """
        self.expire_if_due()
        with self._changed:
            if self._callbacks is None:
                return False
            self._callbacks.append(callback)
            if self._timer is not None and self._deadline is not None and self._cancel_timer is None:
                self._cancel_timer = self._timer.schedule(self._deadline, self.expire_if_due)
            return True

    def invocation_metadata(self) -> Any:
        """Return what the client sent; the entry `user-agent`, which gRPC adds, is not there."""
        return self._metadata

    def peer(self) -> str:
        """Name the client's address."""
        return "inprocess"

    def peer_identities(self) -> None:
        """Return `None`: the client is not authenticated."""

    def peer_identity_key(self) -> None:
        """Return `None`: the client is not authenticated."""

    def auth_context(self) -> dict[str, Any]:
        """Return no properties: the client is not authenticated."""
        return {}

    def set_compression(self, compression: grpc.Compression) -> None:
        """Ignore the compression, since nothing is serialised."""

    def disable_next_message_compression(self) -> None:
        """Ignore the compression, since nothing is serialised."""

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send the initial metadata, which is possible once and before the first response.

        Raises:
            ValueError: if they were sent before.
        """
        if self.sent_initial_metadata is not None:
            raise ValueError("Initial metadata no longer allowed!")
        self._set_initial_metadata(check_metadata(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Set the metadata that are sent with the status."""
        self.sent_trailing_metadata = check_metadata(trailing_metadata)

    def trailing_metadata(self) -> Any:
        """Return the metadata that will be sent with the status."""
        return self.sent_trailing_metadata

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call with a status; the handler does not continue.

        Raises:
            AbortError: always.
        """
        if code is grpc.StatusCode.OK:
            logger.error("abort() called with StatusCode.OK; returning UNKNOWN")
            code, details = grpc.StatusCode.UNKNOWN, ""
        # Kept, because the status counts even if the handler catches the error.
        self._code, self._details = code, details
        raise AbortError(code, details)

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status, its details and its trailing metadata.

        Raises:
            AbortError: always.
        """
        self.set_trailing_metadata(status.trailing_metadata)
        self.abort(status.code, status.details)

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the code that the call ends with."""
        self._code = code

    def code(self) -> grpc.StatusCode | None:
        """Return the code that was set, or `None`."""
        return self._code

    def set_details(self, details: str) -> None:
        """Set the details that the call ends with."""
        self._details = details

    def details(self) -> bytes | None:
        """Return the details that were set, encoded as by gRPC, or `None`."""
        return None if self._details is None else self._details.encode()

    # How a call ends.

    def finish(self, status: CallStatus) -> bool:
        """End the call, unless it has ended; only then is `False` returned."""
        with self._changed:
            callbacks = self._callbacks
            if self.status is not None or callbacks is None:
                return False
            self.status, self._callbacks = status, None
            if self.sent_initial_metadata is None:
                self.sent_initial_metadata = ()
            callbacks = [*self._metadata_callbacks, *callbacks]
            self._changed.notify_all()
        if self._cancel_timer is not None:
            self._cancel_timer()
        for callback in callbacks:
            _call_logging_errors(callback)
        return True

    def expire_if_due(self) -> None:
        """End the call if its deadline has passed."""
        if self.status is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self.finish(CallStatus(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def complete(self, response: Any = None) -> None:
        """End the call after its handler has returned: with its one response, or after the last one of a stream."""
        self.expire_if_due()
        if self._code is not None and self._code is not grpc.StatusCode.OK:
            self.finish(CallStatus(self._code, self._details or ""))
        elif self.method.is_streaming:
            self.finish(CallStatus(grpc.StatusCode.OK, ""))
        elif (message := self.to_client(response)) is not None:
            self.response = message
            self.finish(CallStatus(grpc.StatusCode.OK, ""))

    def fail(self, error: BaseException, activity: str = "calling application") -> None:
        """End the call after its handler has raised."""
        self.expire_if_due()
        if isinstance(error, AbortError):
            status = CallStatus(error.code, error.details)
        else:
            text = f"Exception {activity}: {_text_of(error)}"
            if self.status is None:  # afterwards it may be the result of the cancellation
                logger.error(text, exc_info=error)
            code = grpc.StatusCode.UNKNOWN if self._code is None else self._code
            status = CallStatus(code, text if self._details is None else self._details)
        self.finish(status)

    # Messages.

    def to_handler(self, request: Any, *, copy: bool) -> Any:
        """Return the request as the handler gets it; `None`, and the call has ended, if it is of the wrong type."""
        expected = self.method.request
        if expected is not None and getattr(request, "DESCRIPTOR", None) is not expected:
            details = f"Exception serializing request! {type(request).__name__} is not a {expected.full_name}."
            self.finish(CallStatus(grpc.StatusCode.INTERNAL, details))
            return None
        return _copy(request) if copy or self.method.keeps_messages else request

    def to_client(self, response: Any) -> Any:
        """Return a response as the client gets it; `None`, and the call has ended, if it is of the wrong type."""
        if getattr(response, "DESCRIPTOR", None) is not self.method.response:
            self.finish(CallStatus(grpc.StatusCode.INTERNAL, "Failed to serialize response!"))
            return None
        if self.sent_initial_metadata is None and self.method.is_streaming:  # otherwise the call ends now
            self._set_initial_metadata(())
        return _copy(response) if self.method.keeps_messages else response

    # Handlers.

    def run(self, request: Any) -> None:
        """Run the handler of a method with one response, on this thread, until the call has ended."""
        if not self.is_active():
            return
        try:
            # With context variables of its own, as on a server: those of the client stay the client's.
            response = contextvars.Context().run(self.method.handler, request, self)
        except Exception as error:
            self.fail(error)
        except BaseException:  # such as Ctrl-C, when the client waits on the main thread
            self.finish(CallStatus(grpc.StatusCode.CANCELLED, "the handler was interrupted"))
            raise
        else:
            self.complete(response)

    def start_future(self, function: Callable[[Any], Future[Any]], request: Any) -> None:
        """Have the call end with the future that a servicer returns for it."""
        if not self.is_active():
            return
        try:
            future = contextvars.Context().run(function, request)
        except Exception as error:
            self.fail(error)
        else:
            future.add_done_callback(self._end_with)
            self.add_callback(future.cancel)

    def _end_with(self, future: Future[Any]) -> None:
        if future.cancelled():
            self.finish(CallStatus(grpc.StatusCode.CANCELLED, "the servicer cancelled the call"))
        elif (error := future.exception()) is not None:
            self.fail(error)
        else:
            self.complete(future.result())

    # What the client's side waits for.

    def wait_for_status(self, timeout: float | None = None) -> CallStatus | None:
        """Wait until the call has ended; `None` if it has not, after a number of seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.status is not None, timeout)
        return self.status

    def wait_for_initial_metadata(self) -> tuple[Metadatum, ...]:
        """Wait until the handler has sent metadata or a response, or the call has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self.sent_initial_metadata is not None)
        return self.sent_initial_metadata or ()

    def add_metadata_callback(self, callback: Callable[[], object]) -> None:
        """Have a function called when `wait_for_initial_metadata` would return; perhaps twice, perhaps at once."""
        with self._changed:
            if self.sent_initial_metadata is None:
                self._metadata_callbacks.append(callback)
                return
        callback()

    def _set_initial_metadata(self, metadata: tuple[Metadatum, ...]) -> None:
        with self._changed:
            self.sent_initial_metadata = metadata
            callbacks, self._metadata_callbacks = self._metadata_callbacks, []
            self._changed.notify_all()
        for callback in callbacks:
            _call_logging_errors(callback)


class Responses:
    """The responses of one streaming call.  The handler runs on the thread that asks for the next one.

    So a response reaches the client without a change of threads.  A handler that waits must notice the end of the call
    by a callback of its context, as it must on a server; until it returns, the thread that asked stays with it.
    """

    def __init__(self, context: CallContext, request: Any) -> None:
        self._context = context
        self._request = request
        self._variables = contextvars.Context()
        self._iterator: Iterator[Any] | None = None
        self._ahead: list[Any] = []
        # Held while the handler runs.  If the call ends meanwhile, the thread of the handler closes the iterator.
        self._running = threading.Lock()
        context.add_callback(self._close_if_idle)

    def start(self) -> None:
        """Call the handler.  If it is a generator function, its code runs when the first response is asked for."""
        if not self._context.is_active():
            return
        try:
            self._iterator = iter(self._variables.run(self._context.method.handler, self._request, self._context))
        except Exception as error:
            self._context.fail(error)
        if not self._context.is_active():
            self._close_if_idle()

    def next(self) -> Any:
        """Return the next response; `None` if there is none, and then the call has ended."""
        with self._running:
            message = self._ahead.pop() if self._ahead else self._advance()
            status = self._context.status
            if status is not None and status.code is not grpc.StatusCode.OK:
                message = None
        if not self._context.is_active():
            self._close_if_idle()
        return message

    def read_ahead(self) -> None:
        """Run the handler up to its next response, which `next` will return; unless it is running already."""
        if self._running.acquire(blocking=False):
            try:
                if not self._ahead and (message := self._advance()) is not None:
                    self._ahead.append(message)
            finally:
                self._running.release()
            if not self._context.is_active():
                self._close_if_idle()

    def _advance(self) -> Any:
        context = self._context
        if self._iterator is None or not context.is_active():
            return None
        try:
            message = self._variables.run(next, self._iterator, None)
        except Exception as error:
            context.fail(error, "iterating responses")
        except BaseException:
            context.finish(CallStatus(grpc.StatusCode.CANCELLED, "the handler was interrupted"))
            raise
        else:
            if message is None:  # the end, as for gRPC
                context.complete()
            elif context.is_active():
                return context.to_client(message)
        return None

    def _close_if_idle(self) -> None:
        # Without blocking, since a finalizer may call this on a thread that has the lock.
        if self._running.acquire(blocking=False):
            try:
                iterator, self._iterator = self._iterator, None
                close = getattr(iterator, "close", None)
                if close is not None:
                    _call_logging_errors(lambda: self._variables.run(close))
            finally:
                self._running.release()


def _copy(message: Any) -> Any:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"{type(error).__name__}, which cannot be printed"


def _call_logging_errors(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:
        logger.exception("Exception calling callback!")
