"""Engines and workers for the tests of the worker package."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from durabletask import worker as upstream
from durabletask.client import TaskHubGrpcClient

from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.testing.local import local_backend as start_backend
from durabletask_aio.worker.registration import install, uninstall

sys.path.insert(0, os.path.dirname(__file__))

from worker_support import QUIET, leaked, wait_until


@pytest.fixture(scope="session", autouse=True)
def installed() -> Iterator[None]:
    """Upstream's class accepts async functions, as after `import durabletask.aio`."""
    install()
    yield
    uninstall()


class _ImpatientAsyncio:
    """`asyncio` for upstream's worker, which looks once a second whether it should stop."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def wait_for(self, awaitable: Any, timeout: float | None) -> Any:
        return await asyncio.wait_for(awaitable, 0.05 if timeout == 1.0 else timeout)


@pytest.fixture(scope="module", autouse=True)
def quick_stops() -> Iterator[None]:
    """Stopping a worker takes a twentieth of a second and not one: there are a hundred workers in these tests.

    Undone after each module, since the tests of other packages may follow in the process.
    """
    module: Any = upstream
    module.asyncio = _ImpatientAsyncio()
    yield
    module.asyncio = asyncio


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalBackend]:
    """One local engine for the tests of a module that do not look at all of its instances.

    Not for all modules: a worker gives an instance of a workflow that it does not have back to the engine, with a line
    in its log, and so meets what tests before have left unfinished.
    """
    with start_backend() as backend:
        yield backend


@pytest.fixture
def own_engine() -> Iterator[LocalBackend]:
    """A local engine of the test's own."""
    with start_backend() as backend:
        yield backend


@pytest.fixture
def client(engine: LocalBackend) -> Iterator[TaskHubGrpcClient]:
    client = TaskHubGrpcClient(host_address=engine.address, logger=QUIET)
    yield client
    client.close()


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail if a test leaves threads of this project or of upstream's workers behind."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    wait_until(lambda: not leaked(before))
    assert leaked(before) == []


@pytest.fixture
def tracer_provider() -> Iterator[Any]:
    """OpenTelemetry with spans kept in memory: `provider.exporter.get_finished_spans()`."""
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

    class Switchable(sdk.TracerProvider):  # type: ignore[name-defined]
        """OpenTelemetry accepts one provider per process, and without one nothing is traced: so must other tests be."""

        is_on = False

        def get_tracer(self, *arguments: Any, **keywords: Any) -> Any:
            return super().get_tracer(*arguments, **keywords) if self.is_on else trace.NoOpTracer()

    provider = trace.get_tracer_provider()
    if not hasattr(provider, "exporter"):
        provider = Switchable()
        provider.exporter = memory.InMemorySpanExporter()
        provider.add_span_processor(export.SimpleSpanProcessor(provider.exporter))
        trace.set_tracer_provider(provider)
    provider.exporter.clear()
    provider.is_on = True
    yield provider
    provider.is_on = False
    provider.exporter.clear()
