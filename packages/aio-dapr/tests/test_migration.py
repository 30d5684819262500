"""Instances on a real sidecar that generators, their async equivalents, and generators again continue in turn."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import generator_workflows
import pytest
from dapr.ext.workflow import DaprWorkflowClient
from dapr_cluster import Cluster
from dapr_processes import WorkerProcess, wait_for, wait_for_status
from generator_workflows import runs

PROGRAM = Path(generator_workflows.__file__)
PROGRAMS = {"generators": PROGRAM, "async": PROGRAM.with_name("async_workflows.py")}

STAGES = 3
STEPS = 20


class Instances:
    """Some that wait for an event in each stage, and one whose activities run while the worker is replaced."""

    def __init__(self, client: DaprWorkflowClient, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._waiting = [client.schedule_new_workflow("stages", input=STAGES) for _ in range(3)]
        self._chain = client.schedule_new_workflow("long_chain", input=[STEPS, 0.02])

    def pass_stage(self, stage: int) -> None:
        for instance_id in self._waiting:
            wait_for_status(self._client, instance_id, f"stage {stage}")
            self._client.raise_workflow_event(instance_id, "go", data=f"{stage}")

    def wait_for_stage(self, stage: int) -> None:
        for instance_id in self._waiting:
            wait_for_status(self._client, instance_id, f"stage {stage}")
        wait_for(lambda: len(self._added()) >= stage * STEPS // (STAGES + 1))

    def _added(self) -> list[int]:
        found = runs(self._folder)
        return [value for instance_id, name, value in found if (instance_id, name) == (self._chain, "add_one")]

    def check(self) -> None:
        expected: list[object] = []
        for stage in range(STAGES):
            expected += [f"{stage}", stage + 1, 2 * stage, 2 * stage + 2, True]
        results = {each: [*expected, True] for each in self._waiting}
        results[self._chain] = list(range(1, STEPS + 1))
        for instance_id, result in results.items():
            state = self._client.wait_for_workflow_completion(instance_id, timeout_in_seconds=60)
            assert state.runtime_status.name == "COMPLETED", state
            assert json.loads(state.serialized_output) == result
        assert sorted(set(self._added())) == list(range(STEPS))


@pytest.mark.parametrize("first", PROGRAMS)
def test_running_instances_are_continued_by_the_other_form_and_back(cluster: Cluster, first: str) -> None:
    (other,) = PROGRAMS.keys() - {first}
    with closing(DaprWorkflowClient(host="127.0.0.1", port=str(cluster.grpc_port()))) as client:
        instances = None
        for stage, kind in enumerate((first, other, first)):
            worker = WorkerProcess(cluster, PROGRAMS[kind]).start()
            try:
                # Dapr starts instances only while a worker is connected.
                instances = instances or Instances(client, cluster.folder)
                instances.pass_stage(stage)
                instances.wait_for_stage(stage + 1) if stage + 1 < STAGES else instances.check()
            finally:
                worker.end()
