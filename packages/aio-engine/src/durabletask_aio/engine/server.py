"""The engine behind a gRPC server: any worker and client, of any language."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc

from durabletask_aio.engine._upstream import pb_grpc
from durabletask_aio.engine.encoding import to_bytes
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.loopback import free_port, has_ipv6_loopback, port_in_use
from durabletask_aio.engine.management.rpc import add_to_server
from durabletask_aio.engine.management.service import ManagementService
from durabletask_aio.engine.service import TaskHubService
from durabletask_aio.engine.threads import DaemonThreads

_MAX_MESSAGE = 256 * 1024 * 1024
_MAX_METADATA = 1024 * 1024

_OPTIONS = [
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.max_send_message_length", _MAX_MESSAGE),
    # A worker that comes back lists what it holds in metadata, 11 bytes an item; the default is 8 KiB.
    ("grpc.max_metadata_size", _MAX_METADATA),
    ("grpc.absolute_max_metadata_size", _MAX_METADATA),
    # With it, two engines on one port would share the connections.
    ("grpc.so_reuseport", 0),
    # A process that is stopped, or a container that is paused, keeps its connection open: its leases end once it has
    # left a ping unanswered.  A worker that only takes long answers pings, as does one in a debugger.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # newer gRPC reads this option, whose default is a minute
    ("grpc.http2.max_pings_without_data", 0),
]

_new_server = cast("Callable[..., grpc.Server]", grpc.server)  # pyright: ignore[reportUnknownMemberType]
_stream_handler = cast("Callable[..., Any]", grpc.unary_stream_rpc_method_handler)  # pyright: ignore[reportUnknownMemberType]

if TYPE_CHECKING:
    _Interceptor = object
else:
    _Interceptor = grpc.ServerInterceptor


@dataclass(frozen=True)
class Access:
    """Who may connect, and how.

    Attributes:
        host: the address to listen on; the loopback addresses by default.
        certificate: PEM bytes of the server's certificate chain, for TLS.
        key: PEM bytes of its private key.
        insecure: whether to listen without TLS on an address that others can reach.
        token: what a client has to send as `authorization: Bearer TOKEN`, `None` for no such check.
    """

    host: str = "localhost"
    certificate: bytes | None = None
    key: bytes | None = None
    insecure: bool = False
    token: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("TLS takes a certificate and its private key: give both, or neither")
        if not self.is_local and self.certificate is None and not self.insecure:
            raise ValueError(
                f"{self.host} can be reached by others: give a certificate and a key for TLS, or say that it is to be "
                "insecure"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class _WorkItemsAsBytes(_Interceptor):
    """Lets the stream of work items carry bytes as they are."""

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Replace the serializer of `GetWorkItems`."""
        handler = continuation(handler_call_details)
        if handler is None or not handler_call_details.method.endswith("/GetWorkItems"):
            return handler
        return _stream_handler(handler.unary_stream, handler.request_deserializer, _as_it_is)


def _as_it_is(encoded: bytes) -> bytes:
    return encoded


class _BearerToken(_Interceptor):
    """Refuses calls without the token."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

        def refuse(request: Any, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "this engine asks for a bearer token")

        self._refuse = cast("Any", grpc).unary_unary_rpc_method_handler(refuse)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Pass a call on, or refuse it."""
        for key, value in handler_call_details.invocation_metadata:
            given = value if isinstance(value, bytes) else value.encode()
            if key == "authorization" and hmac.compare_digest(given, self._expected):
                return continuation(handler_call_details)
        return self._refuse


class Server:
    """A gRPC server in front of a kernel.  Thread-safe."""

    def __init__(
        self,
        kernel: Kernel,
        port: int = 0,
        access: Access | None = None,
        *,
        who: str = "the engine",
    ) -> None:
        """Make a server that does not listen yet.

        Args:
            kernel: the engine.
            port: where to listen; 0 takes a free port.
            access: who may connect; this machine by default.
            who: for the message that the port is in use.
        """
        self.kernel = kernel
        self.access = access or Access()
        self.service = TaskHubService(kernel, encode=to_bytes)
        self._port = port
        self._who = who
        self._server: grpc.Server | None = None
        self._executor: DaemonThreads | None = None

    @property
    def port(self) -> int:
        """Where it listens, or has been told to."""
        return self._port

    @property
    def address(self) -> str:
        """What workers and clients take as `host_address`."""
        return f"{self.access.host}:{self._port}"

    def start(self) -> str:
        """Listen.

        Returns:
            The address.

        Raises:
            OSError: if the port is taken.
        """
        if self._server is None:
            self._executor = DaemonThreads("durabletask-aio-engine")
            self._server, self._port = self._listen(self._executor)
            self._server.start()
        return self.address

    def _listen(self, executor: Executor) -> tuple[grpc.Server, int]:
        if self.access.host != "localhost":
            server = self._new(executor)
            try:
                port = self._add_port(server, f"{self.access.host}:{self._port}")
            except RuntimeError:
                port = 0
            if not port:
                raise port_in_use(self._port, self._who)
            return server, port
        # The same port on both address families, since clients connect to "localhost", or none.
        for _ in range(20):
            # Tried with a plain socket first, since gRPC writes its own report of a failure to standard error.
            found = free_port(self._port)
            if found is not None:
                server = self._new(executor)
                try:
                    self._add_port(server, f"127.0.0.1:{found}")
                    if has_ipv6_loopback():
                        self._add_port(server, f"[::1]:{found}")
                    return server, found
                except RuntimeError:
                    server.stop(None)  # another program has taken it meanwhile
            if self._port:
                break
        raise port_in_use(self._port, self._who)

    def _new(self, executor: Executor) -> grpc.Server:
        interceptors: list[Any] = [_WorkItemsAsBytes()]
        if self.access.token is not None:
            interceptors.append(_BearerToken(self.access.token))
        server = _new_server(executor, options=_OPTIONS, interceptors=interceptors)
        pb_grpc.add_TaskHubSidecarServiceServicer_to_server(self.service, server)
        add_to_server(ManagementService(self.kernel), server)
        return server

    def _add_port(self, server: grpc.Server, address: str) -> int:
        if self.access.certificate is None:
            return server.add_insecure_port(address)
        credentials = cast("Any", grpc).ssl_server_credentials([(self.access.key, self.access.certificate)])
        return server.add_secure_port(address, credentials)

    def stop(self, grace: float | None = None) -> None:
        """Stop listening: new calls are refused.

        Args:
            grace: seconds for calls that run; `None` ends them at once.
        """
        server, self._server = self._server, None
        if server is None:
            return
        server.stop(grace).wait()
        assert self._executor is not None
        self._executor.shutdown(wait=True)
