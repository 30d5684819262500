"""How soon a worker is back after an outage, with any engine."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from durabletask.client import TaskHubGrpcClient
from durabletask.grpc_options import GrpcChannelOptions, GrpcWorkerResiliencyOptions
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from durabletask.worker import TaskHubGrpcWorker as UpstreamsWorker
from scale import wait
from worker_support import QUIET, run, wait_until

from durabletask_aio.engine.embedded import Engine
from durabletask_aio.worker import _upstream
from durabletask_aio.worker.binding import bind
from durabletask_aio.worker.log_filter import UpstreamLogFilter
from durabletask_aio.worker.reconnecting import CHANNEL_OPTIONS, jittered, with_channel_options
from durabletask_aio.worker.worker import TaskHubGrpcWorker

LIMIT = 2.0
"""Seconds from the engine's return to the end of an instance that was started then."""


async def flow(ctx: Any, number: int) -> int:
    return number


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def own_engine(port: int) -> Callable[[], None]:
    engine = Engine()
    engine.start()
    engine.listen(port)
    return engine.stop


def upstreams_engine(port: int) -> Callable[[], None]:
    engine = InMemoryOrchestrationBackend(port=port)
    engine.start()
    return lambda: engine.stop(grace=0)


@pytest.mark.slow
@pytest.mark.parametrize("start", [own_engine, upstreams_engine])
@pytest.mark.parametrize("outage", [3.0, wait(short=12.0, long=600.0)])
def test_work_resumes_within_two_seconds_of_the_engines_return(start: Callable[..., Any], outage: float) -> None:
    port = free_port()
    stop = start(port)
    address = f"127.0.0.1:{port}"
    worker = TaskHubGrpcWorker(host_address=address, logger=QUIET)
    worker.add_orchestrator(flow)
    worker.start()
    try:
        with TaskHubGrpcClient(host_address=address, logger=QUIET) as client:
            assert run(client, flow, 1).get_output() == 1
        stop()
        # The length of the outage is what the test is about.
        time.sleep(outage)
        stop = start(port)
        returned = time.monotonic()
        with TaskHubGrpcClient(host_address=address, logger=QUIET) as client:
            assert run(client, flow, 2).get_output() == 2
        assert time.monotonic() - returned < LIMIT
    finally:
        worker.stop()
        stop()


class TestPauses:
    def test_are_bounded_for_workers_that_open_their_channel(self) -> None:
        worker: Any = TaskHubGrpcWorker(logger=QUIET)

        options = dict(worker._channel_options.to_grpc_options())
        assert {name: options[name] for name, _ in CHANNEL_OPTIONS} == dict(CHANNEL_OPTIONS)
        assert options["grpc.max_receive_message_length"] == -1
        resiliency = worker._resiliency_options
        assert resiliency.reconnect_backoff_base_seconds == 0.25
        assert resiliency.reconnect_backoff_cap_seconds == 1.0
        assert resiliency.hello_timeout_seconds == GrpcWorkerResiliencyOptions().hello_timeout_seconds

    def test_of_upstreams_class_are_bounded_once_it_has_async_code(self) -> None:
        worker: Any = UpstreamsWorker(logger=QUIET)
        bind(worker)

        assert dict(worker._channel_options.to_grpc_options()) == dict(CHANNEL_OPTIONS)
        assert worker._resiliency_options.reconnect_backoff_cap_seconds == 1.0

    def test_that_the_user_has_set_stay(self) -> None:
        given = GrpcWorkerResiliencyOptions(reconnect_backoff_cap_seconds=7)
        raw = [("grpc.max_reconnect_backoff_ms", 9000)]
        worker: Any = TaskHubGrpcWorker(
            logger=QUIET, resiliency_options=given, channel_options=GrpcChannelOptions(raw_options=raw)
        )

        assert worker._resiliency_options is given
        assert dict(worker._channel_options.to_grpc_options())["grpc.max_reconnect_backoff_ms"] == 9000
        assert raw == [("grpc.max_reconnect_backoff_ms", 9000)]

    def test_are_jittered(self) -> None:
        pauses = {jittered(1.0) for _ in range(100)}

        assert all(0.5 <= pause <= 1.0 for pause in pauses)
        assert len(pauses) > 50

    def test_of_the_channel_are_added_where_they_are_not_given(self) -> None:
        given = [("grpc.min_reconnect_backoff_ms", 1)]
        assert with_channel_options(given) == [*given, *CHANNEL_OPTIONS[:2]]


def test_an_engine_that_is_away_is_logged_once_and_not_at_each_attempt() -> None:
    texts: list[str] = []

    class Filter(UpstreamLogFilter):
        def filter(self, record: Any) -> bool:
            logged = super().filter(record)
            if logged and record.levelname == "WARNING":
                texts.append(record.getMessage())
            return logged

    worker = TaskHubGrpcWorker(host_address=f"127.0.0.1:{free_port()}", reword_upstream_log=False, logger=quiet_info())
    attempts: list[Any] = []
    _upstream.logger_of(worker).addFilter(lambda record: attempts.append(record) or True)
    _upstream.logger_of(worker).addFilter(Filter(lambda: False))
    worker.start()
    tried = wait_until(lambda: sum("retrying" in record.msg for record in attempts) >= 3)
    worker.stop()

    assert tried
    assert len(texts) == 1
    assert texts[0].startswith("Failed to create connection: UNAVAILABLE: ")


def quiet_info() -> logging.Logger:
    logger = logging.Logger("test.reconnecting")  # noqa: LOG001 - not to be found by name
    logger.addHandler(logging.NullHandler())
    return logger
