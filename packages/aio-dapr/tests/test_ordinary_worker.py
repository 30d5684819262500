"""The worker of Microsoft's family, `durabletask.aio.worker`, at the address of a real sidecar."""

from __future__ import annotations

import subprocess
import sys

from dapr_cluster import Cluster

# In a process of its own: this one has imported Dapr's SDK, and both cannot be imported in one.
PROGRAM = """
import asyncio, sys
from durabletask.aio.worker import TaskHubGrpcWorker

async def workflow(ctx, _):
    return 1

async def main():
    worker = TaskHubGrpcWorker(host_address=sys.argv[1])
    worker.add_orchestrator(workflow)
    try:
        await asyncio.wait_for(worker.run(), 60)
    except RuntimeError as error:
        print(error)

asyncio.run(main())
"""


def test_is_refused_with_a_sentence_that_names_the_package(cluster: Cluster) -> None:
    address = f"127.0.0.1:{cluster.grpc_port()}"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, address], capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "The address of this worker is that of a Dapr sidecar (1.18.2)" in done.stdout
    assert "Install durabletask-aio-dapr" in done.stdout
