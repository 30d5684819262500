"""A servicer whose methods are functions of a test, and both ways to call it: over a socket and in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from durabletask_aio.engine._upstream import SERVICE, pb, pb_grpc

SECONDS = 20.0
"""The longest wait for something that happens at once."""


class Servicer(pb_grpc.TaskHubSidecarServiceServicer):
    """Upstream's service, with some of its methods replaced by functions of a request and a context."""

    def __init__(self, **handlers: Callable[[Any, grpc.ServicerContext], Any]) -> None:
        self.__dict__.update(handlers)


def request(instance_id: str = "x") -> pb.GetInstanceRequest:
    return pb.GetInstanceRequest(instanceId=instance_id)


def response(name: str = "", *, exists: bool = True) -> pb.GetInstanceResponse:
    return pb.GetInstanceResponse(exists=exists, orchestrationState=pb.OrchestrationState(name=name))


def item(token: str) -> pb.WorkItem:
    return pb.WorkItem(completionToken=token)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for a condition that has no event to wait for."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.005)


class Waiting:
    """A handler that waits until its call ends, as a handler of a servicer must."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended = threading.Event()
        self.contexts: list[Any] = []

    def __call__(self, request: object, context: Any) -> pb.GetInstanceResponse:
        self.wait(context)
        return response("too late")

    def stream(self, request: object, context: Any) -> Iterator[pb.WorkItem]:
        yield item("first")
        self.wait(context)
        yield item("too late")

    def wait(self, context: Any) -> None:
        woken = threading.Event()
        assert context.add_callback(woken.set)
        self.contexts.append(context)
        self.began.set()
        assert woken.wait(SECONDS)
        self.ended.set()


def _second_service() -> Any:
    """A service of another package, with the messages of upstream's."""
    file = descriptor_pb2.FileDescriptorProto(
        name="second_service.proto", package="tests", dependency=[pb.DESCRIPTOR.name], syntax="proto3"
    )
    service = file.service.add(name="Second")
    kinds = {"input_type": ".GetInstanceRequest", "output_type": ".GetInstanceResponse"}
    service.method.add(name="Describe", **kinds)
    service.method.add(name="List", **kinds, server_streaming=True)
    service.method.add(name="Upload", **kinds, client_streaming=True)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return pool.FindServiceByName("tests.Second")


SECOND = _second_service()


class SecondServicer:
    def Describe(self, request: Any, context: object) -> pb.GetInstanceResponse:
        return response(f"second {request.instanceId}")

    def List(self, request: Any, context: object) -> Iterator[pb.GetInstanceResponse]:
        yield response("a")
        yield response("b")


def handlers_of(service: Any, servicer: object) -> grpc.GenericRpcHandler:
    """The methods of a servicer for gRPC's server, from the same descriptor as in process."""
    handlers: dict[str, Any] = {}
    for name, method in service.methods_by_name.items():
        if hasattr(servicer, name):
            make = (
                grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
            )
            request_class = message_factory.GetMessageClass(method.input_type)
            handlers[name] = make(
                getattr(servicer, name), request_class.FromString, lambda message: message.SerializeToString()
            )
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


@contextmanager
def serving(servicers: object) -> Iterator[str]:
    """A gRPC server on a loopback address, for one servicer of upstream's service or several by their services."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    services = servicers if isinstance(servicers, Mapping) else {SERVICE: servicers}
    for service, servicer in services.items():
        if service is SERVICE:
            pb_grpc.add_TaskHubSidecarServiceServicer_to_server(servicer, server)
        else:
            server.add_generic_rpc_handlers([handlers_of(service, servicer)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def second(channel: Any) -> tuple[Any, Any]:
    """The methods of the second service, as a generated stub would have them."""
    describe = channel.unary_unary(
        "/tests.Second/Describe", pb.GetInstanceRequest.SerializeToString, pb.GetInstanceResponse.FromString
    )
    list_all = channel.unary_stream(
        "/tests.Second/List", pb.GetInstanceRequest.SerializeToString, pb.GetInstanceResponse.FromString
    )
    return describe, list_all
