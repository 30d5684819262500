"""Metadata of an instance on the wire: tags under one prefix, put there by clients and by the core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import grpc

from durabletask_aio.core.hosting import metadata_from_tags, metadata_to_tags

__all__ = ["HEADER_PREFIX", "MetadataInterceptor", "to_tags"]

HEADER_PREFIX = "durabletask-aio-md-"
"""The prefix of the headers of `MetadataInterceptor`; gRPC requires lower case."""


def to_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the tags with which a client starts an instance that has this metadata.

        client.schedule_new_orchestration(order, tags=to_tags({"tenant": "acme"}))

    Args:
        metadata: strings by name.

    Returns:
        The tags.

    Raises:
        WorkflowValidationError: unless it is a mapping of strings to strings of at most 8 KiB.
    """
    return metadata_to_tags(metadata)


class _CallDetails(NamedTuple):
    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class MetadataInterceptor(grpc.UnaryUnaryClientInterceptor):
    """Sends the metadata with which a client starts an instance also as gRPC headers.

    For sidecars and proxies that look at headers and not at tags:

        TaskHubGrpcClient(interceptors=[MetadataInterceptor()])

    Each entry is one header: `durabletask-aio-md-` and the key in lower case, key and value percent-encoded where they
    are not plain ASCII.  Calls other than the start of an instance are passed on unchanged.
    """

    __module__ = "durabletask.aio.worker"

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        """Add the headers to a call; called by gRPC.

        Args:
            continuation: makes the call.
            client_call_details: method, timeout and metadata of the call.
            request: the message that is sent.

        Returns:
            What `continuation` returns.
        """
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
        """Return the headers for a call.

        Args:
            method: the full name of the gRPC method.
            request: the message that is sent.

        Returns:
            Names and values, in the order of the keys; empty for other calls than the start of an instance.
        """
        name = method.decode() if isinstance(method, bytes) else method
        if not name.endswith("/StartInstance"):
            return []
        metadata = metadata_from_tags(request.tags) or {}
        return [
            (HEADER_PREFIX + quote(key, safe="").lower(), quote(value, safe=" !#$&'()*+,/:;<=>?@[]^`{|}\"\\"))
            for key, value in sorted(metadata.items())
        ]
