"""Dapr's processes and workers, killed while workflows run: each result is exact, and no activity is left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import generator_workflows
import grpc
import pytest
from dapr.ext.workflow import DaprWorkflowClient
from dapr_cluster import Cluster, Store
from dapr_processes import WorkerProcess, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

INSTANCES = 6
STEPS = 8
SECONDS_OF_A_STEP = 0.05
RECOVERY_SECONDS = 240.0
"""The longest wait for the end of all instances; Dapr retries what has failed after pauses that grow."""

PROGRAMS = {"generators": Path(generator_workflows.__file__)}


@pytest.fixture(params=["generators"])
def make_worker(request: pytest.FixtureRequest) -> Iterator[Callable[..., WorkerProcess]]:
    with ExitStack() as stack:

        def make(cluster: Cluster, replica: int = 0) -> WorkerProcess:
            worker = WorkerProcess(cluster, PROGRAMS[request.param], replica=replica)
            stack.callback(worker.end)
            return worker.start()

        yield make


class Batch:
    """Instances that run while something is killed."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        with closing(self._client()) as client:
            arguments = [STEPS, SECONDS_OF_A_STEP]
            self.ids = [client.schedule_new_workflow("long_chain", input=arguments) for _ in range(INSTANCES)]

    def _client(self, replica: int = 0) -> _Client:
        return _Client(self._cluster.grpc_port(replica))

    def wait_for_progress(self, share: float) -> None:
        """Wait until this share of all steps has been run."""
        wait_for(lambda: len(generator_workflows.runs(self._cluster.folder)) >= share * INSTANCES * STEPS * 2)

    def check(self, replica: int = 0) -> None:
        """Wait for all instances, and check their results and activities.

        Args:
            replica: Whose sidecar is asked.
        """
        with closing(self._client(replica)) as client:
            for instance_id in self.ids:
                found = wait_for(partial(client.output, instance_id), RECOVERY_SECONDS)
                assert found == ("COMPLETED", json.dumps(list(range(1, STEPS + 1))).replace(" ", "")), instance_id
        runs = generator_workflows.runs(self._cluster.folder)
        for instance_id in self.ids:
            added = [value for found, name, value in runs if (found, name) == (instance_id, "add_one")]
            assert sorted(set(added)) == list(range(STEPS))
            # At least once, in the order of the code.
            assert added == sorted(added)


class _Client(DaprWorkflowClient):
    def __init__(self, port: int) -> None:
        super().__init__(host="127.0.0.1", port=str(port))

    def output(self, instance_id: str) -> tuple[str, str] | None:
        """Return status and output of an instance that has ended; None while the sidecar does not answer, too."""
        try:
            state = self.get_workflow_state(instance_id)
        except grpc.RpcError:
            return None
        if state is None or state.runtime_status.name in ("RUNNING", "PENDING"):
            return None
        return state.runtime_status.name, state.serialized_output.replace(" ", "")


MakeCluster = Callable[..., Cluster]
MakeWorker = Callable[..., WorkerProcess]


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_killed_worker_is_replaced(make_cluster: MakeCluster, make_worker: MakeWorker, store: Store) -> None:
    cluster = make_cluster(store)
    worker = make_worker(cluster)
    batch = Batch(cluster)
    for share in (0.2, 0.5):
        batch.wait_for_progress(share)
        worker.kill()
    batch.check()


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_killed_sidecar_is_started_again(make_cluster: MakeCluster, make_worker: MakeWorker, store: Store) -> None:
    cluster = make_cluster(store)
    make_worker(cluster)
    batch = Batch(cluster)
    batch.wait_for_progress(0.3)
    cluster.kill("sidecar-0")
    cluster.start_sidecar()
    batch.check()


def test_a_killed_control_plane_is_started_again(make_cluster: MakeCluster, make_worker: MakeWorker) -> None:
    cluster = make_cluster()
    make_worker(cluster)
    batch = Batch(cluster)
    batch.wait_for_progress(0.3)
    for name in ("placement", "scheduler"):
        cluster.kill(name)
    cluster.start_control_plane()
    batch.check()


def test_all_processes_are_killed_and_started_again(make_cluster: MakeCluster, make_worker: MakeWorker) -> None:
    cluster = make_cluster("redis")
    worker = make_worker(cluster)
    batch = Batch(cluster)
    batch.wait_for_progress(0.3)
    worker.end()
    for name in ("sidecar-0", "scheduler", "placement", "redis"):
        cluster.kill(name)
    cluster.start()
    worker.start()
    batch.check()


def test_one_of_two_replicas_is_killed_and_the_other_takes_over(
    make_cluster: MakeCluster, make_worker: MakeWorker
) -> None:
    cluster = make_cluster("redis", replicas=2)
    workers = [make_worker(cluster, replica) for replica in range(2)]
    batch = Batch(cluster)
    batch.wait_for_progress(0.3)
    cluster.kill("sidecar-0")
    workers[0].end()
    batch.check(replica=1)
