"""Workflows on a real sidecar, each in Dapr's own dialect."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import generator_workflows
import pytest
from dapr.ext.workflow import DaprWorkflowClient
from dapr_cluster import Cluster
from dapr_processes import WorkerProcess, wait_for, wait_for_status
from generator_workflows import BIG, runs

WAITING = "waiting"


@pytest.fixture(scope="module", params=["generators", "async"])
def worker(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[WorkerProcess]:
    program = Path(generator_workflows.__file__)
    programs = {"generators": program, "async": program.with_name("async_workflows.py")}
    worker = WorkerProcess(cluster, programs[request.param])
    worker.start()
    yield worker
    worker.end()


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[DaprWorkflowClient]:
    client = DaprWorkflowClient(host="127.0.0.1", port=str(cluster.grpc_port()))
    yield client
    client.close()


class Instance:
    """An instance that has been started."""

    def __init__(self, client: DaprWorkflowClient, workflow: str, value: Any) -> None:
        self.client = client
        self.id = client.schedule_new_workflow(workflow, input=value)

    def event(self, name: str, data: Any = None) -> Instance:
        self.client.raise_workflow_event(self.id, name, data=data)
        return self

    def waiting(self) -> Instance:
        wait_for_status(self.client, self.id, WAITING)
        return self

    def state(self) -> Any:
        state = self.client.get_workflow_state(self.id)
        assert state is not None
        return state

    def end(self) -> Any:
        state = self.client.wait_for_workflow_completion(self.id, timeout_in_seconds=60)
        assert state is not None
        return state

    def result(self) -> Any:
        state = self.end()
        assert state.runtime_status.name == "COMPLETED", state
        return json.loads(state.serialized_output)


Start = Callable[..., Instance]


@pytest.fixture
def start(worker: WorkerProcess, client: DaprWorkflowClient) -> Start:
    return lambda workflow, value=None: Instance(client, workflow, value)


VALUES = [1, "text", "\u4e16\u754c", {"a": [1, None]}, [True], 1.5]

COMPLETING: list[tuple[str, Any, Any]] = [
    ("chain", 10, 10),
    ("async_activities", 3, 12),
    ("fan_out", 20, 210),
    ("race", None, 7),
    ("late", None, "timer"),
    ("timers", [0, 50, 1200], [True] * 3),
    ("parent", 4, 5),
    ("parent_with_id", 4, 5),
    ("parents", 5, [1, 2, 3, 4, 5]),
    ("parent_of_failure", "broken", True),
    ("caught", "broken", [True, 2]),
    ("retried", 3, 3),
    ("retried_child", "broken", True),
    ("counter", 0, 5),
    ("event_or_timeout", 100, "timeout"),
    ("big", BIG, 2 * BIG),
    ("values", VALUES, VALUES),
    ("patched", None, [True, True]),
    ("unregistered_activity", None, True),
]
"""Workflow, input, and the result that it has without anything happening from outside."""


@pytest.mark.parametrize(("workflow", "value", "expected"), COMPLETING, ids=[case[0] for case in COMPLETING])
def test_a_workflow_completes(start: Start, workflow: str, value: Any, expected: Any) -> None:
    assert start(workflow, value).result() == expected


@pytest.mark.parametrize(
    ("workflow", "value", "message"),
    [("uncaught", "broken", "broken"), ("own_error", "broken", "broken"), ("retried", 4, "attempt 3")],
    ids=["of an activity", "of its own", "of the last attempt"],
)
def test_an_uncaught_exception_fails_the_workflow(start: Start, workflow: str, value: Any, message: str) -> None:
    state = start(workflow, value).end()

    assert state.runtime_status.name == "FAILED"
    assert message in state.failure_details.message


def test_a_workflow_returns_nothing(start: Start) -> None:
    state = start("nothing").end()
    assert (state.runtime_status.name, state.serialized_output) in [("COMPLETED", "null"), ("COMPLETED", None)]


def test_code_that_is_not_replayed_runs_once(start: Start, cluster: Cluster) -> None:
    instance = start("replayed", 4)
    instance.end()
    said = [value for found, name, value in runs(cluster.folder) if (found, name) == (instance.id, "said")]
    assert said == [0, 1, 2, 3]


class TestEvents:
    def test_an_event_is_received(self, start: Start) -> None:
        assert start("one_event", "answer").waiting().event("answer", {"a": [1]}).result() == {"a": [1]}

    def test_the_name_ignores_case(self, start: Start) -> None:
        assert start("one_event", "Answer").waiting().event("aNSWER", 5).result() == 5

    def test_events_of_one_name_are_received_in_order(self, start: Start) -> None:
        assert start("two_events").waiting().event("number", 1).event("number", 2).result() == [1, 2]

    def test_an_event_before_the_wait_is_kept(self, start: Start) -> None:
        assert start("buffered_event").waiting().event("early", "kept").event("go").result() == "kept"

    def test_an_event_in_time_ends_the_timeout(self, start: Start) -> None:
        assert start("event_or_timeout", 60_000).waiting().event("answer", "yes").result() == "yes"

    def test_events_are_carried_over_by_continue_as_new(self, start: Start) -> None:
        instance = start("collector", [])
        for number in range(1, 5):
            instance.event("item", number)
        assert instance.result() == [1, 2, 3, 4]


class TestManagement:
    def test_a_suspended_workflow_goes_on_when_it_is_resumed(self, start: Start, client: DaprWorkflowClient) -> None:
        instance = start("one_event", "answer").waiting()
        client.pause_workflow(instance.id)
        wait_for(lambda: instance.state().runtime_status.name == "SUSPENDED")
        instance.event("answer", 7)
        client.resume_workflow(instance.id)
        assert instance.result() == 7

    def test_a_terminated_workflow_has_the_given_output(self, start: Start, client: DaprWorkflowClient) -> None:
        instance = start("one_event", "answer").waiting()
        client.terminate_workflow(instance.id, output="stopped")
        state = instance.end()
        assert (state.runtime_status.name, state.serialized_output) == ("TERMINATED", '"stopped"')

    def test_termination_reaches_children(self, start: Start, client: DaprWorkflowClient) -> None:
        instance = start("parent_of_waiting").waiting()
        wait_for_status(client, f"{instance.id}-child", WAITING)
        client.terminate_workflow(instance.id)
        instance.end()
        state = client.wait_for_workflow_completion(f"{instance.id}-child", timeout_in_seconds=60)
        assert state.runtime_status.name == "TERMINATED"

    def test_a_purged_workflow_is_gone(self, start: Start, client: DaprWorkflowClient) -> None:
        instance = start("chain", 1)
        instance.end()
        client.purge_workflow(instance.id)
        assert client.get_workflow_state(instance.id) is None

    def test_the_custom_status_is_the_last_one(self, start: Start) -> None:
        instance = start("status", ["one", "two"])
        instance.end()
        assert instance.state().serialized_custom_status == "two"
