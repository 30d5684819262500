"""A worker stops although a turn never ends: its thread is left behind, and the engine has the turn again."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from durabletask.worker import ConcurrencyOptions
from worker_support import QUIET, call_one, finished, leaked, run, started, wait_until

from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker import binding
from durabletask_aio.worker.daemon_threads import DaemonThreads

LOGGER = "test.stuck"
ONE_THREAD = ConcurrencyOptions(maximum_thread_pool_workers=1)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "TURN_GRACE_PERIOD", 0.1)


@pytest.fixture(params=["this project's", "upstream's"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """An engine that takes results after the end of a stream, and one that does not."""
    with ExitStack() as stack:
        if request.param == "upstream's":
            backend = InMemoryOrchestrationBackend(port=(port := free_port()))
            backend.start()
            stack.callback(backend.stop)
            yield f"127.0.0.1:{port}"
        else:
            local = LocalBackend()
            local.start()
            stack.callback(local.stop)
            yield local.address


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Blocking:
    """A workflow whose first execution waits for a lock."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()
        self.threads: list[threading.Thread] = []

    async def block(self, ctx: Any, _: Any) -> str:
        self.threads.append(threading.current_thread())
        if not self.begun.is_set():
            self.begun.set()
            self.release.wait()
        return "done"

    async def behind(self, ctx: Any, _: Any) -> str:
        return "done too"


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    made = Blocking()
    yield made
    made.release.set()
    for thread in made.threads:
        thread.join(30)


def start(address: str, blocking: Blocking, **options: Any) -> Any:
    engine: Any = SimpleNamespace(address=address)
    return started(
        engine,
        orchestrators=[blocking.block, blocking.behind],
        **{"concurrency_options": ONE_THREAD, "stop_grace_period": 0, **options},
    )


@pytest.mark.parametrize("sessions", [10, 0])
def test_stop_leaves_it_behind_and_another_worker_has_it_and_what_waited_behind_it(
    address: str, blocking: Blocking, sessions: int, caplog: pytest.LogCaptureFixture
) -> None:
    with TaskHubGrpcClient(host_address=address, logger=QUIET) as client:
        worker = start(address, blocking, max_extended_sessions=sessions, logger=logging.getLogger(LOGGER))
        stuck = client.schedule_new_orchestration("block")
        assert blocking.begun.wait(30)
        waiting = client.schedule_new_orchestration("behind")
        assert wait_until(lambda: worker._durabletask_aio.work_items._unfinished == 2)
        worker.stop()

        assert blocking.threads[0].is_alive()
        assert blocking.threads[0].daemon
        errors = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
        assert len(errors) == 1, errors
        assert errors[0].startswith(
            f"{stuck}: the worker stops without waiting any longer for a turn of orchestrator block, which has been "
        )
        assert "self.release.wait()" in errors[0]

        healthy = start(address, blocking)
        try:
            assert finished(client, stuck).serialized_output == '"done"'
            assert finished(client, waiting).serialized_output == '"done too"'
        finally:
            healthy.stop()

    # The turn that was left behind ends at last: without a result, and without an error about it.
    blocking.release.set()
    blocking.threads[0].join(30)
    assert not blocking.threads[0].is_alive()
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == errors


def test_a_worker_that_has_left_a_thread_behind_can_be_started_again(
    own_engine: LocalBackend, blocking: Blocking
) -> None:
    worker = start(own_engine.address, blocking)
    with TaskHubGrpcClient(host_address=own_engine.address, logger=QUIET) as client:
        stuck = client.schedule_new_orchestration("block")
        assert blocking.begun.wait(30)
        worker.stop()
        worker.start()
        try:
            assert finished(client, stuck).serialized_output == '"done"'
            assert run(client, "behind").serialized_output == '"done too"'
        finally:
            worker.stop()


def test_turns_that_end_in_time_are_waited_for(
    own_engine: LocalBackend, blocking: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "TURN_GRACE_PERIOD", 3600)
    worker = start(own_engine.address, blocking)
    with TaskHubGrpcClient(host_address=own_engine.address, logger=QUIET) as client:
        stuck = client.schedule_new_orchestration("block")
        assert blocking.begun.wait(30)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        assert wait_until(lambda: worker._durabletask_aio.work_items.is_draining)
        blocking.release.set()
        stopping.join(60)
        assert not stopping.is_alive()

        state = client.get_orchestration_state(stuck)
        assert state is not None
        assert state.runtime_status == OrchestrationStatus.COMPLETED
        assert len(blocking.threads) == 1


def test_an_activity_is_still_waited_for(own_engine: LocalBackend, blocking: Blocking) -> None:
    begun, release = threading.Event(), threading.Event()

    def charge(_: Any, amount: int) -> int:
        begun.set()
        assert release.wait(30)
        return amount

    worker = started(own_engine, charge, orchestrators=[call_one, blocking.block], stop_grace_period=0)
    with TaskHubGrpcClient(host_address=own_engine.address, logger=QUIET) as client:
        order = client.schedule_new_orchestration("call_one", input=["charge", 5])
        client.schedule_new_orchestration("block")
        assert begun.wait(30)
        assert blocking.begun.wait(30)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        assert wait_until(lambda: worker._durabletask_aio.work_items._leaves_turns)
        assert stopping.is_alive()
        release.set()
        stopping.join(60)
        assert not stopping.is_alive()

        again = start(own_engine.address, blocking)
        again.stop()
        worker.start()
        try:
            assert finished(client, order).serialized_output == "5"
        finally:
            worker.stop()


PROGRAM = """
import asyncio, logging, signal, sys, threading
from durabletask.aio.worker import TaskHubGrpcWorker

signal.signal(signal.SIGINT, signal.default_int_handler)

async def stuck(ctx, _):
    try:
        print("stuck", flush=True)
        threading.Lock().acquire() and threading.Event().wait()
    finally:
        await ctx.sleep(1)

worker = TaskHubGrpcWorker(host_address=sys.argv[1], stop_grace_period=3600)
worker.add_orchestrator(stuck)
asyncio.run(worker.run())
print("ended", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to send to a process there")
def test_a_second_ctrl_c_ends_the_process_quietly(own_engine: LocalBackend) -> None:
    with (
        TaskHubGrpcClient(host_address=own_engine.address, logger=QUIET) as client,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, own_engine.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        guard = threading.Timer(120, process.kill)
        guard.start()
        try:
            client.schedule_new_orchestration("stuck")
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "stuck\n"
            process.send_signal(signal.SIGINT)
            said = ""
            while "Stopping gRPC worker" not in said:
                line = process.stderr.readline()
                assert line, said
                said += line
            process.send_signal(signal.SIGINT)
            output, rest = process.communicate()
        finally:
            guard.cancel()

    assert process.returncode == 0, said + rest
    assert output == "ended\n"
    assert "the worker stops without waiting any longer for a turn of orchestrator stuck" in said + rest
    assert "Traceback" not in said + rest


@pytest.mark.parametrize("moment", ["at its begin", "while it waits"])
def test_a_stop_that_a_second_ctrl_c_interrupts_waits_for_no_activity(
    engine: LocalBackend, client: TaskHubGrpcClient, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The process would wait for upstream's thread, which waits for the work items."""
    monkeypatch.setattr(binding, "INTERRUPTED_STOP_PERIOD", 0.1)
    before, running, release = set(threading.enumerate()), threading.Event(), threading.Event()

    async def blocking(ctx: Any, _: Any) -> None:
        running.set()
        assert release.wait(60)

    worker = started(engine, blocking, orchestrators=[call_one], stop_grace_period=3600)
    bound = binding.binding_of(worker)
    assert bound is not None
    client.schedule_new_orchestration(call_one, input=["blocking", None])
    assert running.wait(30)

    def interrupted() -> None:
        raise KeyboardInterrupt

    owner, name = (bound.leases, "stop") if moment == "at its begin" else (bound.work_items, "drain")
    monkeypatch.setattr(owner, name, interrupted)
    upstreams = worker._runLoop
    try:
        with pytest.raises(KeyboardInterrupt), worker:
            pass
        upstreams.join(30)
        assert not upstreams.is_alive()
    finally:
        release.set()
    assert wait_until(lambda: not bound.leases.held)
    bound.activities.close()
    assert wait_until(lambda: not leaked(before))


class TestDaemonThreads:
    def test_are_created_as_needed_and_used_again(self) -> None:
        threads = DaemonThreads(2, "some")
        barrier = threading.Barrier(2)
        names = {threads.submit(lambda: (barrier.wait(30), threading.current_thread().name)[1]) for _ in range(2)}
        assert {each.result(30) for each in names} == {"some-0", "some-1"}
        assert {threads.submit(lambda: threading.current_thread().name).result(30) for _ in range(9)} <= {
            "some-0",
            "some-1",
        }
        threads.shutdown()

    def test_begin_calls_in_order_and_end_after_the_last(self) -> None:
        threads = DaemonThreads(1, "one")
        seen: list[int] = []
        results = [threads.submit(seen.append, number) for number in range(100)]
        threads.shutdown()
        assert seen == list(range(100))
        assert all(each.done() for each in results)
        with pytest.raises(RuntimeError, match="after shutdown"):
            threads.submit(print)

    def test_hand_on_what_a_call_raises(self) -> None:
        threads = DaemonThreads(1, "one")
        with pytest.raises(ZeroDivisionError):
            threads.submit(lambda: 1 // 0).result(30)
        assert threads.submit(lambda: 2).result(30) == 2
        threads.shutdown()

    def test_log_what_a_call_without_a_future_raises(self, caplog: pytest.LogCaptureFixture) -> None:
        threads = DaemonThreads(1, "one")
        seen: list[int] = []
        threads.call(sys.exit, "gone")
        threads.call(seen.append, 1)
        threads.shutdown()
        assert seen == [1]
        assert "SystemExit: gone" in caplog.text
