"""The bearer token of an engine's clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import grpc

if TYPE_CHECKING:
    _Interceptors = object
else:

    class _Interceptors(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
        pass


class _Details(NamedTuple):
    """`grpc.ClientCallDetails`, as a tuple."""

    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class BearerToken(_Interceptors):
    """Sends `authorization: Bearer TOKEN` with every call.

    Workers and clients of upstream take it among their `interceptors`.
    """

    def __init__(self, token: str) -> None:
        """Keep the token.

        Args:
            token: what the engine asks for.
        """
        self._header = ("authorization", f"Bearer {token}")

    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), self._header]
        changed = _Details(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            getattr(details, "wait_for_ready", None),
            getattr(details, "compression", None),
        )
        return continuation(changed, request)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Add the header; called by gRPC.

        Args:
            continuation: makes the call.
            client_call_details: of the call.
            request: its message.

        Returns:
            The call.
        """
        return self._intercept(continuation, client_call_details, request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Add the header; called by gRPC.

        Args:
            continuation: makes the call.
            client_call_details: of the call.
            request: its message.

        Returns:
            The call.
        """
        return self._intercept(continuation, client_call_details, request)


def with_token(channel: grpc.Channel, token: str) -> grpc.Channel:
    """Return a channel that sends a token with every call."""
    intercepted: grpc.Channel = cast("Any", grpc).intercept_channel(channel, BearerToken(token))
    return intercepted
