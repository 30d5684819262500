"""Fixtures for the tests on a real sidecar."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

import dapr_binary
from dapr_cluster import Cluster, Store

_running: list[Cluster] = []
"""Clusters of the test that runs now, and of the session."""


@pytest.fixture(scope="session")
def dapr_program() -> Path:
    """Dapr's program, if it has been built from the present sources."""
    if sys.platform == "win32":
        pytest.skip("Dapr's processes are started on Linux and macOS only")
    path = dapr_binary.path()
    if not path.exists():
        message = (
            f"Dapr's sidecar is not built: run `{dapr_binary.COMMAND}`, which needs Go {dapr_binary.required_go()}"
        )
        if os.environ.get(dapr_binary.REQUIRED) == "1":
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(scope="session")
def cluster(dapr_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One sidecar with its state in SQLite, for all tests that leave it as they find it."""
    cluster = Cluster(tmp_path_factory.mktemp("dapr"), dapr_program)
    with cluster.running():
        _running.append(cluster)
        yield cluster
        _running.remove(cluster)


@pytest.fixture
def redis() -> None:
    """Skip the test, or fail it, if there is no Redis."""
    if shutil.which("redis-server") is None:
        message = "There is no redis-server on PATH: install Redis (on Debian and Ubuntu: apt-get install redis-server)"
        if os.environ.get(dapr_binary.REQUIRED) == "1":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture
def make_cluster(
    dapr_program: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Cluster]]:
    """Start clusters whose processes the test may kill: `make_cluster("redis", replicas=2)`."""
    with ExitStack() as stack:

        def make(store: Store = "sqlite", replicas: int = 1) -> Cluster:
            if store == "redis":
                request.getfixturevalue("redis")
            cluster = Cluster(tmp_path / f"dapr-{len(_running)}", dapr_program, store)
            stack.enter_context(cluster.running(replicas))
            _running.append(cluster)
            stack.callback(_running.remove, cluster)
            return cluster

        yield make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Add the ends of the processes' logs to the report of a failed test."""
    report = yield
    if report.failed:
        for cluster in _running:
            for name, text in cluster.logs().items():
                report.sections.append((f"{name}, {cluster.folder}", text))
    return report
