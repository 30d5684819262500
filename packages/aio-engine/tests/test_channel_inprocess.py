"""What only channels in this process have: threads, futures of servicers, loops that must not be blocked."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
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
    wait_until,
)

from durabletask_aio.engine._upstream import SERVICE, TaskHubGrpcClient, pb, pb_grpc
from durabletask_aio.engine.calls import AbortError, CallContext, CallStatus, Method
from durabletask_aio.engine.channel import InProcessAioChannel, InProcessChannel
from durabletask_aio.engine.deadlines import DeadlineTimer


def stub_of(channel: Any) -> Any:
    return pb_grpc.TaskHubSidecarServiceStub(channel)


@pytest.fixture
def stub() -> Iterator[Callable[..., Any]]:
    """A function that returns a stub of a servicer with some handlers, over a channel in this process."""
    channels: list[InProcessChannel] = []

    def of(**handlers: Any) -> Any:
        channels.append(InProcessChannel(Servicer(**handlers)))
        return stub_of(channels[-1])

    yield of
    for channel in channels:
        channel.close()


# -- threads ----------------------------------------------------------------------------------------------------------


def test_handlers_run_on_the_thread_of_the_client(stub: Any) -> None:
    threads: list[threading.Thread] = []

    def handler(request: object, context: Any) -> Any:
        threads.append(threading.current_thread())
        return response()

    def stream_handler(request: object, context: Any) -> Iterator[Any]:
        handler(request, context)
        yield item("a")

    before = threading.active_count()
    client = stub(GetInstance=handler, GetWorkItems=stream_handler)
    client.GetInstance(request(), timeout=60)
    list(client.GetWorkItems(pb.GetWorkItemsRequest()))

    assert threads == [threading.current_thread()] * 2
    assert threading.active_count() == before


def test_ctrl_c_while_a_handler_waits_ends_the_call_and_reaches_the_client(stub: Any) -> None:
    contexts: list[Any] = []

    def handler(request: object, context: Any) -> Any:
        contexts.append(context)
        raise KeyboardInterrupt

    def stream_handler(request: object, context: Any) -> Iterator[Any]:
        yield item("a")
        handler(request, context)

    client = stub(GetInstance=handler, GetWorkItems=stream_handler)
    with pytest.raises(KeyboardInterrupt):
        client.GetInstance(request())
    stream = client.GetWorkItems(pb.GetWorkItemsRequest())
    assert next(stream) == item("a")
    with pytest.raises(KeyboardInterrupt):
        next(stream)

    assert [context.is_active() for context in contexts] == [False, False]
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.CANCELLED


def test_an_exception_of_a_handler_is_logged_with_its_traceback(stub: Any, caplog: pytest.LogCaptureFixture) -> None:
    def handler(request: object, context: Any) -> Any:
        raise ValueError("broken")

    def aborting(request: object, context: Any) -> Any:
        context.abort(grpc.StatusCode.NOT_FOUND, "none")

    client = stub(GetInstance=handler, StartInstance=aborting)
    for call in (lambda: client.GetInstance(request()), lambda: client.StartInstance(pb.CreateInstanceRequest())):
        with pytest.raises(grpc.RpcError):
            call()

    assert [record.getMessage() for record in caplog.records] == ["Exception calling application: broken"]
    assert caplog.records[0].name == "durabletask.aio.engine"
    assert "handler" in caplog.text


def test_streams_of_requests_are_refused() -> None:
    channels: list[Any] = [InProcessChannel(SecondServicer())]
    channels.append(grpc.intercept_channel(channels[0]))
    for channel in channels:
        for kind in (channel.stream_unary, channel.stream_stream):
            with pytest.raises(NotImplementedError, match=r"/tests\.Second/Upload: streams of requests"):
                kind("/tests.Second/Upload")


async def test_an_unreferenced_stream_of_the_asyncio_api_is_cancelled() -> None:
    handler = Waiting()
    ended = threading.Event()
    contexts: list[Any] = []

    def stream_handler(request: object, context: Any) -> Iterator[Any]:
        contexts.append(context)  # which must not keep the stream alive
        context.add_callback(ended.set)
        return handler.stream(request, context)

    async with InProcessAioChannel(Servicer(GetWorkItems=stream_handler)) as channel:
        stream = stub_of(channel).GetWorkItems(pb.GetWorkItemsRequest())
        assert await stream.read() == item("first")
        del stream
        gc.collect()

        assert await asyncio.to_thread(ended.wait, SECONDS)


# -- futures of a servicer --------------------------------------------------------------------------------------------


class FutureServicer(Servicer):
    """Answers waits with futures, as the engine does."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Future[Any]] = []
        self.began = threading.Event()
        self.futures = {"WaitForInstanceStart": self.wait}

    def wait(self, request: Any) -> Future[Any]:
        if request.instanceId == "refused":
            raise AbortError(grpc.StatusCode.NOT_FOUND, "no such instance")
        future: Future[Any] = Future()
        self.waiting.append(future)
        self.began.set()
        return future


async def test_a_thousand_waiting_clients_hold_no_threads() -> None:
    servicer = FutureServicer()
    async with InProcessAioChannel(servicer) as channel:
        client = stub_of(channel)
        before = threading.active_count()
        calls = [client.WaitForInstanceStart(request(), timeout=60) for _ in range(1000)]
        assert threading.active_count() == before
        assert len(servicer.waiting) == 1000

        answering = threading.Thread(target=lambda: [future.set_result(response("it")) for future in servicer.waiting])
        answering.start()
        assert await asyncio.wait_for(asyncio.gather(*calls), SECONDS) == [response("it")] * 1000
        answering.join()


async def test_futures_that_fail() -> None:
    servicer = FutureServicer()
    async with InProcessAioChannel(servicer) as channel:
        client = stub_of(channel)
        refused = client.WaitForInstanceStart(request("refused"))
        aborted, failed, cancelled = (client.WaitForInstanceStart(request()) for _ in range(3))
        servicer.waiting[0].set_exception(AbortError(grpc.StatusCode.UNAVAILABLE, "the engine stops"))
        servicer.waiting[1].set_exception(ValueError("broken"))
        servicer.waiting[2].cancel()

        for call, code, details in (
            (refused, grpc.StatusCode.NOT_FOUND, "no such instance"),
            (aborted, grpc.StatusCode.UNAVAILABLE, "the engine stops"),
            (failed, grpc.StatusCode.UNKNOWN, "Exception calling application: broken"),
            (cancelled, grpc.StatusCode.CANCELLED, "the servicer cancelled the call"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(call, SECONDS)
            assert (caught.value.code(), caught.value.details()) == (code, details)


async def test_the_future_is_cancelled_when_its_call_ends_first() -> None:
    servicer = FutureServicer()
    async with InProcessAioChannel(servicer) as channel:
        client = stub_of(channel)
        cancelled = client.WaitForInstanceStart(request())
        with pytest.raises(grpc.aio.AioRpcError, match="DEADLINE_EXCEEDED"):
            await client.WaitForInstanceStart(request(), timeout=0.05)
        cancelled.cancel()
        closed = client.WaitForInstanceStart(request())
    with pytest.raises(asyncio.CancelledError):
        await closed

    assert [future.cancelled() for future in servicer.waiting] == [True, True, True]


def test_a_future_of_the_servicer_without_threads() -> None:
    servicer = FutureServicer()
    with InProcessChannel(servicer) as channel:
        client = stub_of(channel)
        before = threading.active_count()
        calls = [client.WaitForInstanceStart.future(request()) for _ in range(3)]
        assert threading.active_count() == before
        calls[1].cancel()
        late = client.WaitForInstanceStart.future(request(), timeout=0.05)
        servicer.waiting[0].set_result(response("it"))

        assert calls[0].result(SECONDS) == response("it")
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            late.result(SECONDS)
    assert [future.cancelled() for future in servicer.waiting] == [False, True, True, True]
    with pytest.raises(grpc.RpcError, match="Channel closed!"):
        calls[2].result(SECONDS)


@pytest.mark.parametrize("name", ["Unknown", "GetWorkItems"])
@pytest.mark.parametrize("channel", [InProcessChannel, InProcessAioChannel])
def test_futures_must_fit_the_service(name: str, channel: Callable[[object], object]) -> None:
    servicer = Servicer()
    servicer.futures = {name: lambda request: Future()}

    with pytest.raises(ValueError, match=f"futures of Servicer has {name}, which TaskHubSidecarService does not have"):
        channel({SERVICE: servicer, SECOND: SecondServicer()})


async def test_metadata_that_are_not_allowed_in_the_asyncio_api() -> None:
    async with InProcessAioChannel(Servicer(GetInstance=lambda *_: response())) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="Invalid metadata: metadata key 'Key' is not of lower-case"):
            await stub_of(channel).GetInstance(request(), metadata=(("Key", "value"),))
        with pytest.raises(TypeError, match="the value of metadata key 'key' must be str, not int"):
            stub_of(channel).GetInstance(request(), metadata=(("key", 1),))


def test_an_exception_that_cannot_be_printed(stub: Any) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def handler(request: object, context: Any) -> Any:
        raise Unprintable

    with pytest.raises(grpc.RpcError, match="Exception calling application: Unprintable, which cannot be printed"):
        stub(GetInstance=handler).GetInstance(request())


async def test_calls_show_whether_they_have_ended() -> None:
    handler = Waiting()
    servicer = Servicer(GetInstance=lambda *_: response(), WaitForInstanceStart=handler)
    with InProcessChannel(servicer) as channel:
        future = stub_of(channel).WaitForInstanceStart.future(request())
        assert repr(future) == "<ClientCall object>"
        _, ended = stub_of(channel).GetInstance.with_call(request())
        assert repr(ended) == '<ClientCall of RPC that terminated with:\n\tstatus = StatusCode.OK\n\tdetails = ""\n>'
    async with InProcessAioChannel(servicer) as channel:
        call = stub_of(channel).WaitForInstanceStart(request())
        assert repr(call) == "<AioUnaryCall in flight>"
        call.cancel()
        assert "CANCELLED" in repr(call)


# -- copies of messages -----------------------------------------------------------------------------------------------


class Frugal(Servicer):
    """Promises not to keep messages, so that they are not copied."""

    keeps_messages = False


def test_nothing_is_copied_for_a_servicer_that_keeps_no_messages() -> None:
    seen: list[Any] = []
    answer, answered_item = response("own"), item("own")

    def handler(request: Any, context: object) -> Any:
        seen.append(request)
        return answer

    with InProcessChannel(Frugal(GetInstance=handler, GetWorkItems=lambda *_: iter([answered_item]))) as channel:
        client, sent = stub_of(channel), request()

        assert client.GetInstance(sent) is answer
        assert seen[0] is sent
        assert next(client.GetWorkItems(pb.GetWorkItemsRequest())) is answered_item


def test_a_request_is_copied_if_the_client_does_not_wait_for_the_handler() -> None:
    seen: list[Any] = []
    released = threading.Event()

    def handler(request: Any, context: object) -> Any:
        assert released.wait(SECONDS)
        seen.append(request)
        return response()

    with InProcessChannel(Frugal(GetInstance=handler)) as channel:
        sent = request("first")
        call = stub_of(channel).GetInstance.future(sent)
        sent.instanceId = "second"
        released.set()
        call.result(SECONDS)

    assert seen == [request("first")]


# -- loops that must not be blocked -----------------------------------------------------------------------------------


async def test_a_blocking_wait_on_such_a_loop_is_refused() -> None:
    blocked = asyncio.get_running_loop()
    servicer = Servicer(WaitForInstanceCompletion=lambda *_: response("done"), GetInstance=lambda *_: response("state"))
    with InProcessChannel(servicer, blocking_loops=lambda loop: loop is blocked) as channel:
        client = TaskHubGrpcClient(channel=channel)
        expected = (
            r"wait_for_orchestration_completion\(\) would block the event loop that runs the activities it waits for, "
            r"forever\n"
            r"  wrong: client\.wait_for_orchestration_completion\(\.\.\.\)\n"
            r"  right: await async_client\.wait_for_orchestration_completion\(\.\.\.\), with the async client\n"
            r"  right: await asyncio\.to_thread\(client\.wait_for_orchestration_completion, \.\.\.\)"
        )
        with pytest.raises(RuntimeError, match=f"^{expected}$"):
            client.wait_for_orchestration_completion("x")
        with pytest.raises(RuntimeError, match=r"^wait_for_orchestration_start\(\) would block"):
            client.wait_for_orchestration_start("x")
        intercepted = stub_of(grpc.intercept_channel(channel, Passing()))
        with pytest.raises(RuntimeError, match="would block the event loop"):
            intercepted.WaitForInstanceCompletion(request())

        state = await asyncio.to_thread(client.wait_for_orchestration_completion, "x")
        assert state is not None
        assert state.name == "done"
        assert stub_of(channel).WaitForInstanceCompletion.future(request()).result(SECONDS) == response("done")
        assert stub_of(channel).GetInstance(request()) == response("state")


class Passing(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(client_call_details, request)


def test_a_blocking_wait_on_another_loop_or_on_none_is_allowed() -> None:
    asked: list[object] = []

    def is_blocked(loop: object) -> bool:
        asked.append(loop)
        return False

    async def wait_in_loop() -> Any:
        return client.WaitForInstanceCompletion(request())

    servicer = Servicer(WaitForInstanceCompletion=lambda *_: response("done"))
    with InProcessChannel(servicer, blocking_loops=is_blocked) as channel:
        client = stub_of(channel)

        assert client.WaitForInstanceCompletion(request()) == response("done")
        assert asked == []
        assert asyncio.run(wait_in_loop()) == response("done")
        assert len(asked) == 1


# -- the state of a call ----------------------------------------------------------------------------------------------


def test_only_one_thread_ends_a_call() -> None:
    for _ in range(50):
        context = CallContext(Method("Test", lambda *_: None), None)
        ends: list[int] = []
        context.add_callback(functools.partial(ends.append, 1))
        barrier = threading.Barrier(4)

        def end(code: grpc.StatusCode, context: CallContext = context, barrier: Any = barrier) -> bool:
            barrier.wait(SECONDS)
            return context.finish(CallStatus(code, ""))

        codes = [grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED, grpc.StatusCode.UNKNOWN]
        with ThreadPoolExecutor(4) as threads:
            won = list(threads.map(end, codes))

        assert won.count(True) == 1
        assert ends == [1]
        assert context.status == CallStatus(codes[won.index(True)], "")


def test_a_client_has_no_identity_in_this_process(stub: Any) -> None:
    seen: list[Any] = []

    def handler(request: object, context: Any) -> Any:
        seen.append((context.peer(), context.peer_identities(), context.peer_identity_key(), context.auth_context()))
        context.set_compression(grpc.Compression.Gzip)
        context.disable_next_message_compression()
        return response()

    stub(GetInstance=handler).GetInstance(request(), compression=grpc.Compression.Gzip, wait_for_ready=True)

    assert seen == [("inprocess", None, None, {})]


def test_the_channel_forgets_calls_that_have_ended() -> None:
    handler = Waiting()
    servicer = Servicer(GetInstance=lambda *_: response(), GetWorkItems=handler.stream)
    with InProcessChannel(servicer) as channel:
        client = stub_of(channel)
        client.GetInstance(request())
        client.GetInstance.future(request()).result(SECONDS)
        stream = client.GetWorkItems(pb.GetWorkItemsRequest())
        next(stream)
        assert len(channel._in_flight) == 1
        stream.cancel()

        wait_until(lambda: not channel._in_flight)


async def test_a_loop_that_is_closed_while_a_call_is_in_flight() -> None:
    servicer = FutureServicer()
    channel = InProcessAioChannel(servicer)

    async def start() -> None:
        stub_of(channel).WaitForInstanceStart(request())

    await asyncio.to_thread(asyncio.run, start())
    servicer.waiting[0].set_result(response())  # nothing is waiting for it any more
    await channel.close()


def test_context_variables_of_a_handler_last_as_long_as_its_stream(stub: Any) -> None:
    variable = contextvars.ContextVar("variable", default="default")

    def handler(request: object, context: object) -> Iterator[Any]:
        variable.set("the stream's")
        yield item("a")
        yield item(variable.get())

    stream = stub(GetWorkItems=handler).GetWorkItems(pb.GetWorkItemsRequest())

    assert next(stream) == item("a")
    variable.set("the client's")
    assert next(stream) == item("the stream's")


# -- deadlines --------------------------------------------------------------------------------------------------------


@pytest.fixture
def timer() -> Iterator[DeadlineTimer]:
    others.clear()
    others.update(timer_threads())  # of channels that earlier tests have left open
    timer = DeadlineTimer()
    yield timer
    timer.close()
    wait_until(lambda: not timer_threads())


others: set[threading.Thread] = set()


def timer_threads() -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if thread.name == "durabletask-aio-deadlines" and thread not in others
    ]


def test_functions_are_called_at_their_times_and_in_their_order(timer: DeadlineTimer) -> None:
    called: list[tuple[str, bool]] = []
    last = threading.Event()
    now = time.monotonic()

    def record(name: str, when: float) -> Callable[[], None]:
        return lambda: called.append((name, time.monotonic() >= when))

    for name, delay in (("second", 0.1), ("first", 0.05), ("cancelled", 0.07), ("third", 0.15)):
        cancel = timer.schedule(now + delay, record(name, now + delay))
        if name == "cancelled":
            cancel()
            cancel()
    timer.schedule(now + 0.2, last.set)

    assert last.wait(SECONDS)
    assert called == [("first", True), ("second", True), ("third", True)]
    assert len(timer_threads()) == 1


def test_what_is_due_is_called_at_once(timer: DeadlineTimer) -> None:
    called = threading.Event()
    cancel = timer.schedule(time.monotonic() + 3600, lambda: None)
    wait_until(lambda: timer._wakes_at < math.inf)
    timer.schedule(time.monotonic() - 1, called.set)
    cancel()

    assert called.wait(SECONDS)


def test_the_thread_of_the_timer_ends_and_comes_back(timer: DeadlineTimer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durabletask_aio.engine.deadlines._IDLE_SECONDS", 0.01)
    for _ in range(2):
        called = threading.Event()
        timer.schedule(time.monotonic(), called.set)
        assert called.wait(SECONDS)
        wait_until(lambda: not timer_threads())


async def test_a_closed_channel_of_the_asyncio_api_leaves_no_threads() -> None:
    before = set(threading.enumerate())
    handler = Waiting()
    async with InProcessAioChannel(Servicer(GetInstance=handler, GetWorkItems=handler.stream)) as channel:
        call = stub_of(channel).GetInstance(request())
        stream = stub_of(channel).GetWorkItems(pb.GetWorkItemsRequest())
        assert await stream.read() == item("first")
        reading = asyncio.ensure_future(stream.read())
        await asyncio.sleep(0)
        assert set(threading.enumerate()) - before
    for waiting in (call, reading):
        with pytest.raises(asyncio.CancelledError):
            await waiting

    await asyncio.get_running_loop().run_in_executor(None, handler.ended.wait, SECONDS)
    wait_until(lambda: not [t for t in set(threading.enumerate()) - before if "aio-channel" in t.name])


def test_many_blocked_handlers_do_not_keep_others_from_running() -> None:
    handler = Waiting()
    with InProcessChannel(Servicer(WaitForInstanceStart=handler, GetInstance=lambda *_: response("it"))) as channel:
        client = stub_of(channel)
        waits = [client.WaitForInstanceStart.future(request()) for _ in range(40)]

        assert client.GetInstance.future(request()).result(SECONDS) == response("it")
        assert not any(wait.done() for wait in waits)


def test_a_channel_that_is_not_closed_does_not_delay_the_exit() -> None:
    program = """
import threading
from channel_support import Servicer, Waiting, pb_grpc, request
from durabletask_aio.engine.channel import InProcessChannel

handler = Waiting()
client = pb_grpc.TaskHubSidecarServiceStub(InProcessChannel(Servicer(WaitForInstanceStart=handler)))
call = client.WaitForInstanceStart.future(request(), timeout=3600)
assert handler.began.wait(20)
"""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < SECONDS


def test_a_closed_channel_leaves_no_threads() -> None:
    before = set(threading.enumerate())
    handler = Waiting()
    with InProcessChannel(Servicer(WaitForInstanceStart=handler)) as channel:
        future = stub_of(channel).WaitForInstanceStart.future(request(), timeout=3600)
        assert handler.began.wait(SECONDS)
        assert set(threading.enumerate()) - before
    with pytest.raises(grpc.RpcError):
        future.result(SECONDS)

    wait_until(lambda: not set(threading.enumerate()) - before)


def test_logging_of_callbacks_that_raise(stub: Any, caplog: pytest.LogCaptureFixture) -> None:
    def handler(request: object, context: Any) -> Any:
        context.add_callback(lambda: 1 / 0)
        return response()

    with caplog.at_level(logging.ERROR):
        stub(GetInstance=handler).GetInstance(request())

    assert "Exception calling callback!" in caplog.text
    assert "ZeroDivisionError" in caplog.text
