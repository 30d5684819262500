"""Connections that break, stand still or are silent while activities run: each activity runs once."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from channel_support import wait_until
from chaos_processes import Setup
from durabletask.grpc_options import GrpcWorkerResiliencyOptions
from durabletask.worker import ConcurrencyOptions
from scale import wait
from tcp_proxy import TcpProxy

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.worker.worker import TaskHubGrpcWorker

pytestmark = pytest.mark.slow

QUIET = logging.Logger("quiet", level=logging.CRITICAL)  # noqa: LOG001 - not to be found by name

KEEPALIVE = 20.0
"""Seconds after which the engine ends a connection that leaves its pings unanswered."""


class Jobs:
    """An activity that counts its runs."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self.runs: Counter[int] = Counter()

    def job(self, ctx: Any, number: int) -> int:
        with self._lock:
            self.runs[number] += 1
        time.sleep(self._seconds)
        return number


async def workflow(ctx: AsyncWorkflowContext, number: int) -> int:
    result: int = await ctx.call_activity("job", input=number)
    return result


def started(address: str, jobs: Jobs, **options: Any) -> TaskHubGrpcWorker:
    worker = TaskHubGrpcWorker(host_address=address, logger=QUIET, **options)
    worker.add_orchestrator(workflow)
    worker.add_activity(jobs.job)
    worker.start()
    return worker


@pytest.mark.parametrize("seed", range(int(wait(short=1, long=5))))
def test_queued_activities_are_not_run_again_and_again_when_the_connection_breaks_every_two_seconds(seed: int) -> None:
    """Five seconds of work for the worker; run again at each break, it never ends."""
    count, threads = 100, 4
    jobs = Jobs(0.2)
    limits = ConcurrencyOptions(maximum_thread_pool_workers=threads, maximum_concurrent_activity_work_items=threads)
    with Engine() as engine, TcpProxy(engine.listen().port) as proxy:
        client = engine.client()
        ids = [client.schedule_new_orchestration("workflow", input=number) for number in range(count)]
        worker = started(proxy.address, jobs, concurrency_options=limits)
        proxy.cut_every(2.0)
        began = time.monotonic()
        states = [client.wait_for_orchestration_completion(each, timeout=60) for each in ids]
        seconds = time.monotonic() - began
        worker.stop()
    print(f"{seconds:.1f} s, {sum(jobs.runs.values())} runs of {count} activities, {proxy.accepted} connections")
    assert [each and each.get_output() for each in states] == list(range(count))
    assert len(jobs.runs) == count
    assert max(jobs.runs.values()) <= 2


@pytest.mark.timeout(900)
def test_an_activity_longer_than_the_silence_that_ends_a_connection_runs_once() -> None:
    """Upstream's worker gives a stream up that has been silent for two minutes; the engine pings before."""
    seconds = wait(short=4.0, long=600.0)
    silence = wait(short=1.0, long=120.0)
    jobs = Jobs(seconds)
    with Engine() as engine:
        server = engine.listen()
        server.service.health_ping = wait(short=0.2, long=server.service.health_ping)
        with TcpProxy(server.port) as proxy:
            options = GrpcWorkerResiliencyOptions(silent_disconnect_timeout_seconds=silence)
            worker = started(proxy.address, jobs, resiliency_options=options)
            client = engine.client()
            instance_id = client.schedule_new_orchestration("workflow", input=7)
            wait_until(lambda: jobs.runs[7])
            stream = engine.kernel.dispatcher.streams[0]
            state = client.wait_for_orchestration_completion(instance_id, timeout=int(seconds) + 60)
            streams = list(engine.kernel.dispatcher.streams)
            worker.stop()
    assert state is not None
    assert (state.get_output(), dict(jobs.runs)) == (7, {7: 1})
    assert (streams, proxy.accepted) == ([stream], 1)


def test_a_connection_that_stands_still_for_longer_than_the_engine_waits_costs_no_run() -> None:
    jobs = Jobs(KEEPALIVE / 2)
    with Engine(reconnect_period=60) as engine, TcpProxy(engine.listen().port) as proxy:
        worker = started(proxy.address, jobs)
        client = engine.client()
        instance_id = client.schedule_new_orchestration("workflow", input=7)
        wait_until(lambda: jobs.runs[7])
        proxy.stall()
        end = time.monotonic() + 2 * KEEPALIVE
        while engine.kernel.dispatcher.streams:
            assert time.monotonic() < end, "the engine has not noticed"
            time.sleep(0.1)
        proxy.flow()
        state = client.wait_for_orchestration_completion(instance_id, timeout=60)
        worker.stop()
    assert state is not None
    assert (state.get_output(), dict(jobs.runs)) == (7, {7: 1})


def test_a_worker_that_is_stopped_for_longer_than_the_engine_waits_runs_its_activities_once(tmp_path: Path) -> None:
    setup = Setup(tmp_path / "run", workers=2, slow_seconds=3.0, scale=1.0)
    with setup.running():
        setup.call(lambda client: client.schedule_new_orchestration("slow", instance_id="slow"))
        wait_until(lambda: len(setup.runs) == 2)
        pausing = [threading.Thread(target=each.pause, args=(KEEPALIVE + 5,)) for each in setup.workers]
        for thread in pausing:
            thread.start()
        state = setup.call(lambda client: client.wait_for_orchestration_completion("slow", timeout=90))
        for thread in pausing:
            thread.join()
        runs = Counter(run.key for run in setup.runs)
    assert state is not None
    assert (state.get_output(), set(runs.values())) == (2, {1})
