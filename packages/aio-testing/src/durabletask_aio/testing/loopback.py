"""Ports on this machine's loopback addresses, both families of them."""

from __future__ import annotations

import errno
import socket


def has_ipv6_loopback() -> bool:
    """Whether something can listen on ``::1`` here."""
    if not socket.has_ipv6:
        return False
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def free_port(port: int) -> int | None:
    """``port``, or any for 0, if it is free on both families.

    Both, because clients say "localhost", which may mean either: whoever holds the other one would get our callers.
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
    """The error that says that ``who`` cannot listen on ``port``, and what to do."""
    return OSError(
        errno.EADDRINUSE,
        f"port {port} on localhost is in use by another program, so {who} cannot listen there; "
        "stop that program or choose another port (0 takes a free one)",
    )
