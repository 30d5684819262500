"""Engines and workers for the tests of the worker package."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator

import pytest
from durabletask.client import TaskHubGrpcClient

from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.testing.local import local_backend as start_backend
from durabletask_aio.worker.registration import install, uninstall

sys.path.insert(0, os.path.dirname(__file__))

from worker_support import QUIET, leaked, wait_until  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def installed() -> Iterator[None]:
    """Upstream's class accepts async functions, as after ``import durabletask.aio``."""
    install()
    yield
    uninstall()


@pytest.fixture(scope="session")
def engine() -> Iterator[LocalBackend]:
    """One local engine for the tests that do not look at all of its instances."""
    with start_backend() as backend:
        yield backend


@pytest.fixture
def client(engine: LocalBackend) -> Iterator[TaskHubGrpcClient]:
    client = TaskHubGrpcClient(host_address=engine.address, logger=QUIET)
    yield client
    client.close()


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail if a test leaves threads of ours or upstream's workers behind."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    wait_until(lambda: not leaked(before))
    assert leaked(before) == []
