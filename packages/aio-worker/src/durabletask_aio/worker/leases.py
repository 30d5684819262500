"""`Leases`: the work items that one worker has, so that a broken connection loses none of them.

An engine gives an item to a worker with a lease, which ends with the stream that the item came by: the engine cannot
know whether the worker still exists.  So a break of the connection makes every item run again that the worker is
working on, and drops the results.  With the engine of this project (`durabletask-aio-engine`) it does not:

* **Name.**  The worker takes a random name at each start and sends it when it opens a stream.  The engine keeps the
  leases of a worker with a name for 30 seconds after its stream has ended.
* **Held leases.**  With each stream the worker lists the leases it still has.  The engine moves them to the new stream,
  and gives all others of that name to other workers: those items were lost on the way.
* **Lost leases.**  The engine answers which of the listed leases have ended, because the worker was away for too long
  or the engine was restarted.  The worker does not begin those items: another worker has them.  While the connection
  is broken, it begins none of those that wait in a queue or for a thread.
* **Retries.**  A result that cannot be delivered because the connection is broken is delivered again for 30 seconds.
  The engine takes a result once, so it does no harm if the first attempt had arrived.  The call with which upstream
  connects, `Hello`, is retried as well.
* **Leaving.**  A worker that stops opens a last stream, which brings no items.  What the worker does not list there
  goes to other workers at once, and so does, when that stream ends, what it has not answered.

A lease is held from the submission of its item until the function that executes or abandons it has returned.  Items
that upstream has received and does not submit, because the stream has ended, are not held.

The answer to `Hello` shows whether the engine is this project's, and a completion token whether its result is for such
an engine.  With other engines nothing is sent, wrapped or retried.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from durabletask_aio.worker import dapr
from durabletask_aio.worker.reconnecting import MAX_PAUSE, jittered

if TYPE_CHECKING:
    _Interceptors = object
else:

    class _Interceptors(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
        pass


RETRY_PERIOD = 30.0
"""Seconds for which the delivery of a result is tried again; the engine keeps the lease for as long."""

FIRST_PAUSE = 0.05
"""Seconds between the first two attempts; the pauses double up to `MAX_PAUSE`, and each is jittered."""

ANSWER_TIMEOUT = 1.0
"""Seconds to wait until the engine has noted what is held."""

ENGINE = "durabletask-aio-engine"
_HELD_LEASES = "durabletask-aio-holding-bin"
_LOST_LEASES = "durabletask-aio-lost-bin"
_KEPT_LEASES = "durabletask-aio-kept-bin"
_STREAM_NUMBER = "durabletask-aio-stream"
_LEAVING = "durabletask-aio-leaving"

_RETRIED = frozenset(
    {
        "CompleteOrchestratorTask",
        "CompleteActivityTask",
        "CompleteEntityTask",
        "AbandonTaskOrchestratorWorkItem",
        "AbandonTaskActivityWorkItem",
        "AbandonTaskEntityWorkItem",
    }
)

_TOKEN = re.compile("[tae]:([0-9a-f]{16}):")


def lease_of(token: str) -> str | None:
    """Return the lease that a completion token names, or `None` if it is not of an engine of this project."""
    found = _TOKEN.match(token)
    return None if found is None else found[1]


def is_retried(token: str, error: Exception) -> bool:
    """Whether the delivery of a result that has failed with `error` is tried again."""
    status: Any = error
    return (
        lease_of(token) is not None
        and isinstance(error, grpc.RpcError)
        and status.code() is grpc.StatusCode.UNAVAILABLE
    )


class Leases:
    """The leases of one worker.  Thread-safe."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self.interceptor = LeaseInterceptor(self)
        self.is_known_to_engine = False
        """Whether the engine understands names and leases."""
        self._lock = threading.Lock()
        self._name = ""
        self._held: set[str] = set()
        self._lost: set[str] = set()
        """Those of the held leases that have ended."""
        self._stopping = threading.Event()
        self._has_left = False
        self._connected = threading.Event()
        """Set unless the last stream has ended; without one to an engine of this project, too."""
        self._connected.set()
        self._is_checked = False
        """Whether the engine has been found to be no Dapr sidecar, or one that speaks this protocol."""
        self.on_refusal: Callable[[RuntimeError], None] = lambda error: None
        """Called with the error if the worker cannot work with what is at its address."""
        self._waiting: list[Callable[[], None]] = []
        """What is called when the connection is there again."""
        self._current: object = None
        self._stream_count = 0
        self._open_stream: Callable[[], Any] | None = None
        self._last_stream: Any = None

    # -- lifecycle -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take a new name; called when the worker starts."""
        # Not when the worker is made: the process may be forked between the two.
        self._name = secrets.token_hex(8)
        self._held.clear()
        self._lost.clear()
        self._stopping.clear()
        self._set_connected()
        self.is_known_to_engine = self._has_left = self._is_checked = False

    def stop(self) -> None:
        """End all retries; called when the worker begins to stop."""
        with self._lock:
            self._stopping.set()
        self._set_connected()

    def close(self) -> None:
        """End the last stream; called when the worker has stopped."""
        last, self._last_stream = self._last_stream, None
        self._open_stream = self._current = None
        if last is not None:
            last.cancel()

    # -- what is held --------------------------------------------------------------------------------------------

    @property
    def held(self) -> frozenset[str]:
        """The leases that the worker has now."""
        with self._lock:
            return frozenset(self._held)

    def hold(self, lease: str) -> bool:
        """Hold a lease until `release`, and return whether the item may be executed."""
        with self._lock:
            if self._has_left:
                return False
            self._held.add(lease)
            return True

    def is_lost(self, lease: str) -> bool:
        """Whether a held lease has ended: another worker has the item."""
        with self._lock:
            return lease in self._lost

    def release(self, lease: str) -> None:
        """Note that an item has been executed or abandoned."""
        with self._lock:
            self._held.discard(lease)
            self._lost.discard(lease)

    # -- the connection ------------------------------------------------------------------------------------------

    def wait_until_connected(self) -> None:
        """Wait until the engine has answered which leases have ended, if the connection is broken."""
        self._connected.wait()

    def call_when_connected(self, function: Callable[[], None]) -> None:
        """Call a function: now, or once the engine has answered which leases have ended."""
        with self._lock:
            if not self._connected.is_set():
                self._waiting.append(function)
                return
        function()

    def _set_connected(self) -> None:
        with self._lock:
            self._connected.set()
            waiting, self._waiting = self._waiting, []
        for function in waiting:
            function()

    # -- calls to the engine -------------------------------------------------------------------------------------

    def deliver(self, call: Callable[[], Any]) -> Any:
        """Make a call, and make it again while the engine cannot be reached.

        Args:
            call: Makes the call and returns its outcome.

        Returns:
            The last outcome: of success, of another failure, or of the attempt after which the time was over or the
            worker stopped.
        """
        end = time.monotonic() + RETRY_PERIOD
        pause = FIRST_PAUSE
        while True:
            outcome = call()
            if outcome.code() is not grpc.StatusCode.UNAVAILABLE:
                return outcome
            left = end - time.monotonic()
            if left <= 0 or self._stopping.wait(min(jittered(pause), left)):
                return outcome
            pause = min(pause * 2, MAX_PAUSE)

    def connect_again(self, call: Callable[[], Any]) -> Any:
        """Make the first call of a connection as `deliver` does, and log if the engine cannot be reached."""
        outcome = call()
        if outcome.code() is grpc.StatusCode.UNAVAILABLE:
            self._logger.warning("The engine is unavailable: retrying for %.0f seconds", RETRY_PERIOD)
            outcome = self.deliver(call)
        return outcome

    def open_stream(self, open_stream: Callable[[str, list[tuple[str, str | bytes]]], Any]) -> Any:
        """Open a stream of work items.

        Args:
            open_stream: Opens it under a name and with metadata.

        Returns:
            The stream.
        """

        def open_again() -> Any:
            with self._lock:
                held = b"".join(bytes.fromhex(lease) for lease in sorted(self._held))
                leaving = self._has_left
                self._stream_count += 1
                number = self._stream_count
            metadata: list[tuple[str, str | bytes]] = [(_HELD_LEASES, held), (_STREAM_NUMBER, str(number))]
            if leaving:
                metadata.append((_LEAVING, "1"))
            return open_stream(self._name, metadata)

        self._open_stream = open_again
        stream = open_again()
        if self.held:
            # What is queued begins when this returns.
            self._wait_for_answer(stream)
        self._current = stream
        self._set_connected()
        return _WorkItems(stream, self._leave, lambda: self._ended(stream))

    def refuse_dapr(self, ask: Callable[[], Any]) -> None:
        """Look whether an engine that is not of this project is a Dapr sidecar; once for each start.

        One that speaks this protocol is named in a warning.

        Args:
            ask: Asks for the metadata of the sidecar, and returns the outcome.

        Raises:
            RuntimeError: It is one that does not speak this protocol.
        """
        if not self._is_checked:
            outcome = ask()
            if outcome.code() is not grpc.StatusCode.OK:
                self._is_checked = True  # Every engine of this protocol answers that it does not know the call.
                return
            version = dapr.runtime_version(outcome.result().SerializeToString())
            if dapr.speaks_this_protocol(version):
                self._is_checked = True
                self._logger.warning(dapr.warning(version))
                return
            message = dapr.refusal(version)
            self._logger.error(message)
            self.on_refusal(RuntimeError(message))
            raise RuntimeError(message)

    def other_engine(self) -> None:
        """Note that the next stream is of another engine, perhaps where one of this project was before."""
        self._set_connected()

    def _ended(self, stream: object) -> None:
        with self._lock:
            if stream is self._current and not self._stopping.is_set():
                self._connected.clear()

    def _leave(self) -> None:
        """Tell the engine that the worker stops; called when upstream cancels the stream, and will open no other."""
        open_again = self._open_stream
        if not self._stopping.is_set() or open_again is None:
            return  # Upstream cancels the stream also before it opens another one.
        with self._lock:
            if self._has_left:
                return
            self._has_left = True
        try:
            self._last_stream = stream = open_again()
        except ValueError:  # Upstream has closed the channel.
            return
        # Upstream closes the channel next, if nothing is being executed.
        self._wait_for_answer(stream)

    def _wait_for_answer(self, stream: Any) -> None:
        """Wait until the engine has noted what is held, and note which leases have ended."""
        before = self.held

        def wait() -> None:
            answer: dict[str, Any] = dict(stream.initial_metadata() or ())
            with self._lock:
                # What is submitted while this waits is not meant.
                listed = self._held & before
                if _KEPT_LEASES in answer:
                    self._lost |= listed - _leases_in(answer[_KEPT_LEASES])
                else:
                    self._lost |= listed & _leases_in(answer.get(_LOST_LEASES, b""))

        # In a thread of its own, since gRPC has no limit of time for this wait.
        waiting = threading.Thread(target=wait, name="durabletask-aio-leases", daemon=True)
        waiting.start()
        waiting.join(ANSWER_TIMEOUT)


def _leases_in(data: bytes) -> set[str]:
    return {data[start : start + 8].hex() for start in range(0, len(data), 8)}


class _WorkItems:
    """A stream of work items that calls functions before it is cancelled, and after it has ended."""

    def __init__(self, call: Any, before_cancel: Callable[[], None], after_end: Callable[[], None]) -> None:
        self._call = call
        self._before_cancel = before_cancel
        self._after_end = after_end

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._call
        finally:
            self._after_end()

    def cancel(self) -> Any:
        """Cancel the call."""
        self._before_cancel()
        return self._call.cancel()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class _CallDetails(NamedTuple):
    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class LeaseInterceptor(_Interceptors):
    """Adds what a worker says of its leases to its calls, and retries the delivery of its results."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._starting = threading.local()

    def start(self, call: Callable[[], Any]) -> Any:
        """Start a call that returns a future, and return it; the interceptor does not wait for it or try it again."""
        self._starting.is_future = True
        try:
            return call()
        finally:
            self._starting.is_future = False

    def intercept_unary_unary(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        """Note from `Hello` which engine this is; retry what delivers a result."""
        if getattr(self._starting, "is_future", False):
            return continuation(details, request)
        method = _name(details.method)
        if method in _RETRIED and lease_of(request.completionToken) is not None:
            return self._leases.deliver(lambda: continuation(details, request))
        if method == "Hello":

            def ask(method: str) -> Any:
                changed = _CallDetails(method, dapr.TIMEOUT, details.metadata, details.credentials, None, None)
                return continuation(changed, request)

            return self._connect(lambda: continuation(details, request), ask)
        return continuation(details, request)

    def _connect(self, call: Callable[[], Any], ask: Callable[[str], Any]) -> Any:
        # With upstream's pauses, of up to 30 seconds, the worker could come back when its leases have just ended.
        leases = self._leases
        outcome = leases.connect_again(call) if leases.is_known_to_engine else call()
        if outcome.code() is grpc.StatusCode.OK:
            leases.is_known_to_engine = any(key == ENGINE for key, _ in outcome.trailing_metadata() or ())
            if not leases.is_known_to_engine:
                leases.refuse_dapr(lambda: ask(dapr.METADATA_METHOD))
        return outcome

    def intercept_unary_stream(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        """Add name and leases to `GetWorkItems`."""
        if _name(details.method) != "GetWorkItems":
            return continuation(details, request)
        if not self._leases.is_known_to_engine:
            self._leases.other_engine()
            return continuation(details, request)

        def open_stream(name: str, metadata: list[tuple[str, str | bytes]]) -> Any:
            request.worker_instance_id = name
            changed = _CallDetails(
                details.method,
                details.timeout,
                [*(details.metadata or ()), *metadata],
                details.credentials,
                getattr(details, "wait_for_ready", None),
                getattr(details, "compression", None),
            )
            return continuation(changed, request)

        return self._leases.open_stream(open_stream)


def _name(method: str | bytes) -> str:
    text = method.decode() if isinstance(method, bytes) else method
    return text.rpartition("/")[2]
