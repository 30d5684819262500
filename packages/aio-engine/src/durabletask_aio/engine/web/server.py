"""Serves the page with uvicorn, on a thread of its own."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import uvicorn

from durabletask_aio.engine.loopback import free_port, has_ipv6_loopback, port_in_use
from durabletask_aio.engine.server import Access
from durabletask_aio.engine.web.app import create_app
from durabletask_aio.engine.web.waiting import DescribeWaiting

_WHO = "the page"
_GRACE = 3
"""Seconds that requests get to end when the server stops."""


class _Server(uvicorn.Server):
    """Reports when it listens."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._report = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._report()


class PageServer:
    """The page behind a web server, from `start` to `stop`, or for the length of a `with` block.  Thread-safe.

    Example:
        ```python
        with PageServer(grpc.insecure_channel("localhost:4001"), port=4002) as page:
            print(page.url)
        ```
    """

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        port: int = 0,
        host: str = "localhost",
        token: str | None = None,
        names: Sequence[str] = (),
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        describe_waiting: DescribeWaiting | None = None,
        address: str = "",
    ) -> None:
        """Make a server that does not listen yet.

        Args:
            channel: to the engine; it stays open when the page stops.
            port: where to listen; 0 takes a free port.
            host: the address to listen on; both loopback addresses by default.
            token: what users have to enter, and programs to send as `authorization: Bearer TOKEN`; `None` for no check.
            names: host names under which the page answers, in addition to `host`, `localhost` and loopback addresses.
            certificate: a PEM file with the certificate chain, for TLS.
            key: a PEM file with its private key.
            insecure: whether to listen without TLS on an address that others can reach.
            describe_waiting: finds out what an instance awaits, see `create_app`.
            address: where workers and clients connect to the engine, for the page to say.

        Raises:
            ValueError: if there is a certificate without its key, or the other way round, or neither on an address that
                others can reach.
        """
        if (certificate is None) != (key is None):
            raise ValueError("TLS takes a certificate and its private key: give both, or neither")
        is_local = Access(host, insecure=True).is_local
        if not is_local and certificate is None and not insecure:
            advice = "give a certificate and a key for TLS, or say that it is to be insecure"
            raise ValueError(f"{host} can be reached by others: {advice}")
        self._app = create_app(
            channel,
            token=token,
            names=[*names, *([] if is_local else [host, socket.gethostname()])],
            any_address=not is_local,
            describe_waiting=describe_waiting,
            address=address,
        )
        self._host = host
        self._port = port
        self._tls = None if certificate is None or key is None else (os.fspath(certificate), os.fspath(key))
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """Where it listens, or has been told to."""
        return self._port

    @property
    def url(self) -> str:
        """The address for a browser on this machine."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self._tls is None else 'https'}://{host}:{self._port}/"

    def start(self) -> PageServer:
        """Listen.

        Returns:
            This object.

        Raises:
            OSError: if the port is taken.
        """
        with self._lock:
            if self._thread is None:
                sockets, self._port = _listen(self._host, self._port)
                self._run(sockets)
        return self

    def _run(self, sockets: list[socket.socket]) -> None:
        certificate, key = self._tls or (None, None)
        config = uvicorn.Config(
            self._app,
            access_log=False,
            lifespan="off",
            log_level="warning",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            timeout_graceful_shutdown=_GRACE,
            ws="none",
        )
        started = threading.Event()
        errors: list[BaseException] = []
        self._server = server = _Server(config, started.set)

        def serve() -> None:
            try:
                server.run(sockets)
            except BaseException as error:
                errors.append(error)
            finally:
                started.set()

        self._thread = threading.Thread(target=serve, name="durabletask-aio-page", daemon=True)
        self._thread.start()
        started.wait()
        if errors:
            self._thread = None
            for each in sockets:
                each.close()
            raise errors[0]

    def stop(self) -> None:
        """Stop listening; requests that run get a few seconds.  May be called twice."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None and self._server is not None:
                self._server.should_exit = True
                thread.join()

    def __enter__(self) -> PageServer:  # noqa: PYI034 - typing has Self from 3.11 on
        """Start."""
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        """Stop."""
        self.stop()


def _listen(host: str, port: int) -> tuple[list[socket.socket], int]:
    if host != "localhost":
        return _listen_on(host, port)
    # The same port on both address families, since a browser takes "localhost" for either.
    for _ in range(20):
        found = free_port(port)
        if found is not None:
            sockets: list[socket.socket] = []
            try:
                for address in ("127.0.0.1", "::1") if has_ipv6_loopback() else ("127.0.0.1",):
                    sockets.append(_bind(address, found))  # noqa: PERF401 - closed below if one fails
                return sockets, found
            except OSError:
                for each in sockets:
                    each.close()  # another program has taken the port meanwhile
        if port:
            break
    raise port_in_use(port, _WHO)


def _listen_on(host: str, port: int) -> tuple[list[socket.socket], int]:
    try:
        bound = _bind(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise OSError(error.errno, f"{_WHO} cannot listen on {host}: {error.strerror or error}") from error
        text = f"port {port} on {host} is in use by another program; stop it, or choose another port for {_WHO}"
        raise OSError(errno.EADDRINUSE, text) from error
    return [bound], bound.getsockname()[1]


def _bind(host: str, port: int) -> socket.socket:
    address: Any = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[4][:2], family=address[0])
