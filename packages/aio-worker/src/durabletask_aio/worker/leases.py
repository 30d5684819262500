"""`Leases`: the work items that one worker has, so that a broken connection loses none of them.

An engine gives an item to a worker with a lease, which ends with the stream that the item came by: the engine cannot
know whether the worker still exists.  So a break of the connection makes every item run again that the worker is
working on, and drops the results.  With the engine of this project (`durabletask-aio-engine`) it does not:

* **Name.**  The worker takes a random name at each start and sends it when it opens a stream.  The engine keeps the
  leases of a worker with a name for 30 seconds after its stream has ended.
* **Held leases.**  With each stream the worker lists the leases it still has.  The engine moves them to the new stream,
  and gives all others of that name to other workers: those items got lost on the way.
* **Retries.**  A result that cannot be delivered because the connection is broken is delivered again for 30 seconds.
  The engine takes a result once, so it does no harm if the first attempt had arrived.
* **Leaving.**  A worker that stops opens a last stream, which brings no items.  What the worker does not list there
  goes to other workers at once, and so does, when that stream ends, what it has not answered.

A lease is held from the submission of its item until the item's handler, or the one that abandons it, has returned.
Items that upstream has received and does not submit, because the stream has ended, are not held.

The answer to `Hello` shows whether the engine is this project's, and a completion token whether its result is for such
an engine.  With other engines nothing is sent, wrapped or retried.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

if TYPE_CHECKING:
    from durabletask_aio.worker._upstream import SubmitWorkItem

    _Interceptors = object
else:

    class _Interceptors(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
        pass


RETRY_PERIOD = 30.0
"""Seconds for which the delivery of a result is tried again; the engine keeps the lease for as long."""

FIRST_PAUSE = 0.05
MAX_PAUSE = 2.0
"""Seconds between two attempts, which double from the first to the maximum."""

LEAVE_TIMEOUT = 1.0
"""Seconds to wait until the engine has noted that the worker stops."""

_ENGINE = "durabletask-aio-engine"
_HELD_LEASES = "durabletask-aio-holding-bin"
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


class Leases:
    """The leases of one worker.  Thread-safe."""

    def __init__(self) -> None:
        self.interceptor = LeaseInterceptor(self)
        self.is_known_to_engine = False
        """Whether the engine understands names and leases."""
        self._lock = threading.Lock()
        self._name = ""
        self._held: set[str] = set()
        self._stopping = threading.Event()
        self._has_left = False
        self._open_stream: Callable[[], Any] | None = None
        self._last_stream: Any = None

    # -- lifecycle -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take a new name; called when the worker starts."""
        # Not when the worker is made: the process may be forked between the two.
        self._name = secrets.token_hex(8)
        self._held.clear()
        self._stopping.clear()
        self.is_known_to_engine = self._has_left = False

    def stop(self) -> None:
        """End all retries; called when the worker begins to stop."""
        self._stopping.set()

    def close(self) -> None:
        """End the last stream; called when the worker has stopped."""
        last, self._last_stream = self._last_stream, None
        self._open_stream = None
        if last is not None:
            last.cancel()

    # -- what is held --------------------------------------------------------------------------------------------

    @property
    def held(self) -> frozenset[str]:
        """The leases that the worker has now."""
        with self._lock:
            return frozenset(self._held)

    def submission(self, submit: SubmitWorkItem) -> SubmitWorkItem:
        """Wrap upstream's `submit`, so that the lease of an item is held until the item has been handled."""

        def submit_item(handler: Any, cancel: Any, request: Any, stub: Any, token: str) -> None:
            lease = lease_of(token)
            if lease is None:
                submit(handler, cancel, request, stub, token)
            elif not self._hold(lease):
                # Received after the worker has said that it leaves: the engine has given the item to another one.
                cancel(request, stub, token)
            else:
                try:
                    submit(self._releasing(lease, handler), self._releasing(lease, cancel), request, stub, token)
                except BaseException:
                    self._release(lease)
                    raise

        return submit_item

    def _releasing(self, lease: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        def handle(*args: Any) -> Any:
            try:
                return handler(*args)
            finally:
                self._release(lease)

        return handle

    def _hold(self, lease: str) -> bool:
        with self._lock:
            if self._has_left:
                return False
            self._held.add(lease)
            return True

    def _release(self, lease: str) -> None:
        with self._lock:
            self._held.discard(lease)

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
            if left <= 0 or self._stopping.wait(min(pause, left)):
                return outcome
            pause = min(pause * 2, MAX_PAUSE)

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
            metadata: list[tuple[str, str | bytes]] = [(_HELD_LEASES, held)]
            if leaving:
                metadata.append((_LEAVING, "1"))
            return open_stream(self._name, metadata)

        self._open_stream = open_again
        return _WorkItems(open_again(), self._leave)

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
        # The channel may be closed next.  In a thread of its own, since gRPC has no limit of time for this wait.
        waiting = threading.Thread(target=stream.initial_metadata, name="durabletask-aio-leave", daemon=True)
        waiting.start()
        waiting.join(LEAVE_TIMEOUT)


class _WorkItems:
    """A stream of work items whose reader notices when it is cancelled."""

    def __init__(self, call: Any, before_cancel: Callable[[], None]) -> None:
        self._call = call
        self._before_cancel = before_cancel

    def __iter__(self) -> Iterator[Any]:
        return iter(self._call)

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

    def intercept_unary_unary(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        """Note from `Hello` which engine this is; retry what delivers a result."""
        method = _name(details.method)
        if method in _RETRIED and lease_of(request.completionToken) is not None:
            return self._leases.deliver(lambda: continuation(details, request))
        outcome = continuation(details, request)
        if method == "Hello" and outcome.code() is grpc.StatusCode.OK:
            self._leases.is_known_to_engine = any(key == _ENGINE for key, _ in outcome.trailing_metadata() or ())
        return outcome

    def intercept_unary_stream(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        """Add name and leases to `GetWorkItems`."""
        if _name(details.method) != "GetWorkItems" or not self._leases.is_known_to_engine:
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
