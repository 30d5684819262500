"""What engines of this protocol have been seen to do wrong, with a real worker and client over gRPC.

The waits are short here; `.ci/long` has the real ones.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from durabletask.client import OrchestrationState, OrchestrationStatus, TaskHubGrpcClient
from durabletask.entities import EntityInstanceId
from durabletask.grpc_options import GrpcWorkerResiliencyOptions
from durabletask.worker import ConcurrencyOptions
from scale import LONG, wait
from tcp_proxy import TcpProxy

from durabletask_aio.engine.clock import SystemClock
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.server import Server
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.worker.worker import TaskHubGrpcWorker

QUIET = logging.Logger("quiet", level=logging.CRITICAL)  # noqa: LOG001 - not to be found by name

SILENCE = wait(short=1.0, long=120.0)
"""Seconds of silence after which a worker takes a stream for dead; upstream's default is 120."""

PING = SILENCE / 4
"""The engine's default is 30, for the default of workers."""


@contextmanager
def worker_of(address: str, *functions: Any, logger: logging.Logger = QUIET, **options: Any) -> Iterator[Any]:
    """A running worker; functions with a `ctx` are orchestrators, the others activities."""
    resilience = GrpcWorkerResiliencyOptions(
        silent_disconnect_timeout_seconds=SILENCE,
        reconnect_backoff_base_seconds=0.05,
        reconnect_backoff_cap_seconds=0.2,
    )
    worker = TaskHubGrpcWorker(host_address=address, logger=logger, resiliency_options=resilience, **options)
    for function in functions:
        if function.__code__.co_varnames[0] == "ctx":
            worker.add_orchestrator(function)
        else:
            worker.add_activity(function)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


@contextmanager
def client_of(address: str) -> Iterator[TaskHubGrpcClient]:
    with TaskHubGrpcClient(host_address=address, logger=QUIET) as client:
        yield client


@contextmanager
def served(engine: Engine, port: int = 0) -> Iterator[Server]:
    with engine:
        server = engine.listen(port)
        server.service.health_ping = PING
        yield server


def finished(client: TaskHubGrpcClient, instance_id: str, timeout: float = 60.0) -> OrchestrationState:
    state = client.wait_for_orchestration_completion(instance_id, timeout=timeout)
    assert state is not None
    return state


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what} after {timeout:g} s"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_activity_that_takes_longer_than_a_stream_may_be_silent_runs_once_and_completes() -> None:
    runs: list[float] = []

    def export(_: Any, seconds: float) -> str:
        runs.append(seconds)
        time.sleep(seconds)
        return "exported"

    async def order(ctx: Any, seconds: float) -> Any:
        return await ctx.call_activity("export", input=seconds)

    with served(Engine()) as server, worker_of(server.address, order, export), client_of(server.address) as client:
        seconds = SILENCE * 1.25
        instance_id = client.schedule_new_orchestration("order", input=seconds)
        assert finished(client, instance_id, seconds + 60).get_output() == "exported"
    assert runs == [seconds]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_idle_worker_stays_connected() -> None:
    records: list[logging.LogRecord] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger = logging.Logger("recorded")  # noqa: LOG001 - not to be found by name
    logger.addHandler(Recorder())
    with served(Engine()) as server, worker_of(server.address, logger=logger):
        wait_until(lambda: bool(server.kernel.dispatcher.streams), "the worker to connect")
        before = list(server.kernel.dispatcher.streams)
        time.sleep(SILENCE * 1.1)
        assert list(server.kernel.dispatcher.streams) == before
    assert [each.getMessage() for each in records if each.levelno >= logging.WARNING] == []


class TestAnswersToAnEngineThatIsNoMore:
    """An engine that forgets is replaced by another one at its address, while its worker works."""

    def test_the_result_of_an_activity_is_recorded_for_no_other_instance(self) -> None:
        begun, finish = threading.Event(), threading.Event()

        def slow(_: Any, value: str) -> str:
            if value == "first":
                begun.set()
                assert finish.wait(60)
            return f"result for {value}"

        async def calls(ctx: Any, value: str) -> Any:
            return await ctx.call_activity("slow", input=value)

        with served(Engine()) as server:
            port = server.port
            worker = worker_of(server.address, calls, slow)
            worker.__enter__()
            with client_of(server.address) as client:
                client.schedule_new_orchestration("calls", input="first", instance_id="a")
                assert begun.wait(60)
        try:
            with served(Engine(), port) as server, client_of(server.address) as client:
                client.schedule_new_orchestration("calls", input="second", instance_id="b")
                wait_until(lambda: bool(server.kernel.dispatcher.streams), "the worker to connect")
                finish.set()
                assert finished(client, "b").get_output() == "result for second"
                assert client.get_orchestration_state("a") is None
        finally:
            worker.__exit__(None, None, None)

    def test_the_turn_of_an_instance_strikes_off_no_other(self) -> None:
        begun, finish = threading.Event(), threading.Event()

        async def slow_turn(ctx: Any, value: str) -> str:
            if value == "first":
                begun.set()
                assert finish.wait(60)
            return f"turn of {ctx.instance_id}"

        with served(Engine()) as server:
            port = server.port
            worker = worker_of(server.address, slow_turn)
            worker.__enter__()
            with client_of(server.address) as client:
                client.schedule_new_orchestration("slow_turn", input="first", instance_id="a")
                assert begun.wait(60)
        try:
            with served(Engine(), port) as server, client_of(server.address) as client:
                client.schedule_new_orchestration("slow_turn", input="second", instance_id="b")
                wait_until(lambda: bool(server.kernel.dispatcher.streams), "the worker to connect")
                finish.set()
                assert finished(client, "b").get_output() == "turn of b"
        finally:
            worker.__exit__(None, None, None)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_connection_that_breaks_again_and_again_delays_work_and_repeats_little_of_it() -> None:
    jobs, at_once = 100, 4
    seconds = wait(short=0.05, long=0.2)
    runs: Counter[int] = Counter()

    def job(_: Any, number: int) -> int:
        runs[number] += 1
        time.sleep(seconds)
        return number

    async def calls(ctx: Any, number: int) -> Any:
        return await ctx.call_activity("job", input=number)

    limits = ConcurrencyOptions(maximum_thread_pool_workers=at_once, maximum_concurrent_activity_work_items=at_once)
    with served(Engine()) as server, TcpProxy(server.port) as proxy, client_of(server.address) as client:
        ids = [client.schedule_new_orchestration("calls", input=number) for number in range(jobs)]
        began = time.monotonic()
        proxy.cut_every(wait(short=0.5, long=2.0))
        with worker_of(proxy.address, calls, job, concurrency_options=limits):
            outputs = [finished(client, each, 120).get_output() for each in ids]
        took = time.monotonic() - began
    assert outputs == list(range(jobs))
    # The worker keeps what it has begun over a broken connection: nothing runs twice.
    assert set(runs.values()) == {1}, runs.most_common(5)
    assert took < 60


def test_workers_share_the_work_and_each_gets_what_it_has_declared() -> None:
    runs: Counter[str] = Counter()
    both = threading.Barrier(2)

    def worker_called(name: str) -> Callable[..., None]:
        def job(_: Any, number: int) -> None:
            runs[name] += 1
            both.wait(60)  # the other worker has one, too, although this one came first

        return job

    async def calls(ctx: Any, number: int) -> None:
        await ctx.call_activity("job", input=number)

    limit = ConcurrencyOptions(maximum_concurrent_activity_work_items=1, maximum_thread_pool_workers=4)
    with (
        served(Engine()) as server,
        client_of(server.address) as client,
        worker_of(server.address, calls, worker_called("first"), concurrency_options=limit),
    ):
        ids = [client.schedule_new_orchestration("calls", input=number) for number in range(20)]
        wait_until(lambda: runs["first"] == 1, "the first worker to have begun")
        with worker_of(server.address, calls, worker_called("second"), concurrency_options=limit):
            states = [finished(client, each).runtime_status for each in ids]
    assert set(states) == {OrchestrationStatus.COMPLETED}
    assert runs == {"first": 10, "second": 10}


class TestLocksOfInstancesThatHaveEnded:
    """The holder fails without running its code: today's release of it does something else than it did."""

    ACCOUNT = EntityInstanceId("account", "x")

    def hold(self, server: Server, client: TaskHubGrpcClient) -> None:
        lock = [self.ACCOUNT]

        async def holder(ctx: Any, _: None) -> None:
            async with ctx.lock_entities(lock):
                ctx.set_custom_status("holds it")
                await ctx.wait_for_external_event("go")

        with worker_of(server.address, holder):
            client.schedule_new_orchestration("holder", instance_id="holder")
            wait_until(
                lambda: client.get_orchestration_state("holder").serialized_custom_status is not None, "the lock"
            )

        async def next_release(ctx: Any, _: None) -> None:
            await ctx.sleep(1)

        next_release.__name__ = "holder"
        with worker_of(server.address, next_release, on_divergence="fail"):
            client.raise_orchestration_event("holder", "go")
            assert finished(client, "holder").runtime_status is OrchestrationStatus.FAILED

    @pytest.mark.parametrize("operator", ["does nothing", "purges it"])
    def test_are_free(self, operator: str) -> None:
        lock = [self.ACCOUNT]

        async def wants(ctx: Any, _: None) -> Any:
            async with ctx.lock_entities(lock):
                return await ctx.call_entity(lock[0], "add", 1)

        def account(context: Any, amount: int) -> int:
            context.set_state(context.get_state(int, 0) + amount)
            return context.get_state(int)

        with served(Engine()) as server, client_of(server.address) as client:
            self.hold(server, client)
            if operator == "purges it":
                assert client.purge_orchestration("holder").deleted_instance_count == 1
            worker = TaskHubGrpcWorker(host_address=server.address, logger=QUIET)
            worker.add_orchestrator(wants)
            worker.add_entity(account)
            with worker:
                worker.start()
                instance_id = client.schedule_new_orchestration("wants")
                assert finished(client, instance_id).get_output() == 1


def test_when_the_clock_is_set_back_sleeps_take_as_long_as_ever_and_no_time_goes_back() -> None:
    offset = [0.0]
    kernel = Kernel(SqliteStore(), SystemClock(wall=lambda: time.time() + offset[0]))
    kernel.start()
    server = Server(kernel)
    server.start()

    def set_back(_: Any, hours: float) -> None:
        offset[0] -= hours * 3600

    async def measures(ctx: Any, _: None) -> list[float]:
        loop = asyncio.get_running_loop()
        began, now = loop.time(), ctx.now()
        await ctx.call_activity("set_back", input=1)
        return [loop.time() - began, (ctx.now() - now) / timedelta(seconds=1)]

    async def naps(ctx: Any, _: None) -> str:
        await asyncio.sleep(0.5)
        return "awake"

    try:
        with worker_of(server.address, measures, naps, set_back), client_of(server.address) as client:
            elapsed = finished(client, client.schedule_new_orchestration("measures")).get_output()
            assert all(0 <= each < 60 for each in elapsed)
            instance_id = client.schedule_new_orchestration("naps")
            client.wait_for_orchestration_start(instance_id, timeout=60)
            offset[0] -= 3600
            assert finished(client, instance_id).get_output() == "awake"
    finally:
        kernel.stop()
        server.stop(0)


def test_the_real_waits_are_in_the_long_tests() -> None:
    assert (SILENCE == 120.0) is LONG
