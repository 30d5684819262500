"""The same tests over a socket and in this process: what a client and a handler see of each other."""

from __future__ import annotations

import contextvars
import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
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
    wait_until,
)
from durabletask.internal import grpc_resiliency

from durabletask_aio.engine._upstream import SERVICE, pb, pb_grpc
from durabletask_aio.engine.channel import InProcessChannel

Connect = Callable[[object], grpc.Channel]


@pytest.fixture(params=["socket", "in process"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """A function that returns a channel to servicers."""
    with ExitStack() as stack:

        def to(servicers: object) -> grpc.Channel:
            if request.param == "in process":
                return stack.enter_context(InProcessChannel(servicers))
            return stack.enter_context(grpc.insecure_channel(stack.enter_context(serving(servicers))))

        yield to


@pytest.fixture
def stub(connect: Connect) -> Callable[..., Any]:
    """A function that returns a stub of a servicer with some handlers."""
    return lambda **handlers: pb_grpc.TaskHubSidecarServiceStub(connect(Servicer(**handlers)))


def failure(function: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """The code and the details of the error that a function must raise."""
    with pytest.raises(grpc.RpcError) as caught:
        function()
    return caught.value.code(), caught.value.details() or ""


# -- responses and status codes ---------------------------------------------------------------------------------------


def test_a_response_reaches_the_client(stub: Any) -> None:
    client = stub(GetInstance=lambda request, context: response(request.instanceId.upper()))

    assert client.GetInstance(request("abc")) == response("ABC")


def test_with_call_returns_the_status_as_well(stub: Any) -> None:
    def handler(request: object, context: Any) -> Any:
        context.set_details("sent with errors only")
        return response()

    message, call = stub(GetInstance=handler).GetInstance.with_call(request())

    assert message == response()
    assert (call.code(), call.details()) == (grpc.StatusCode.OK, "")
    assert call.is_active() is False


def test_a_stream_is_an_iterator_of_its_responses(stub: Any) -> None:
    stream = stub(GetWorkItems=lambda request, context: iter([item("a"), item("b")])).GetWorkItems(
        pb.GetWorkItemsRequest()
    )

    assert [message.completionToken for message in stream] == ["a", "b"]
    assert (stream.code(), stream.details()) == (grpc.StatusCode.OK, "")
    assert list(stream) == []


def test_abort_ends_a_call_with_a_status(stub: Any) -> None:
    def handler(request: object, context: Any) -> Any:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")

    assert failure(lambda: stub(GetInstance=handler).GetInstance(request())) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "not now",
    )


def test_abort_counts_even_if_the_handler_catches_it(stub: Any) -> None:
    def handler(request: object, context: Any) -> Any:
        try:
            context.abort(grpc.StatusCode.NOT_FOUND, "none")
        except Exception:
            return response()

    assert failure(lambda: stub(GetInstance=handler).GetInstance(request())) == (grpc.StatusCode.NOT_FOUND, "none")


def test_abort_with_ok_is_an_unknown_error(stub: Any) -> None:
    def handler(request: object, context: Any) -> Any:
        context.abort(grpc.StatusCode.OK, "fine")

    assert failure(lambda: stub(GetInstance=handler).GetInstance(request())) == (grpc.StatusCode.UNKNOWN, "")


def test_abort_with_status_sends_trailing_metadata(stub: Any) -> None:
    class Status(grpc.Status):
        code = grpc.StatusCode.DATA_LOSS
        details = "torn"
        trailing_metadata = (("page", "7"),)

    def handler(request: object, context: Any) -> Any:
        context.abort_with_status(Status())

    with pytest.raises(grpc.RpcError) as caught:
        stub(GetInstance=handler).GetInstance(request())

    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DATA_LOSS, "torn")
    trailing: Any = caught.value.trailing_metadata()
    assert ("page", "7") in trailing


@pytest.mark.parametrize("answer", [None, response()])
def test_a_code_that_is_set_is_the_status(stub: Any, answer: object) -> None:
    def handler(request: object, context: Any) -> Any:
        assert (context.code(), context.details()) == (None, None)
        context.set_code(grpc.StatusCode.ALREADY_EXISTS)
        context.set_details("taken")
        assert (context.code(), context.details()) == (grpc.StatusCode.ALREADY_EXISTS, b"taken")
        return answer

    assert failure(lambda: stub(GetInstance=handler).GetInstance(request())) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "taken",
    )


def test_an_exception_is_an_unknown_error_with_its_text(stub: Any) -> None:
    def handler(request: object, context: Any) -> Any:
        raise KeyError("lost")

    assert failure(lambda: stub(GetInstance=handler).GetInstance(request())) == (
        grpc.StatusCode.UNKNOWN,
        "Exception calling application: 'lost'",
    )


def test_an_exception_keeps_a_code_that_was_set(stub: Any) -> None:
    def handler(request: object, context: Any) -> Any:
        context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
        raise ValueError("no name")

    assert failure(lambda: stub(GetInstance=handler).GetInstance(request())) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Exception calling application: no name",
    )


def test_an_exception_in_a_stream_comes_after_its_responses(stub: Any) -> None:
    def handler(request: object, context: Any) -> Iterator[Any]:
        yield item("a")
        raise ValueError("torn")

    stream = stub(GetWorkItems=handler).GetWorkItems(pb.GetWorkItemsRequest())

    assert next(stream) == item("a")
    expected = (grpc.StatusCode.UNKNOWN, "Exception iterating responses: torn")
    assert failure(lambda: next(stream)) == expected
    assert failure(lambda: next(stream)) == expected
    assert (stream.code(), stream.details()) == expected


def test_abort_in_a_stream_comes_after_its_responses(stub: Any) -> None:
    def handler(request: object, context: Any) -> Iterator[Any]:
        yield item("a")
        context.abort(grpc.StatusCode.UNAVAILABLE, "shutting down")

    stream = stub(GetWorkItems=handler).GetWorkItems(pb.GetWorkItemsRequest())

    assert next(stream) == item("a")
    assert failure(lambda: next(stream)) == (grpc.StatusCode.UNAVAILABLE, "shutting down")


def test_the_status_of_a_stream_is_known_without_reading_it(stub: Any) -> None:
    def handler(request: object, context: Any) -> Iterator[Any]:
        context.set_trailing_metadata((("reason", "none"),))
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "not yours")
        yield item("never")

    stream = stub(GetWorkItems=handler).GetWorkItems(pb.GetWorkItemsRequest())

    assert (stream.code(), stream.details()) == (grpc.StatusCode.PERMISSION_DENIED, "not yours")
    assert ("reason", "none") in stream.trailing_metadata()


def test_what_is_no_message_is_an_internal_error(stub: Any) -> None:
    client = stub(GetInstance=lambda request, context: None, GetWorkItems=lambda request, context: iter(["text"]))

    expected = (grpc.StatusCode.INTERNAL, "Failed to serialize response!")
    assert failure(lambda: client.GetInstance(request())) == expected
    assert failure(lambda: next(client.GetWorkItems(pb.GetWorkItemsRequest()))) == expected


def test_none_ends_a_stream(stub: Any) -> None:
    client = stub(GetWorkItems=lambda request, context: iter([item("a"), None, item("b")]))

    assert list(client.GetWorkItems(pb.GetWorkItemsRequest())) == [item("a")]


def test_a_request_that_is_no_message_is_an_internal_error(stub: Any) -> None:
    code, details = failure(lambda: stub().GetInstance("x"))

    assert code is grpc.StatusCode.INTERNAL
    assert details.startswith("Exception serializing request!")


def test_a_method_that_the_servicer_does_not_implement(stub: Any) -> None:
    assert failure(lambda: stub().GetInstance(request())) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "Method not implemented!",
    )


def test_a_method_that_the_service_does_not_have(connect: Connect) -> None:
    channel = connect(Servicer())
    arguments = pb.GetInstanceRequest.SerializeToString, pb.GetInstanceResponse.FromString

    expected = (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    assert failure(lambda: channel.unary_unary("/Other/Get", *arguments)(request())) == expected
    assert failure(lambda: next(channel.unary_stream("/Other/List", *arguments)(request()))) == expected


def test_errors_show_their_status(stub: Any) -> None:
    def handler(request: object, context: Any) -> Any:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such instance")

    with pytest.raises(
        grpc.RpcError, match=r'(?s)RPC that terminated with:.*StatusCode\.NOT_FOUND.*"no such instance"'
    ) as caught:
        stub(GetInstance=handler).GetInstance(request())

    error: Any = caught.value
    assert (error.done(), error.cancelled(), error.running(), error.cancel()) == (True, False, False, False)
    assert str(error.exception()) == str(error) == repr(error)
    assert failure(error.result) == (grpc.StatusCode.NOT_FOUND, "no such instance")


def test_several_services(connect: Connect) -> None:
    channel = connect({SERVICE: Servicer(GetInstance=lambda *_: response("first")), SECOND: SecondServicer()})
    describe, list_all = second(channel)

    assert pb_grpc.TaskHubSidecarServiceStub(channel).GetInstance(request()) == response("first")
    assert describe(request("abc")) == response("second abc")
    assert list(list_all(request())) == [response("a"), response("b")]


# -- deadlines --------------------------------------------------------------------------------------------------------


def test_a_deadline_wakes_a_handler_that_waits(stub: Any) -> None:
    handler = Waiting()
    began = time.monotonic()

    assert failure(lambda: stub(WaitForInstanceStart=handler).WaitForInstanceStart(request(), timeout=0.2)) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "Deadline Exceeded",
    )
    assert 0.19 < time.monotonic() - began < SECONDS
    assert handler.ended.wait(SECONDS)
    assert handler.contexts[0].is_active() is False
    assert handler.contexts[0].time_remaining() == 0
    assert handler.contexts[0].add_callback(lambda: None) is False


def test_a_response_after_the_deadline_is_too_late(stub: Any) -> None:
    def handler(request: object, context: Any) -> Any:
        too_late = time.monotonic() + 0.3
        wait_until(lambda: time.monotonic() > too_late)
        return response()

    code, _ = failure(lambda: stub(GetInstance=handler).GetInstance(request(), timeout=0.1))

    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_handler_knows_the_time_that_remains(stub: Any) -> None:
    seen: list[Any] = []

    def handler(request: object, context: Any) -> Any:
        seen.append(context.time_remaining())
        return response()

    client = stub(GetInstance=handler)
    client.GetInstance(request(), timeout=60)
    client.GetInstance(request())

    assert 30 < seen[0] < 61
    assert seen[1] is None or seen[1] > 1e9


def test_a_deadline_in_the_past(stub: Any) -> None:
    code, _ = failure(lambda: stub(GetInstance=lambda *_: response()).GetInstance(request(), timeout=-1))

    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_deadline_ends_a_stream(stub: Any) -> None:
    handler = Waiting()
    stream = stub(GetWorkItems=handler.stream).GetWorkItems(pb.GetWorkItemsRequest(), timeout=0.3)

    assert next(stream) == item("first")
    assert 0 < stream.time_remaining() <= 0.3
    code, details = failure(lambda: next(stream))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "Deadline Exceeded" in details
    assert handler.ended.wait(SECONDS)
    assert stream.is_active() is False


def test_a_deadline_ends_a_stream_that_is_not_read(stub: Any) -> None:
    ended = threading.Event()
    stream = stub(GetWorkItems=Waiting().stream).GetWorkItems(pb.GetWorkItemsRequest(), timeout=0.3)
    assert next(stream) == item("first")
    assert stream.add_callback(ended.set)

    assert ended.wait(SECONDS)
    assert stream.add_callback(ended.set) is False
    assert stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED


# -- cancellation -----------------------------------------------------------------------------------------------------


def test_cancelling_a_stream_wakes_its_reader_and_its_handler(stub: Any) -> None:
    handler = Waiting()
    stream = stub(GetWorkItems=handler.stream).GetWorkItems(pb.GetWorkItemsRequest())
    assert next(stream) == item("first")

    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(failure, lambda: next(stream))
        assert handler.began.wait(SECONDS)
        assert stream.cancel() is True

        assert reading.result(SECONDS) == (grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
    assert handler.ended.wait(SECONDS)
    assert handler.contexts[0].is_active() is False
    assert stream.cancel() is False
    assert (stream.cancelled(), stream.done(), stream.running()) == (True, True, False)
    with pytest.raises(grpc.FutureCancelledError):
        stream.result()


def test_cancelling_a_stream_between_two_responses_closes_the_handler(stub: Any) -> None:
    closed = threading.Event()

    def handler(request: object, context: Any) -> Iterator[Any]:
        ended = threading.Event()
        context.add_callback(ended.set)
        try:
            yield item("first")
            assert ended.wait(SECONDS)
            yield item("second")
        finally:
            closed.set()

    stream = stub(GetWorkItems=handler).GetWorkItems(pb.GetWorkItemsRequest())
    assert next(stream) == item("first")
    stream.cancel()

    assert closed.wait(SECONDS)
    assert failure(lambda: next(stream))[0] is grpc.StatusCode.CANCELLED


def test_an_unreferenced_stream_is_cancelled(stub: Any) -> None:
    handler = Waiting()
    ended = threading.Event()

    def stream_handler(request: object, context: Any) -> Iterator[Any]:
        context.add_callback(ended.set)
        return handler.stream(request, context)

    stream = stub(GetWorkItems=stream_handler).GetWorkItems(pb.GetWorkItemsRequest())
    assert next(stream) == item("first")
    del stream
    gc.collect()

    assert ended.wait(SECONDS)


def test_the_handler_can_cancel_its_call(stub: Any) -> None:
    def handler(request: object, context: Any) -> Any:
        context.cancel()
        return response()

    code, _ = failure(lambda: stub(GetInstance=handler).GetInstance(request()))

    assert code is grpc.StatusCode.CANCELLED


def test_callbacks_are_called_when_a_call_ends_normally(stub: Any) -> None:
    ended = threading.Event()

    def handler(request: object, context: Any) -> Any:
        assert context.is_active()
        assert context.add_callback(ended.set)
        assert not ended.is_set()
        return response()

    stub(GetInstance=handler).GetInstance(request())

    assert ended.wait(SECONDS)


def test_a_callback_that_raises_does_not_keep_others_from_being_called(stub: Any) -> None:
    ended = threading.Event()

    def handler(request: object, context: Any) -> Any:
        context.add_callback(lambda: 1 / 0)
        context.add_callback(ended.set)
        return response()

    assert stub(GetInstance=handler).GetInstance(request()) == response()
    assert ended.wait(SECONDS)


# -- futures ----------------------------------------------------------------------------------------------------------


def test_a_future_of_a_response(stub: Any) -> None:
    called: list[Any] = []
    future = stub(GetInstance=lambda *_: response("later")).GetInstance.future(request())
    done = threading.Event()
    future.add_done_callback(lambda ended: (called.append(ended), done.set()))

    assert future.result(SECONDS) == response("later")
    assert future.exception() is None
    assert future.traceback() is None
    assert future.code() is grpc.StatusCode.OK
    assert (future.done(), future.cancelled(), future.running()) == (True, False, False)
    assert done.wait(SECONDS)
    assert called == [future]
    future.add_done_callback(called.append)
    assert called == [future, future]


def test_a_future_that_fails(stub: Any) -> None:
    def handler(request: object, context: Any) -> Any:
        context.abort(grpc.StatusCode.NOT_FOUND, "none")

    future = stub(GetInstance=handler).GetInstance.future(request())

    assert failure(future.result) == (grpc.StatusCode.NOT_FOUND, "none")
    assert future.exception().code() is grpc.StatusCode.NOT_FOUND
    assert (future.code(), future.details()) == (grpc.StatusCode.NOT_FOUND, "none")


def test_a_future_that_is_cancelled(stub: Any) -> None:
    handler = Waiting()
    future = stub(WaitForInstanceStart=handler).WaitForInstanceStart.future(request())
    assert handler.began.wait(SECONDS)
    with pytest.raises(grpc.FutureTimeoutError):
        future.result(timeout=0.01)

    assert future.cancel() is True

    assert handler.ended.wait(SECONDS)
    assert future.cancelled()
    assert future.code() is grpc.StatusCode.CANCELLED
    with pytest.raises(grpc.FutureCancelledError):
        future.result(SECONDS)


def test_a_future_with_a_deadline(stub: Any) -> None:
    release = threading.Event()

    def handler(request: object, context: Any) -> Any:
        assert release.wait(SECONDS)  # a handler that does not notice the deadline
        return response()

    future = stub(GetInstance=handler).GetInstance.future(request(), timeout=0.1)

    assert failure(lambda: future.result(SECONDS)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    release.set()


# -- metadata ---------------------------------------------------------------------------------------------------------


def test_metadata_of_the_client_reach_the_handler(stub: Any) -> None:
    seen: list[Any] = []

    def handler(request: object, context: Any) -> Any:
        seen.append([(entry.key, entry.value) for entry in context.invocation_metadata()])
        seen.append(dict(context.invocation_metadata()))
        return response()

    stub(GetInstance=handler).GetInstance(request(), metadata=(("taskhub", "default"), ("key-bin", b"\x00\xff")))

    assert [entry for entry in seen[0] if entry[0] != "user-agent"] == [
        ("taskhub", "default"),
        ("key-bin", b"\x00\xff"),
    ]
    assert seen[1]["taskhub"] == "default"


def test_metadata_of_the_handler_reach_the_client(stub: Any) -> None:
    def handler(request: object, context: Any) -> Any:
        context.send_initial_metadata((("early", "1"),))
        with pytest.raises(ValueError, match="Initial metadata no longer allowed!"):
            context.send_initial_metadata((("early", "2"),))
        context.set_trailing_metadata((("late", "3"),))
        assert list(context.trailing_metadata()) == [("late", "3")]
        return response()

    _, call = stub(GetInstance=handler).GetInstance.with_call(request())

    assert ("early", "1") in call.initial_metadata()
    assert ("late", "3") in call.trailing_metadata()


def test_metadata_of_a_stream(stub: Any) -> None:
    def handler(request: object, context: Any) -> Iterator[Any]:
        context.send_initial_metadata((("early", "1"),))
        yield item("a")
        context.set_trailing_metadata((("late", "2"),))

    stream = stub(GetWorkItems=handler).GetWorkItems(pb.GetWorkItemsRequest())

    assert ("early", "1") in stream.initial_metadata()
    assert list(stream) == [item("a")]
    assert ("late", "2") in stream.trailing_metadata()


def test_metadata_that_are_not_allowed(stub: Any) -> None:
    client = stub(GetInstance=lambda *_: response())

    code, details = failure(lambda: client.GetInstance(request(), metadata=(("Key", "value"),)))
    assert code is grpc.StatusCode.INTERNAL
    assert details.lower().startswith("invalid metadata")
    with pytest.raises(TypeError):
        client.GetInstance(request(), metadata=(("key", 1),))
    with pytest.raises(TypeError):
        client.GetInstance(request(), metadata=(("key-bin", "text"),))


# -- interceptors and connectivity ------------------------------------------------------------------------------------


class Header(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds metadata to calls."""

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(client_call_details._replace(metadata=(("added", "1"),)), request)

    intercept_unary_stream = intercept_unary_unary


def test_interceptors_of_the_client(connect: Connect) -> None:
    def name(context: Any) -> str:
        return str(dict(context.invocation_metadata())["added"])

    servicer = Servicer(
        GetInstance=lambda request, context: response(name(context)),
        GetWorkItems=lambda request, context: iter([item(name(context))]),
    )
    client = pb_grpc.TaskHubSidecarServiceStub(grpc.intercept_channel(connect(servicer), Header()))

    assert client.GetInstance(request()) == response("1")
    assert client.GetInstance.with_call(request())[0] == response("1")
    assert client.GetInstance.future(request()).result(SECONDS) == response("1")
    assert list(client.GetWorkItems(pb.GetWorkItemsRequest())) == [item("1")]


def test_upstreams_interceptor_counts_failures_of_the_transport(connect: Connect) -> None:
    codes = iter([grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE])
    recreated = threading.Event()

    def handler(request: object, context: Any) -> Any:
        context.abort(next(codes), "gone")

    tracker = grpc_resiliency.FailureTracker(threshold=2)
    interceptor = grpc_resiliency.ClientResiliencyInterceptor(tracker, recreated.set)
    client = pb_grpc.TaskHubSidecarServiceStub(
        grpc.intercept_channel(connect(Servicer(GetInstance=handler)), interceptor)
    )

    for expected in (False, True):
        assert failure(lambda: client.GetInstance(request()))[0] is grpc.StatusCode.UNAVAILABLE
        assert recreated.is_set() is expected


def test_a_channel_reports_that_it_is_ready(connect: Connect) -> None:
    channel = connect(Servicer())
    seen: list[grpc.ChannelConnectivity] = []
    ready = threading.Event()
    before = set(threading.enumerate())

    def report(state: grpc.ChannelConnectivity) -> None:
        seen.append(state)
        if state is grpc.ChannelConnectivity.READY:
            ready.set()

    channel.subscribe(report, try_to_connect=True)
    assert ready.wait(SECONDS)
    channel.unsubscribe(report)
    grpc.channel_ready_future(channel).result(SECONDS)
    assert seen[-1] is grpc.ChannelConnectivity.READY
    # gRPC's thread that watches the connectivity fails if the channel is closed before the thread has ended.
    wait_until(lambda: not any("(_run)" in thread.name for thread in set(threading.enumerate()) - before))


# -- closing ----------------------------------------------------------------------------------------------------------


def test_closing_a_channel_cancels_its_calls(connect: Connect) -> None:
    handler, stream_handler, future_handler = Waiting(), Waiting(), Waiting()
    channel = connect(
        Servicer(
            WaitForInstanceStart=handler,
            GetWorkItems=stream_handler.stream,
            WaitForInstanceCompletion=future_handler,
        )
    )
    client = pb_grpc.TaskHubSidecarServiceStub(channel)
    with ThreadPoolExecutor(2) as threads:
        blocking = threads.submit(failure, lambda: client.WaitForInstanceStart(request()))
        stream = client.GetWorkItems(pb.GetWorkItemsRequest())
        next(stream)
        reading = threads.submit(failure, lambda: next(stream))
        future = client.WaitForInstanceCompletion.future(request())
        for waiting in (handler, stream_handler, future_handler):
            assert waiting.began.wait(SECONDS)

        channel.close()

        assert blocking.result(SECONDS) == (grpc.StatusCode.CANCELLED, "Channel closed!")
        code, details = reading.result(SECONDS)
        assert code is grpc.StatusCode.CANCELLED
        assert "Channel closed!" in details
        assert failure(lambda: future.result(SECONDS)) == (grpc.StatusCode.CANCELLED, "Channel closed!")
    for waiting in (handler, stream_handler, future_handler):
        assert waiting.ended.wait(SECONDS)


def test_a_closed_channel_refuses_calls(connect: Connect) -> None:
    channel = connect(Servicer(GetInstance=lambda *_: response()))
    client = pb_grpc.TaskHubSidecarServiceStub(channel)
    with channel:
        client.GetInstance(request())

    with pytest.raises(ValueError, match="Cannot invoke RPC"):
        client.GetInstance(request())
    with pytest.raises(ValueError, match="Cannot invoke RPC"):
        client.GetInstance.future(request())
    with pytest.raises(ValueError, match="Cannot invoke RPC"):
        client.GetWorkItems(pb.GetWorkItemsRequest())
    channel.close()


# -- isolation --------------------------------------------------------------------------------------------------------


def test_what_the_handler_changes_in_a_request_is_not_seen_by_the_client(stub: Any) -> None:
    def handler(request: Any, context: object) -> Any:
        request.instanceId = "changed"
        return response()

    def stream_handler(request: Any, context: object) -> Iterator[Any]:
        request.maxConcurrentActivityWorkItems = 7
        yield item("a")

    client = stub(GetInstance=handler, GetWorkItems=stream_handler)
    sent, sent_to_stream = request("x"), pb.GetWorkItemsRequest()
    client.GetInstance(sent)
    client.GetInstance.future(sent).result(SECONDS)
    list(client.GetWorkItems(sent_to_stream))

    assert sent == request("x")
    assert sent_to_stream == pb.GetWorkItemsRequest()


def test_what_the_client_changes_in_a_request_is_not_seen_by_the_handler(stub: Any) -> None:
    kept: list[Any] = []
    released = threading.Event()

    def handler(request: Any, context: object) -> Any:
        kept.append(request)
        return response()

    def waiting_handler(request: Any, context: object) -> Any:
        assert released.wait(SECONDS)
        return handler(request, context)

    client = stub(GetInstance=handler, WaitForInstanceStart=waiting_handler)
    sent = request("first")
    client.GetInstance(sent)
    sent.instanceId = "second"
    future = client.WaitForInstanceStart.future(sent)
    sent.instanceId = "third"
    released.set()
    future.result(SECONDS)

    assert [message.instanceId for message in kept] == ["first", "second"]


def test_what_the_client_changes_in_a_response_is_not_seen_by_the_handler(stub: Any) -> None:
    kept, kept_item = response("kept"), item("kept")
    client = stub(GetInstance=lambda *_: kept, GetWorkItems=lambda *_: iter([kept_item]))

    client.GetInstance(request()).orchestrationState.name = "changed"
    client.GetInstance.future(request()).result(SECONDS).exists = False
    next(client.GetWorkItems(pb.GetWorkItemsRequest())).completionToken = "changed"

    assert kept == response("kept")
    assert kept_item == item("kept")


def test_what_the_handler_changes_in_a_response_is_not_seen_by_the_client(stub: Any) -> None:
    kept = item("first")

    def handler(request: object, context: object) -> Iterator[Any]:
        yield kept
        kept.completionToken = "second"
        yield kept

    first, last = stub(GetWorkItems=handler).GetWorkItems(pb.GetWorkItemsRequest())

    assert (first.completionToken, last.completionToken) == ("first", "second")


def test_context_variables_of_the_client_are_not_those_of_the_handler(stub: Any) -> None:
    variable = contextvars.ContextVar("variable", default="default")
    seen: list[str] = []

    def handler(request: object, context: object) -> Any:
        seen.append(variable.get())
        variable.set("the handler's")
        return response()

    def stream_handler(request: object, context: object) -> Iterator[Any]:
        handler(request, context)
        yield item("a")
        seen.append(variable.get())

    variable.set("the client's")
    client = stub(GetInstance=handler, GetWorkItems=stream_handler)
    client.GetInstance(request())
    list(client.GetWorkItems(pb.GetWorkItemsRequest()))

    assert seen[:2] == ["default", "default"]
    assert variable.get() == "the client's"


def test_many_calls_at_once(stub: Any) -> None:
    client = stub(
        GetInstance=lambda request, context: response(request.instanceId),
        GetWorkItems=lambda request, context: (item(str(number)) for number in range(20)),
    )

    def calls(number: int) -> None:
        for name in (f"{number}.{index}" for index in range(20)):
            assert client.GetInstance(request(name), timeout=SECONDS) == response(name)
            assert client.GetInstance.future(request(name)).result(SECONDS) == response(name)
        stream = client.GetWorkItems(pb.GetWorkItemsRequest())
        assert [message.completionToken for message in stream] == [str(index) for index in range(20)]

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(calls, range(12)))
