"""Metadata of an instance on the wire: tags under one prefix, put there by clients and by the core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import grpc

from durabletask_aio.core import metadata as core_metadata

__all__ = ["HEADER_PREFIX", "MetadataInterceptor", "from_tags", "to_tags"]

HEADER_PREFIX = "durabletask-aio-md-"
"""Headers of :class:`MetadataInterceptor` begin with this; gRPC wants them in lower case."""


def from_tags(tags: Mapping[str, str] | None) -> dict[str, str] | None:
    """The metadata that these tags carry, or ``None`` if they carry none; users' own tags never leak in."""
    return core_metadata.decode(dict(tags)) if tags else None


def to_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """The tags with which a client starts an instance that has this metadata::

        client.schedule_new_orchestration(order, tags=to_tags({"tenant": "acme"}))

    Raises :class:`WorkflowValidationError` unless it is a small mapping of strings.
    """
    return core_metadata.encode(core_metadata.validated(metadata))


class _CallDetails(NamedTuple):
    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


if TYPE_CHECKING:
    _Interceptor = grpc.UnaryUnaryClientInterceptor
else:
    _Interceptor = grpc.UnaryUnaryClientInterceptor


class MetadataInterceptor(_Interceptor):
    """Sends the metadata with which a client starts an instance as gRPC headers too.

    For sidecars and proxies that look at headers and never at tags::

        TaskHubGrpcClient(interceptors=[MetadataInterceptor()])

    Each entry is one header, :data:`HEADER_PREFIX` and the key in lower case, both key and value percent-encoded where
    they are not plain ASCII.  Calls other than the start of an instance pass unchanged.
    """

    __module__ = "durabletask.aio.worker"

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        """Called by gRPC."""
        headers = self.headers(client_call_details.method, request)
        if headers:
            client_call_details = _CallDetails(
                client_call_details.method,
                client_call_details.timeout,
                [*(client_call_details.metadata or ()), *headers],
                client_call_details.credentials,
                getattr(client_call_details, "wait_for_ready", None),
                getattr(client_call_details, "compression", None),
            )
        return continuation(client_call_details, request)

    @staticmethod
    def headers(method: str | bytes, request: Any) -> list[tuple[str, str]]:
        """The headers for this call, in the order of the keys."""
        name = method.decode() if isinstance(method, bytes) else method
        if not name.endswith("/StartInstance"):
            return []
        metadata = from_tags(request.tags) or {}
        return [
            (HEADER_PREFIX + quote(key, safe="").lower(), quote(value, safe=" !#$&'()*+,/:;<=>?@[]^`{|}\"\\"))
            for key, value in sorted(metadata.items())
        ]
