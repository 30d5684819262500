"""Dapr's clients with data of events that counts as false, on a real sidecar."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import async_workflows
import pytest
from dapr_cluster import Cluster
from dapr_processes import WorkerProcess

from durabletask_aio.dapr import AsyncDaprWorkflowClient, DaprWorkflowClient

DATA = [0, "", False, [], {}, "text", None]


@pytest.fixture(scope="module")
def address(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """The sidecar, with a worker that has the workflow `one_event`, which returns the data of its event."""
    worker = WorkerProcess(cluster, Path(async_workflows.__file__))
    worker.start()
    yield {"host": "127.0.0.1", "port": str(cluster.grpc_port())}
    worker.end()


def test_an_event_has_the_data_that_it_was_given(address: dict[str, Any]) -> None:
    received: list[Any] = []
    with closing(DaprWorkflowClient(**address)) as client:
        for data in DATA:
            instance_id = client.schedule_new_workflow("one_event", input="go")
            client.raise_workflow_event(instance_id, "go", data=data)
            state = client.wait_for_workflow_completion(instance_id, timeout_in_seconds=60)
            assert state is not None
            received.append(json.loads(state.serialized_output or "null"))
    assert received == DATA


async def test_an_event_of_the_async_client_has_the_data_that_it_was_given(address: dict[str, Any]) -> None:
    received: list[Any] = []
    client: Any = AsyncDaprWorkflowClient(**address)
    try:
        for data in DATA:
            instance_id = await client.schedule_new_workflow("one_event", input="go")
            await client.raise_workflow_event(instance_id, "go", data=data)
            state = await client.wait_for_workflow_completion(instance_id, timeout_in_seconds=60)
            assert state is not None
            received.append(json.loads(state.serialized_output or "null"))
    finally:
        await client._DaprWorkflowClient__obj.aclose()  # Dapr's has no public name for it
    assert received == DATA
