"""The same tests with `grpc.aio` over a socket and in this process."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from channel_support import (
    SECOND,
    SECONDS,
    SecondServicer,
    Servicer,
    Waiting,
    item,
    request,
    response,
    second,
    serving,
)

from durabletask_aio.engine._upstream import SERVICE, pb, pb_grpc
from durabletask_aio.engine.channel import InProcessAioChannel

Connect = Callable[..., Awaitable[grpc.aio.Channel]]


@pytest.fixture(params=["socket", "in process"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """A function that returns a channel to servicers."""
    async with AsyncExitStack() as stack:

        async def to(servicers: object, **options: Any) -> grpc.aio.Channel:
            if request.param == "in process":
                return await stack.enter_async_context(InProcessAioChannel(servicers, **options))
            address = stack.enter_context(serving(servicers))
            return await stack.enter_async_context(grpc.aio.insecure_channel(address, **options))

        yield to


@pytest.fixture
def stub(connect: Connect) -> Callable[..., Awaitable[Any]]:
    """A function that returns a stub of a servicer with some handlers."""

    async def of(**handlers: Any) -> Any:
        return pb_grpc.TaskHubSidecarServiceStub(await connect(Servicer(**handlers)))

    return of


async def failure(awaitable: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    """The code and the details of the error that an awaitable must raise."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(awaitable, SECONDS)
    return caught.value.code(), caught.value.details() or ""


async def happened(event: threading.Event) -> bool:
    return await asyncio.to_thread(event.wait, SECONDS)


# -- responses and status codes ---------------------------------------------------------------------------------------


async def test_a_response_reaches_the_client(stub: Any) -> None:
    client = await stub(GetInstance=lambda request, context: response(request.instanceId.upper()))
    call = client.GetInstance(request("abc"))

    assert isinstance(call, grpc.aio.UnaryUnaryCall)
    assert await call == response("ABC")
    assert await call == response("ABC")
    assert (await call.code(), await call.details()) == (grpc.StatusCode.OK, "")
    assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
    await call.wait_for_connection()


async def test_a_stream_is_an_iterator_of_its_responses(stub: Any) -> None:
    client = await stub(GetWorkItems=lambda request, context: iter([item("a"), item("b")]))
    stream = client.GetWorkItems(pb.GetWorkItemsRequest())

    assert isinstance(stream, grpc.aio.UnaryStreamCall)
    assert [message.completionToken async for message in stream] == ["a", "b"]
    assert await stream.code() is grpc.StatusCode.OK
    assert stream.done()


async def test_a_stream_can_be_read(stub: Any) -> None:
    client = await stub(GetWorkItems=lambda request, context: iter([item("a"), item("b")]))
    stream = client.GetWorkItems(pb.GetWorkItemsRequest())

    assert [await stream.read() for _ in range(4)] == [item("a"), item("b"), grpc.aio.EOF, grpc.aio.EOF]


async def test_abort_ends_a_call_with_a_status(stub: Any) -> None:
    def handler(request: object, context: Any) -> Any:
        context.set_trailing_metadata((("page", "7"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")

    call = (await stub(GetInstance=handler)).GetInstance(request())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call

    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not now")
    assert ("page", "7") in tuple(caught.value.trailing_metadata())
    assert (await call.code(), await call.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not now")
    assert ("page", "7") in tuple(await call.trailing_metadata())


async def test_an_exception_is_an_unknown_error_with_its_text(stub: Any) -> None:
    def handler(request: object, context: Any) -> Any:
        raise KeyError("lost")

    assert await failure((await stub(GetInstance=handler)).GetInstance(request())) == (
        grpc.StatusCode.UNKNOWN,
        "Exception calling application: 'lost'",
    )


async def test_an_exception_in_a_stream_comes_after_its_responses(stub: Any) -> None:
    def handler(request: object, context: Any) -> Iterator[Any]:
        yield item("a")
        raise ValueError("torn")

    stream = (await stub(GetWorkItems=handler)).GetWorkItems(pb.GetWorkItemsRequest())

    assert await stream.read() == item("a")
    expected = (grpc.StatusCode.UNKNOWN, "Exception iterating responses: torn")
    assert await failure(stream.read()) == expected
    assert await failure(stream.read()) == expected
    assert (await stream.code(), await stream.details()) == expected


async def test_a_method_that_is_not_there(connect: Connect) -> None:
    channel = await connect(Servicer())
    client = pb_grpc.TaskHubSidecarServiceStub(channel)
    arguments = pb.GetInstanceRequest.SerializeToString, pb.GetInstanceResponse.FromString

    unknown = (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    assert await failure(client.GetInstance(request())) == (grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")
    assert await failure(channel.unary_unary("/Other/Get", *arguments)(request())) == unknown
    assert await failure(channel.unary_stream("/Other/List", *arguments)(request()).read()) == unknown


async def test_several_services(connect: Connect) -> None:
    channel = await connect({SERVICE: Servicer(GetInstance=lambda *_: response("first")), SECOND: SecondServicer()})
    describe, list_all = second(channel)

    assert await pb_grpc.TaskHubSidecarServiceStub(channel).GetInstance(request()) == response("first")
    assert await describe(request("abc")) == response("second abc")
    assert [message async for message in list_all(request())] == [response("a"), response("b")]


# -- deadlines and cancellation ---------------------------------------------------------------------------------------


async def test_a_deadline_wakes_a_handler_that_waits(stub: Any) -> None:
    handler = Waiting()
    client = await stub(WaitForInstanceStart=handler)
    began = time.monotonic()
    call = client.WaitForInstanceStart(request(), timeout=0.2)
    assert 0 < call.time_remaining() <= 0.2

    assert await failure(call) == (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    assert 0.19 < time.monotonic() - began < SECONDS
    assert await happened(handler.ended)
    assert handler.contexts[0].is_active() is False


async def test_a_deadline_does_not_wait_for_the_handler(stub: Any) -> None:
    released = threading.Event()

    def handler(request: object, context: Any) -> Any:
        assert released.wait(SECONDS)
        return response()

    def stream_handler(request: object, context: Any) -> Iterator[Any]:
        assert released.wait(SECONDS)
        yield item("late")

    client = await stub(GetInstance=handler, GetWorkItems=stream_handler)

    code, _ = await failure(client.GetInstance(request(), timeout=0.1))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    code, _ = await failure(client.GetWorkItems(pb.GetWorkItemsRequest(), timeout=0.1).read())
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    released.set()


async def test_a_deadline_in_the_past(stub: Any) -> None:
    client = await stub(GetInstance=lambda *_: response())

    assert (await failure(client.GetInstance(request(), timeout=-1)))[0] is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_deadline_ends_a_stream(stub: Any) -> None:
    handler = Waiting()
    client = await stub(GetWorkItems=handler.stream)
    stream = client.GetWorkItems(pb.GetWorkItemsRequest(), timeout=0.3)

    assert await stream.read() == item("first")
    assert (await failure(stream.read()))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await happened(handler.ended)


async def test_cancelling_a_call(stub: Any) -> None:
    handler = Waiting()
    call = (await stub(WaitForInstanceStart=handler)).WaitForInstanceStart(request())
    called: asyncio.Queue[Any] = asyncio.Queue()
    call.add_done_callback(called.put_nowait)
    assert await happened(handler.began)

    assert call.cancel() is True

    with pytest.raises(asyncio.CancelledError):
        await call
    assert await happened(handler.ended)
    assert (call.cancelled(), call.done(), call.cancel()) == (True, True, False)
    assert (await call.code(), await call.details()) == (
        grpc.StatusCode.CANCELLED,
        "Locally cancelled by application!",
    )
    for _ in range(2):
        assert await asyncio.wait_for(called.get(), SECONDS) is call
        call.add_done_callback(called.put_nowait)


async def test_cancelling_a_task_cancels_its_call(stub: Any) -> None:
    handler = Waiting()
    call = (await stub(WaitForInstanceStart=handler)).WaitForInstanceStart(request())

    async def wait() -> None:
        await call

    task = asyncio.create_task(wait())
    assert await happened(handler.began)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.cancelled()
    assert await happened(handler.ended)


async def test_a_timeout_of_asyncio_cancels_its_call(stub: Any) -> None:
    handler = Waiting()
    client = await stub(WaitForInstanceStart=handler)

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(client.WaitForInstanceStart(request()), 0.2)
    assert await happened(handler.ended)


async def test_cancelling_a_stream(stub: Any) -> None:
    handler = Waiting()
    stream = (await stub(GetWorkItems=handler.stream)).GetWorkItems(pb.GetWorkItemsRequest())
    assert await stream.read() == item("first")
    reading = asyncio.ensure_future(stream.read())
    assert await happened(handler.began)

    assert stream.cancel() is True

    with pytest.raises(asyncio.CancelledError):
        await reading
    with pytest.raises(asyncio.CancelledError):
        await stream.read()
    assert await happened(handler.ended)
    assert await stream.code() is grpc.StatusCode.CANCELLED


async def test_cancelling_the_reader_cancels_its_stream(stub: Any) -> None:
    handler = Waiting()
    stream = (await stub(GetWorkItems=handler.stream)).GetWorkItems(pb.GetWorkItemsRequest())
    assert await stream.read() == item("first")
    reading = asyncio.ensure_future(stream.read())
    assert await happened(handler.began)
    reading.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reading
    assert stream.cancelled()
    assert await happened(handler.ended)


async def test_a_call_that_is_not_awaited_is_made(stub: Any) -> None:
    called = threading.Event()
    done = asyncio.Event()

    def handler(request: object, context: Any) -> Any:
        called.set()
        context.abort(grpc.StatusCode.NOT_FOUND, "none")

    (await stub(GetInstance=handler)).GetInstance(request()).add_done_callback(lambda _: done.set())
    gc.collect()

    assert await happened(called)
    await asyncio.wait_for(done.wait(), SECONDS)


async def test_many_waits_for_one_call(stub: Any) -> None:
    released = threading.Event()

    def handler(request: object, context: Any) -> Any:
        assert released.wait(SECONDS)
        return response()

    call = (await stub(GetInstance=handler)).GetInstance(request())
    waiting = asyncio.gather(call, call, call.code(), call.details(), call.initial_metadata())
    released.set()

    first, second, code, details, _ = await asyncio.wait_for(waiting, SECONDS)
    assert (first, second, code, details) == (response(), response(), grpc.StatusCode.OK, "")


# -- metadata and interceptors ----------------------------------------------------------------------------------------


async def test_metadata_both_ways(stub: Any) -> None:
    def handler(request: object, context: Any) -> Any:
        sent = dict(context.invocation_metadata())
        context.send_initial_metadata((("early", sent["taskhub"]),))
        context.set_trailing_metadata((("late-bin", b"\x00"),))
        return response()

    client = await stub(GetInstance=handler)
    for metadata in ((("taskhub", "a"),), grpc.aio.Metadata(("taskhub", "a"))):
        call = client.GetInstance(request(), metadata=metadata)

        assert (await call.initial_metadata())["early"] == "a"
        assert (await call.trailing_metadata())["late-bin"] == b"\x00"


async def test_initial_metadata_of_a_stream_arrive_before_its_responses(stub: Any) -> None:
    handler = Waiting()

    def stream_handler(request: object, context: Any) -> Iterator[Any]:
        context.send_initial_metadata((("early", "1"),))
        handler.wait(context)
        yield item("too late")

    stream = (await stub(GetWorkItems=stream_handler)).GetWorkItems(pb.GetWorkItemsRequest())

    assert (await asyncio.wait_for(stream.initial_metadata(), SECONDS))["early"] == "1"
    assert not stream.done()
    stream.cancel()


class UnaryHeader(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds metadata to calls, and remembers what became of them."""

    def __init__(self) -> None:
        self.codes: list[grpc.StatusCode] = []

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        client_call_details.metadata.add("added", "1")
        call = await continuation(client_call_details, request)
        self.codes.append(await call.code())
        return call


class StreamHeader(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        client_call_details.metadata.add("added", "2")
        return await continuation(client_call_details, request)


class Refusal(grpc.aio.UnaryUnaryClientInterceptor):
    """Answers some calls in place of the server, in one way or another."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        if request.instanceId == "answered":
            return response("by the interceptor")
        if request.instanceId == "refused":
            raise grpc.aio.AioRpcError(grpc.StatusCode.PERMISSION_DENIED, details="by the interceptor")
        assert b"GetInstance" in client_call_details.method
        return await continuation(client_call_details, request)


async def test_interceptors_of_the_client(connect: Connect) -> None:
    def name(context: Any) -> str:
        return str(dict(context.invocation_metadata())["added"])

    servicer = Servicer(
        GetInstance=lambda request, context: response(name(context)),
        GetWorkItems=lambda request, context: iter([item(name(context)), item("last")]),
    )
    unary = UnaryHeader()
    channel = await connect(servicer, interceptors=[unary, StreamHeader(), Refusal()])
    client = pb_grpc.TaskHubSidecarServiceStub(channel)
    call = client.GetInstance(request())

    assert await call == response("1")
    assert await call.code() is grpc.StatusCode.OK
    assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
    assert [message.completionToken async for message in client.GetWorkItems(pb.GetWorkItemsRequest())] == ["2", "last"]
    stream = client.GetWorkItems(pb.GetWorkItemsRequest())
    assert [await stream.read() for _ in range(3)] == [item("2"), item("last"), grpc.aio.EOF]
    assert unary.codes == [grpc.StatusCode.OK]


async def test_an_interceptor_that_answers_itself(connect: Connect) -> None:
    channel = await connect(Servicer(), interceptors=[Refusal()])
    client = pb_grpc.TaskHubSidecarServiceStub(channel)
    answered, refused = client.GetInstance(request("answered")), client.GetInstance(request("refused"))
    done: asyncio.Queue[Any] = asyncio.Queue()
    refused.add_done_callback(done.put_nowait)

    assert await answered == response("by the interceptor")
    assert await answered.code() is grpc.StatusCode.OK
    assert await failure(refused) == (grpc.StatusCode.PERMISSION_DENIED, "by the interceptor")
    assert await refused.code() is grpc.StatusCode.PERMISSION_DENIED
    assert await asyncio.wait_for(done.get(), SECONDS) is refused
    refused.add_done_callback(done.put_nowait)
    assert await asyncio.wait_for(done.get(), SECONDS) is refused


async def test_cancelling_a_call_with_interceptors(connect: Connect) -> None:
    handler = Waiting()
    channel = await connect(Servicer(GetInstance=handler), interceptors=[Refusal()])
    call = pb_grpc.TaskHubSidecarServiceStub(channel).GetInstance(request())
    done = asyncio.Event()
    call.add_done_callback(lambda _: done.set())
    assert await happened(handler.began)

    assert call.cancel() is True

    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    await asyncio.wait_for(done.wait(), SECONDS)
    assert await call.code() is grpc.StatusCode.CANCELLED
    assert await happened(handler.ended)


async def test_what_is_no_interceptor_is_refused(connect: Connect) -> None:
    with pytest.raises(ValueError, match="nterceptor"):
        await connect(Servicer(), interceptors=[object()])


# -- connectivity and closing -----------------------------------------------------------------------------------------


async def test_the_state_of_a_channel(connect: Connect) -> None:
    channel = await connect(Servicer(GetInstance=lambda *_: response()))

    await asyncio.wait_for(channel.channel_ready(), SECONDS)
    assert channel.get_state() is grpc.ChannelConnectivity.READY
    await channel.wait_for_state_change(grpc.ChannelConnectivity.IDLE)
    changed = asyncio.ensure_future(channel.wait_for_state_change(grpc.ChannelConnectivity.READY))
    await asyncio.sleep(0)
    await channel.close()
    await asyncio.wait_for(changed, SECONDS)
    assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_closing_a_channel_cancels_its_calls(connect: Connect) -> None:
    handler, stream_handler = Waiting(), Waiting()
    channel = await connect(Servicer(WaitForInstanceStart=handler, GetWorkItems=stream_handler.stream))
    client = pb_grpc.TaskHubSidecarServiceStub(channel)
    call, stream = client.WaitForInstanceStart(request()), client.GetWorkItems(pb.GetWorkItemsRequest())
    assert await stream.read() == item("first")
    reading = asyncio.ensure_future(stream.read())
    assert await happened(handler.began)
    assert await happened(stream_handler.began)

    await channel.close()

    for waiting in (call, reading):
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert await happened(handler.ended)
    assert await happened(stream_handler.ended)
    for method in (client.WaitForInstanceStart, client.GetWorkItems):
        with pytest.raises(grpc.aio.UsageError, match=r"Channel is closed\."):
            method(request())
    await channel.close()


async def test_closing_a_channel_waits_for_calls(connect: Connect) -> None:
    released = threading.Event()
    began = threading.Event()

    def handler(request: object, context: Any) -> Any:
        began.set()
        assert released.wait(SECONDS)
        return response("in time")

    channel = await connect(Servicer(GetInstance=handler))
    call = pb_grpc.TaskHubSidecarServiceStub(channel).GetInstance(request())
    assert await happened(began)
    closing = asyncio.ensure_future(channel.close(grace=SECONDS))
    await asyncio.sleep(0)
    released.set()

    await asyncio.wait_for(closing, SECONDS)
    assert await call == response("in time")


# -- isolation --------------------------------------------------------------------------------------------------------


async def test_messages_are_not_shared(stub: Any) -> None:
    kept: list[Any] = []
    answer, answered_item = response("kept"), item("kept")

    def handler(request: Any, context: object) -> Any:
        kept.append(request)
        return answer

    client = await stub(GetInstance=handler, GetWorkItems=lambda *_: iter([answered_item]))
    sent = request("first")
    call = client.GetInstance(sent)
    await asyncio.sleep(0)
    sent.instanceId = "second"
    received = await call
    received.exists = False
    kept[0].instanceId += " changed"
    received_item = await client.GetWorkItems(pb.GetWorkItemsRequest()).read()
    received_item.completionToken = "changed"

    assert kept[0].instanceId == "first changed"
    assert sent == request("second")
    assert (answer, answered_item) == (response("kept"), item("kept"))


async def test_many_calls_at_once(stub: Any) -> None:
    client = await stub(
        GetInstance=lambda request, context: response(request.instanceId),
        GetWorkItems=lambda request, context: (item(str(number)) for number in range(20)),
    )

    async def calls(number: int) -> None:
        for name in (f"{number}.{index}" for index in range(20)):
            assert await client.GetInstance(request(name), timeout=SECONDS) == response(name)
        stream = client.GetWorkItems(pb.GetWorkItemsRequest())
        assert [message.completionToken async for message in stream] == [str(index) for index in range(20)]

    await asyncio.wait_for(asyncio.gather(*map(calls, range(12))), SECONDS)
