"""The local engine: a gRPC server on this machine that workers and clients connect to as to any other.

It listens on the loopback addresses only and forgets everything when it is reset or its process ends.  Nothing about
it is durable; it is for development and tests.
"""

# ruff: noqa: N802 - methods named as the RPCs they answer

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, cast

import grpc
from durabletask.client import OrchestrationStatus

from durabletask_aio.testing._upstream import OrchestrationInstance, StateWaiter, add_servicer, pb
from durabletask_aio.testing.clock import SystemClock
from durabletask_aio.testing.engine import Engine
from durabletask_aio.testing.handouts import Taker
from durabletask_aio.testing.history import History
from durabletask_aio.testing.loopback import free_port, has_ipv6_loopback, port_in_use
from durabletask_aio.testing.threads import DaemonThreads
from durabletask_aio.testing.wire import to_bytes

_logger = logging.getLogger("durabletask.aio.testing")

_LARGEST_MESSAGE = 256 * 1024 * 1024

_SERVER_OPTIONS = [
    ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
    ("grpc.max_send_message_length", _LARGEST_MESSAGE),
    # With it, two engines on one port would silently share the connections.
    ("grpc.so_reuseport", 0),
    # A process that is stopped, or a container that is paused, keeps its connection open: what it holds goes to others
    # once it has left a ping unanswered.  A worker that only takes long answers pings, as does one in a debugger.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # newer gRPC goes by this one, whose default is a minute
    ("grpc.http2.max_pings_without_data", 0),
]

_new_server = cast("Callable[..., grpc.Server]", grpc.server)  # pyright: ignore[reportUnknownMemberType]

_stream_handler = cast("Callable[..., Any]", grpc.unary_stream_rpc_method_handler)  # pyright: ignore[reportUnknownMemberType]

_HEARTBEAT = 1.0
"""Seconds after which a thread that waits for a client checks whether the client is still connected."""


class LocalEngine(Engine):
    """The engine behind a gRPC server.  Most programs use `local_backend`, which starts and stops one."""

    clock: SystemClock

    def __init__(self, port: int = 0) -> None:
        super().__init__(SystemClock())
        self._wanted_port = port
        self._streams: set[Taker] = set()

    def start(self) -> str:
        """Listen on 127.0.0.1 and, where there is one, ::1; returns `"localhost:PORT"`.

        `OSError` if the port is taken.  After `stop` it listens on the same port again and carries on with
        the instances it had.
        """
        if self._server is not None:
            return self.address
        self._shutdown_event.clear()
        self._executor = DaemonThreads("durabletask-aio-engine")
        self._server, self._port = _listen(self._executor, self._port or self._wanted_port, self)
        self._server.start()
        self.clock.start()
        return self.address

    @property
    def port(self) -> int:
        return self._port

    @property
    def address(self) -> str:
        return f"localhost:{self._port}"

    def stop(self, grace: float | None = None) -> None:
        """Stop listening, keep the instances.  Work items that were out go back to their queues."""
        if self._server is None:
            return
        super().stop(grace)
        self._executor.shutdown(wait=True)
        self.clock.stop()

    def GetWorkItems(self, request: pb.GetWorkItemsRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        filters = self._parse_work_item_filters(request)
        taker = Taker()
        self._streams.add(taker)
        # The callback comes when the connection breaks; the generator is closed only once gRPC next asks for an item.
        context.add_callback(lambda: self.release(taker))
        try:
            while self._is_wanted(context):
                ticket = self.signal.ticket()
                with self._lock:
                    handout = self.take(taker, filters)
                    item = None if handout is None else handout.wire_format
                if item is not None:
                    yield item
                else:
                    self.signal.wait_since(ticket, _HEARTBEAT)
        finally:
            self.release(taker)

    def release(self, taker: Taker) -> None:
        self._streams.discard(taker)
        super().release(taker)

    @property
    def connected_workers(self) -> int:
        """How many workers have their stream of work items open."""
        return len(self._streams)

    def WaitForInstanceStart(self, request: pb.GetInstanceRequest, context: grpc.ServicerContext) -> Any:
        return self._answer_when(request, context, lambda instance: instance.status != pb.ORCHESTRATION_STATUS_PENDING)

    def WaitForInstanceCompletion(self, request: pb.GetInstanceRequest, context: grpc.ServicerContext) -> Any:
        return self._answer_when(request, context, lambda instance: self._is_terminal_status(instance.status))

    def _answer_when(
        self,
        request: pb.GetInstanceRequest,
        context: grpc.ServicerContext,
        reached: Callable[[OrchestrationInstance], bool],
    ) -> pb.GetInstanceResponse:
        # Upstream gives up after thirty seconds if the client sets no deadline; the client asked to wait.
        waiter = StateWaiter(predicate=reached)
        with self._lock:
            instance = self._instances.get(request.instanceId)
            if instance is not None and reached(instance):
                return self._build_instance_response(instance, request.getInputsAndOutputs)
            self._state_waiters.setdefault(request.instanceId, []).append(waiter)
        context.add_callback(waiter.event.set)
        while not waiter.event.wait(_HEARTBEAT) and self._is_wanted(context):
            pass
        with self._lock:
            self._forget_waiter(request.instanceId, waiter)
            if waiter.result is None:
                return pb.GetInstanceResponse(exists=False)
            return self._build_instance_response(waiter.result, request.getInputsAndOutputs)

    def _forget_waiter(self, instance_id: str, waiter: StateWaiter) -> None:
        waiters = self._state_waiters.get(instance_id, [])
        if any(each is waiter for each in waiters):
            waiters[:] = [each for each in waiters if each is not waiter]
            if not waiters:
                del self._state_waiters[instance_id]

    def _is_wanted(self, context: grpc.ServicerContext) -> bool:
        return context.is_active() and not self._shutdown_event.is_set()


if TYPE_CHECKING:
    _Interceptor = object
else:
    _Interceptor = grpc.ServerInterceptor


class _WorkItemsAsBytes(_Interceptor):
    """Lets the stream of work items carry bytes as they are, next to messages."""

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Called by gRPC."""
        handler = continuation(handler_call_details)
        if handler is None or not handler_call_details.method.endswith("/GetWorkItems"):
            return handler
        return _stream_handler(handler.unary_stream, handler.request_deserializer, to_bytes)


def _listen(executor: Executor, port: int, engine: LocalEngine) -> tuple[grpc.Server, int]:
    """A server bound to loopback only: the same port on both address families, or none."""
    for _ in range(20):
        # Asked with a plain socket first, since gRPC writes its own report of a failure to standard error.
        found = free_port(port)
        if found is not None:
            server = _new_server(executor, options=_SERVER_OPTIONS, interceptors=[_WorkItemsAsBytes()])
            add_servicer(engine, server)
            try:
                server.add_insecure_port(f"127.0.0.1:{found}")
                if has_ipv6_loopback():
                    server.add_insecure_port(f"[::1]:{found}")
                return server, found
            except RuntimeError:
                server.stop(None)  # the port was taken meanwhile
        if port:
            break
    raise port_in_use(port, "the local engine")


class LocalBackend:
    """A local engine that workers and clients connect to over gRPC; nothing in it is durable.

    It runs for the length of a `with` or `async with` block, or from `start` to `stop`.  It listens on the loopback
    addresses only, and its methods are thread-safe.

    Attributes:
        engine: the engine behind the server.
    """

    def __init__(self, port: int = 0) -> None:
        """Make a backend that does not listen yet.

        Args:
            port: the port to listen on; 0 takes a free one.
        """
        self.engine = LocalEngine(port)

    @property
    def port(self) -> int:
        """The port it listens on; `RuntimeError` before the first start."""
        self._check_started()
        return self.engine.port

    @property
    def address(self) -> str:
        """`"localhost:PORT"`, for the `host_address` of workers and clients; `RuntimeError` before the first start."""
        self._check_started()
        return self.engine.address

    def _check_started(self) -> None:
        if not self.engine.port:
            raise RuntimeError(
                "the local engine has not been started; write `with local_backend() as backend:` or call its start()"
            )

    def start(self) -> LocalBackend:
        """Start listening; a second call does nothing.

        Returns:
            This object.

        Raises:
            OSError: if the port is taken.
        """
        self.engine.start()
        return self

    def stop(self) -> None:
        """Stop listening; a second call does nothing.

        The instances stay until `reset` is called, and a second `start` listens on the same port.
        """
        self.engine.stop()

    def reset(self) -> None:
        """Delete every instance, entity and timer.  Connected workers stay connected."""
        self.engine.reset()

    def instances(self) -> dict[str, OrchestrationStatus]:
        """List the instances.

        Returns:
            The status of each instance by its id, in the order of creation.
        """
        return {each.instance_id: OrchestrationStatus(each.status) for each in self.engine.all_instances()}

    def history(self, instance_id: str) -> History:
        """Return the history of an instance.

        Args:
            instance_id: the id of the instance.

        Returns:
            The history of its latest execution so far.

        Raises:
            KeyError: if there is no such instance; the message lists the instances.
        """
        try:
            return History(self.engine.history_of(instance_id), instance_id=instance_id)
        except KeyError:
            known = ", ".join(self.instances()) or "none"
            raise KeyError(f"no instance {instance_id!r} on the local engine; there are: {known}") from None

    def wait_until(self, condition: Callable[[], bool], timeout: float = 30.0) -> None:
        """Block until a condition holds.

        Args:
            condition: called a hundred times a second.
            timeout: seconds to wait at most.

        Raises:
            TimeoutError: if `condition()` has not become true by then.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the condition did not come true within {timeout:g} seconds")
            time.sleep(0.01)

    def __enter__(self) -> LocalBackend:  # noqa: PYI034 - typing has Self from 3.11 on
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    async def __aenter__(self) -> LocalBackend:  # noqa: PYI034
        return self.start()

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.to_thread(self.stop)


def local_backend(port: int = 0) -> LocalBackend:
    """Make a local engine, which is started by `with` or `async with` and stopped at the end of the block.

    Example:
        ```python
        with local_backend() as backend, TaskHubGrpcWorker(host_address=backend.address) as worker:
            ...
        ```

    Args:
        port: the port to listen on, on the loopback addresses; 0 takes a free one.

    Returns:
        A backend that does not listen yet.
    """
    return LocalBackend(port)
