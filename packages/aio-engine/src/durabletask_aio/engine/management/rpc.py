"""Both ends of the service for gRPC, made from its descriptor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import grpc
from google.protobuf.message_factory import GetMessageClass

from durabletask_aio.engine.management import management_pb2

SERVICE: Any = cast("Any", management_pb2).DESCRIPTOR.services_by_name["EngineManagement"]
"""The descriptor of the service."""

_handler = cast("Callable[..., Any]", grpc.unary_unary_rpc_method_handler)  # pyright: ignore[reportUnknownMemberType]
_generic_handler = cast("Callable[..., Any]", grpc.method_handlers_generic_handler)  # pyright: ignore[reportUnknownMemberType]


def add_to_server(servicer: object, server: grpc.Server) -> None:
    """Serve the service."""
    handlers = {
        method.name: _handler(
            getattr(servicer, method.name),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
        for method in SERVICE.methods
    }
    server.add_generic_rpc_handlers((_generic_handler(SERVICE.full_name, handlers),))


def stubs(channel: grpc.Channel) -> dict[str, Callable[..., Any]]:
    """Return a callable for each method of the service."""
    unary = cast("Any", channel).unary_unary
    return {
        method.name: unary(
            f"/{SERVICE.full_name}/{method.name}",
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        for method in SERVICE.methods
    }
