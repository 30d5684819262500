"""Ports on the loopback addresses of both families, IPv4 and IPv6."""

from __future__ import annotations

import errno
import socket


def has_ipv6_loopback() -> bool:
    """Return whether a server can listen on `::1`."""
    if not socket.has_ipv6:
        return False
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def free_port(port: int) -> int | None:
    """Return `port`, or any free port for 0, if it is free on both families, else `None`.

    Both, because clients connect to "localhost", which may be either address: a server on the other one would receive
    their calls.
    """
    try:
        with socket.create_server(("127.0.0.1", port)) as probe:
            port = probe.getsockname()[1]
            if has_ipv6_loopback():
                socket.create_server(("::1", port), family=socket.AF_INET6).close()
    except OSError:
        return None
    return port


def port_in_use(port: int, who: str) -> OSError:
    """Return the error for a port that is in use; `who` is the server that cannot listen there."""
    return OSError(
        errno.EADDRINUSE,
        f"port {port} on localhost is in use by another program, so {who} cannot listen there; "
        "stop that program or choose another port (0 takes a free one)",
    )
