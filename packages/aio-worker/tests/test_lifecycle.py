"""Starting, stopping, waiting, losing the engine and finding it again; and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import grpc
import pytest
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.grpc_options import GrpcChannelOptions, GrpcWorkerResiliencyOptions
from durabletask.worker import TaskHubGrpcWorker as UpstreamWorker
from worker_support import QUIET, call_one, finished, run, started, wait_until

from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker.binding import binding_of
from durabletask_aio.worker.worker import TaskHubGrpcWorker

QUICK = GrpcWorkerResiliencyOptions(reconnect_backoff_base_seconds=0.05, reconnect_backoff_cap_seconds=0.2)


async def echo(ctx: Any, value: Any) -> Any:
    return value


async def workflow(ctx: Any, value: Any) -> Any:
    return await ctx.call_activity("echo", input=value)


def new_worker(engine: LocalBackend, **options: Any) -> TaskHubGrpcWorker:
    worker = TaskHubGrpcWorker(host_address=engine.address, **{"logger": QUIET, **options})
    worker.add_orchestrator(workflow)
    worker.add_activity(echo)
    return worker


@pytest.mark.parametrize("kind", [UpstreamWorker, TaskHubGrpcWorker], ids=["upstream's class", "our class"])
class TestBothClasses:
    def test_can_be_restarted_and_leave_nothing_behind(
        self, engine: LocalBackend, client: TaskHubGrpcClient, kind: Any, no_leaks: None
    ) -> None:
        worker = started(engine, echo, orchestrators=[workflow], worker_class=kind)
        first = run(client, "workflow", 1)
        worker.stop()
        worker.start()
        second = run(client, "workflow", 2)
        worker.stop()

        assert (first.serialized_output, second.serialized_output) == ("1", "2")

    def test_stop_twice_without_harm_and_start_twice_with_upstreams_error(
        self, engine: LocalBackend, kind: Any, no_leaks: None
    ) -> None:
        worker = started(engine, echo, worker_class=kind)
        with pytest.raises(RuntimeError, match=r"^The worker is already running\.$"):
            worker.start()
        worker.stop()
        worker.stop()

    def test_stop_again_in_the_middle_of_a_stop_as_a_signal_handler_does(
        self, kind: Any, engine: LocalBackend, no_leaks: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[str] = []
        original = UpstreamWorker.stop

        def stop(self: Any) -> None:
            calls.append("stop")
            if len(calls) == 1:
                self.stop()
            original(self)

        monkeypatch.setattr(UpstreamWorker, "stop", stop)
        worker = started(engine, orchestrators=[workflow], worker_class=kind)
        worker.stop()

        assert calls == ["stop", "stop"]
        assert not worker._is_running

    def test_work_as_upstreams_context_manager(
        self, engine: LocalBackend, client: TaskHubGrpcClient, kind: Any, no_leaks: None
    ) -> None:
        with kind(host_address=engine.address, logger=QUIET) as worker:
            worker.add_orchestrator(workflow)
            worker.add_activity(echo)
            worker.start()
            assert run(client, "workflow", 3).serialized_output == "3"

    def test_call_a_start_that_was_wrapped_on_the_class(
        self, engine: LocalBackend, kind: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        called: list[Any] = []
        original = UpstreamWorker.start

        def start(self: Any) -> None:
            called.append(self)
            self.add_activity(lambda ctx, value: value, name="late")
            original(self)

        monkeypatch.setattr(UpstreamWorker, "start", start)
        worker = started(engine, echo, worker_class=kind)
        worker.stop()

        assert called == [worker]


def alive() -> dict[str, int]:
    """Channels, open loops and unfinished tasks of the whole process."""
    gc.collect()
    objects = gc.get_objects()
    return {
        "channels": sum(isinstance(each, grpc.Channel) for each in objects),
        "loops": sum(isinstance(each, asyncio.BaseEventLoop) and not each.is_closed() for each in objects),
        "tasks": sum(isinstance(each, asyncio.Task) and not each.done() for each in objects),
    }


@pytest.mark.parametrize("kind", [UpstreamWorker, TaskHubGrpcWorker], ids=["upstream's class", "our class"])
def test_starting_and_stopping_leaves_no_channel_loop_or_task(
    engine: LocalBackend, client: TaskHubGrpcClient, kind: Any, no_leaks: None
) -> None:
    async def lingering(ctx: Any, _: Any) -> None:
        await ctx.wait_for_external_event("never")

    worker = kind(host_address=engine.address, logger=QUIET)
    worker.add_orchestrator(workflow)
    worker.add_orchestrator(lingering)
    worker.add_activity(echo)
    counts = []
    gc.freeze()  # what is there already need not be counted each time
    try:
        for number in range(4):
            worker.start()
            assert run(client, "workflow", number).serialized_output == str(number)
            client.wait_for_orchestration_start(client.schedule_new_orchestration("lingering"), timeout=30)
            counts.append(alive())
            worker.stop()
            counts.append(alive())
    finally:
        gc.unfreeze()

    while_running, after = counts[0::2], counts[1::2]
    assert while_running[0]["loops"] > after[0]["loops"], "the count does not see loops"
    assert after == [after[0]] * 4


class TestTheEngineGoesAway:
    def test_and_comes_back_and_work_goes_on(self, no_leaks: None, caplog: pytest.LogCaptureFixture) -> None:
        backend = LocalBackend()
        backend.start()
        client = TaskHubGrpcClient(host_address=backend.address, logger=QUIET)
        caplog.set_level(logging.INFO, logger="test.reconnect")
        worker = new_worker(backend, resiliency_options=QUICK, logger=logging.getLogger("test.reconnect"))
        worker.start()
        try:
            assert run(client, "workflow", 1).serialized_output == "1"
            backend.stop()
            time.sleep(0.2)
            backend.start()
            assert finished(client, _schedule(client, 2)).serialized_output == "2"
        finally:
            worker.stop()
            client.close()
            backend.stop()

        said = [record.getMessage() for record in caplog.records]
        connected = [index for index, line in enumerate(said) if line.startswith("Successfully connected to localhost")]
        assert len(connected) >= 2, said
        assert any("retrying" in line for line in said[connected[0] : connected[-1]]), said

    def test_while_activities_run_and_the_worker_stops_without_a_word_of_errors(
        self, no_leaks: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        begun = threading.Event()

        async def endless(ctx: Any, _: Any) -> None:
            begun.set()
            await asyncio.sleep(3600)

        backend = LocalBackend()
        backend.start()
        worker = new_worker(
            backend, resiliency_options=QUICK, stop_grace_period=0.05, logger=logging.getLogger("test.gone")
        )
        worker.add_activity(endless)
        worker.add_orchestrator(call_one)
        worker.start()
        client = TaskHubGrpcClient(host_address=backend.address, logger=QUIET)
        client.schedule_new_orchestration("call_one", input=["endless", None])
        assert begun.wait(30)
        client.close()
        backend.stop()
        worker.stop()
        gc.collect()

        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []

    def test_before_the_worker_stops(self, no_leaks: None) -> None:
        backend = LocalBackend()
        backend.start()
        worker = new_worker(backend, resiliency_options=QUICK)
        worker.start()
        backend.stop()
        worker.stop()


def _schedule(client: TaskHubGrpcClient, value: int) -> str:
    for _ in range(200):
        try:
            return client.schedule_new_orchestration("workflow", input=value)
        except grpc.RpcError:
            time.sleep(0.05)
    raise AssertionError("the engine did not come back")


class TestAsyncWith:
    async def test_stops_without_blocking_the_loop(
        self, engine: LocalBackend, client: TaskHubGrpcClient, no_leaks: None
    ) -> None:
        ticks: list[float] = []
        begun = asyncio.Event()

        async def slow(ctx: Any, _: Any) -> None:
            begun.set()
            while not ctx.is_cancellation_requested:
                await asyncio.sleep(0.01)
            for _ in range(10):
                ticks.append(time.monotonic())
                await asyncio.sleep(0.01)

        async with new_worker(engine) as worker:
            worker.add_activity(slow)
            worker.add_orchestrator(call_one)
            worker.start()
            await asyncio.to_thread(client.schedule_new_orchestration, "call_one", input=["slow", None])
            await begun.wait()

        assert len(ticks) == 10

    async def test_stop_on_the_loop_of_the_activities_is_refused(self, engine: LocalBackend) -> None:
        async with new_worker(engine) as worker:
            worker.start()
            with pytest.raises(RuntimeError, match=r"right: await asyncio\.to_thread\(worker\.stop\)"):
                worker.stop()
            await asyncio.to_thread(worker.stop)

    async def test_cancellation_ends_the_grace_period_but_not_the_stop(
        self, engine: LocalBackend, client: TaskHubGrpcClient, no_leaks: None
    ) -> None:
        begun = asyncio.Event()

        async def endless(ctx: Any, _: Any) -> None:
            begun.set()
            await asyncio.sleep(3600)

        worker = new_worker(engine, stop_grace_period=3600)
        worker.add_activity(endless)
        worker.add_orchestrator(call_one)

        async def main() -> None:
            async with worker:
                worker.start()
                await asyncio.to_thread(client.schedule_new_orchestration, "call_one", input=["endless", None])
                await begun.wait()

        running = asyncio.ensure_future(main())
        await begun.wait()
        await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not worker._is_running


class TestRun:
    async def test_works_until_it_is_cancelled(
        self, engine: LocalBackend, client: TaskHubGrpcClient, no_leaks: None
    ) -> None:
        worker = new_worker(engine)
        running = asyncio.ensure_future(worker.run())
        await asyncio.sleep(0)
        state = await asyncio.to_thread(run, client, "workflow", 5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        assert state.serialized_output == "5"
        assert not worker._is_running

    @pytest.mark.skipif(sys.platform == "win32", reason="no signals to send to oneself there")
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_ends_normally_on_a_signal_and_puts_the_handlers_back(
        self, engine: LocalBackend, client: TaskHubGrpcClient, number: signal.Signals, no_leaks: None
    ) -> None:
        before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
        worker = new_worker(engine)

        async def main() -> str:
            loop = asyncio.get_running_loop()
            outer = {each: signal.getsignal(each) for each in before}
            loop.call_later(0.3, os.kill, os.getpid(), number)
            await worker.run()
            assert {each: signal.getsignal(each) for each in before} == outer
            return "ended"

        assert asyncio.run(main()) == "ended"
        assert {each: signal.getsignal(each) for each in before} == before
        assert not worker._is_running

    def test_leaves_signals_alone_if_asked_to_and_in_other_threads(self, engine: LocalBackend) -> None:
        seen: list[Any] = []

        async def main(**options: Any) -> None:
            worker = new_worker(engine)
            running = asyncio.ensure_future(worker.run(**options))
            await asyncio.sleep(0.05)
            seen.append(signal.getsignal(signal.SIGTERM))
            running.cancel()
            await asyncio.wait([running])

        before = signal.getsignal(signal.SIGTERM)
        asyncio.run(main(handle_signals=False))
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        thread.join()

        assert seen == [before, before]

    async def test_of_a_worker_that_is_running_is_refused_and_it_goes_on(
        self, engine: LocalBackend, client: TaskHubGrpcClient, no_leaks: None
    ) -> None:
        worker = new_worker(engine)
        running = asyncio.ensure_future(worker.run())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match=r"already running\n.*\n  right: await worker\.run\(\)$"):
            await worker.run()
        state = await asyncio.to_thread(run, client, "workflow", 6)
        running.cancel()
        await asyncio.wait([running])

        assert state.serialized_output == "6"

    async def test_says_what_it_does(self, engine: LocalBackend, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, logger="test.lifecycle"):
            worker = new_worker(engine, logger=logging.getLogger("test.lifecycle"))
            running = asyncio.ensure_future(worker.run())
            assert await asyncio.to_thread(wait_until, lambda: "Successfully connected" in caplog.text)
            running.cancel()
            await asyncio.wait([running])

        for line in ("Starting gRPC worker", "Created fresh connection", "Stopping gRPC worker", "shutdown completed"):
            assert line in caplog.text


class TestSessionsAndRestarts:
    @pytest.mark.parametrize(("kind", "generator_hits"), [(UpstreamWorker, 0), (TaskHubGrpcWorker, 3)])
    def test_upstreams_class_keeps_async_workflows_and_ours_generators_too(
        self,
        engine: LocalBackend,
        client: TaskHubGrpcClient,
        kind: Any,
        generator_hits: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        async def chain(ctx: Any, count: int) -> None:
            for number in range(count):
                await ctx.call_activity("echo", input=number)

        def generator(ctx: Any, count: int) -> Any:
            for number in range(count):
                yield ctx.call_activity("echo", input=number)

        monkeypatch.setenv("DT_MAX_EXTENDED_SESSIONS", "10")
        worker = started(engine, echo, orchestrators=[chain, generator], worker_class=kind)
        try:
            run(client, "chain", 3)
            after_chain = worker.extended_session_stats.hits
            run(client, "generator", 3)
            assert wait_until(lambda: worker.extended_session_stats.live == 0)
            stats = worker.extended_session_stats
        finally:
            worker.stop()

        assert (after_chain, stats.hits) == (3, 3 + generator_hits)
        assert not stats.misses
        assert sum(stats.evictions.values()) == 0

    def test_sessions_end_with_the_worker_and_instances_go_on_after_it(
        self, engine: LocalBackend, client: TaskHubGrpcClient, no_leaks: None
    ) -> None:
        closed: list[str] = []

        async def waiting(ctx: Any, _: Any) -> Any:
            try:
                return await ctx.wait_for_external_event("go")
            finally:
                closed.append(threading.current_thread().name)

        worker = started(engine, orchestrators=[waiting], max_extended_sessions=100)
        instance_id = client.schedule_new_orchestration("waiting")
        assert wait_until(lambda: worker.extended_session_stats.live == 1)
        worker.stop()
        assert len(closed) == 1
        assert closed[0].startswith("durabletask-aio-turns-")
        assert worker.extended_session_stats.evictions["stop"] == 1
        worker.start()
        client.raise_orchestration_event(instance_id, "go", data=7)
        state = finished(client, instance_id)
        worker.stop()

        assert (state.runtime_status, state.serialized_output) == (OrchestrationStatus.COMPLETED, "7")
        assert worker.extended_session_stats.misses["absent"] == 1


def test_a_binding_has_threads_only_while_its_worker_runs(engine: LocalBackend, no_leaks: None) -> None:
    before = set(threading.enumerate())
    worker = new_worker(engine)
    assert binding_of(worker) is not None
    assert set(threading.enumerate()) == before


class TestALargeHistory:
    def test_reaches_our_worker_beyond_the_limit_of_grpc(self, engine: LocalBackend, client: TaskHubGrpcClient) -> None:
        """Upstream's worker loses its stream, and with it the turns of all other instances, at each delivery."""

        async def length(ctx: Any, _: Any) -> int:
            return len(await ctx.call_activity("large"))

        def large(ctx: Any, _: Any) -> str:
            return "x" * 5_000_000

        worker = started(engine, large, orchestrators=[length])
        try:
            state = run(client, "length")
        finally:
            worker.stop()

        assert state.serialized_output == "5000000"

    @pytest.mark.parametrize(
        "options",
        [
            GrpcChannelOptions(max_receive_message_length=1024),
            GrpcChannelOptions(raw_options=[("grpc.max_receive_message_length", 1024)]),
        ],
    )
    def test_a_limit_of_the_users_is_kept(self, options: GrpcChannelOptions) -> None:
        worker = TaskHubGrpcWorker(channel_options=options, logger=QUIET)

        assert limits_of(worker) == [1024]

    def test_other_options_of_the_users_are_kept(self) -> None:
        worker = TaskHubGrpcWorker(channel_options=GrpcChannelOptions(keepalive_time_ms=1000), logger=QUIET)

        assert limits_of(worker) == [-1]
        assert worker._channel_options is not None
        assert worker._channel_options.keepalive_time_ms == 1000


def limits_of(worker: TaskHubGrpcWorker) -> list[Any]:
    assert worker._channel_options is not None
    options = worker._channel_options.to_grpc_options()
    return [value for name, value in options if name == "grpc.max_receive_message_length"]
