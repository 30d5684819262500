"""The pytest plugin: fixtures for the local engine.

It is loaded by its entry point in every pytest run of an environment that has this package, so it imports nothing of
``durabletask`` until a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from durabletask.worker import TaskHubGrpcWorker

    from durabletask_aio.testing.local import LocalBackend


@pytest.fixture
def local_backend() -> Iterator[LocalBackend]:
    """A local engine on a free port, for the length of the test."""
    from durabletask_aio.testing.local import local_backend as start_backend

    with start_backend() as backend:
        yield backend


@pytest.fixture
def grpc_worker(local_backend: LocalBackend) -> Iterator[Callable[..., TaskHubGrpcWorker]]:
    """Starts workers on the test's local engine and stops them at its end::

    def test_order(grpc_worker, local_backend):
        grpc_worker(orchestrators=[order], activities=[charge])
        client = TaskHubGrpcClient(host_address=local_backend.address)
        ...

    Further keyword arguments go to the worker's constructor.
    """
    from durabletask.worker import TaskHubGrpcWorker

    workers: list[TaskHubGrpcWorker] = []

    def start(
        *, orchestrators: Any = (), activities: Any = (), entities: Any = (), **settings: Any
    ) -> TaskHubGrpcWorker:
        worker = TaskHubGrpcWorker(host_address=local_backend.address, **settings)
        for orchestrator in orchestrators:
            worker.add_orchestrator(orchestrator)
        for activity in activities:
            worker.add_activity(activity)
        for entity in entities:
            worker.add_entity(entity)
        worker.start()  # type: ignore[no-untyped-call]
        workers.append(worker)
        return worker

    yield start
    for worker in reversed(workers):
        worker.stop()  # type: ignore[no-untyped-call]
