"""What the tests of this package share: a client, and a worker that lives in a process of its own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from durabletask.client import TaskHubGrpcClient

from durabletask_aio.testing.local import LocalBackend

WORKER_PROCESS = Path(__file__).with_name("worker_process.py")


@pytest.fixture(autouse=True)
def _quiet_grpc_logs() -> Iterator[None]:
    # Upstream logs every turn at INFO to stderr.
    loggers = [logging.getLogger(name) for name in ("durabletask-worker", "durabletask-client")]
    before = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    yield
    for each, level in zip(loggers, before, strict=True):
        each.setLevel(level)


@pytest.fixture
def client(local_backend: LocalBackend) -> Iterator[TaskHubGrpcClient]:
    with TaskHubGrpcClient(host_address=local_backend.address) as client:
        yield client


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what} after {timeout:g} s"
        time.sleep(0.01)


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., None]:
    return wait_until


class WorkerProcess:
    """`worker_process.py` on an engine; it hangs in the place named by `HANG` until told not to."""

    def __init__(self, address: str, scratch: Path) -> None:
        self.address = address
        self.scratch = scratch
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, hang: str = "") -> None:
        environment = {**os.environ, "HANG": hang}
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER_PROCESS), self.address, str(self.scratch)], env=environment
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def reached(self, place: str) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the worker process has died by itself"
        return (self.scratch / place).exists()

    def executions(self, what: str) -> int:
        path = self.scratch / f"{what}.log"
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def worker_process(local_backend: LocalBackend, tmp_path: Path) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(local_backend.address, tmp_path)
    yield worker
    if worker.process is not None and worker.process.poll() is None:
        worker.kill()
