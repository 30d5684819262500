"""Metadata of an instance on its way from a client: as tags, and as gRPC headers too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import grpc

from durabletask_aio.core import hosting

HEADER_PREFIX = "durabletask-aio-md-"
"""The headers of `MetadataInterceptor` begin with this; gRPC requires lower case."""


def to_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the tags with which a client starts an instance that has this metadata.

        client.schedule_new_orchestration(order, tags=to_tags({"tenant": "acme"}))

    Args:
        metadata: Strings by name, at most 8 KiB in all.

    Returns:
        A dictionary of tags, which can be merged with others.

    Raises:
        WorkflowValidationError: If `metadata` is not a mapping of strings to strings, or is too large.
    """
    return hosting.metadata_to_tags(metadata)


class _CallDetails(NamedTuple):
    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class MetadataInterceptor(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc, unused-ignore]
    """Sends the metadata with which a client starts an instance as gRPC headers too.

    For sidecars and proxies that read headers and not tags:

        TaskHubGrpcClient(interceptors=[MetadataInterceptor()])

    Each entry is one header: `durabletask-aio-md-` and the key in lower case. Key and value are percent-encoded where
    they are not plain ASCII. Calls that do not start an instance are not changed.
    """

    __module__ = "durabletask.aio.worker"

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        """Add the headers; called by gRPC.

        Args:
            continuation: Makes the call.
            client_call_details: The method, the headers and the options of the call.
            request: The protobuf message.

        Returns:
            The result of `continuation`.
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
            method: The full name of the gRPC method.
            request: The protobuf message.

        Returns:
            Pairs of name and value, in the order of the keys; empty if the call starts no instance.
        """
        name = method.decode() if isinstance(method, bytes) else method
        if not name.endswith("/StartInstance"):
            return []
        metadata = hosting.metadata_from_tags(request.tags) or {}
        return [
            (HEADER_PREFIX + quote(key, safe="").lower(), quote(value, safe=" !#$&'()*+,/:;<=>?@[]^`{|}\"\\"))
            for key, value in sorted(metadata.items())
        ]
