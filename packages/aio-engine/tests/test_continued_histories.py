"""Turns for workers that keep instances alive: they are given only what was committed since their last turn."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from engine_harness import Harness, activity, end, stores

from durabletask_aio.engine import events, sessions
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.memory import MemoryStore
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.engine.streams import WorkerStream
from durabletask_aio.engine.tokens import parse


@pytest.fixture(params=stores(), ids=["memory", "file"])
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """An engine whose worker keeps instances alive, and an instance that has had its first turn."""
    kind: type[MemoryStore | SqliteStore] = request.param
    harness = Harness(SqliteStore(None) if kind is SqliteStore else MemoryStore())
    harness.worker.keeps_sessions = True
    harness.start("i")
    harness.turn(activity(1), harness.timer(2, 5))
    yield harness
    harness.kernel.store.close()


def continued(item: pb.WorkItem | None) -> str:
    """The lease on the turn that a turn continues; empty if it comes with its whole history."""
    assert item is not None
    properties = item.orchestratorRequest.properties
    return properties[events.CONTINUES].string_value if events.CONTINUES in properties else ""


def kinds(item: pb.WorkItem) -> list[str | None]:
    return [each.WhichOneof("eventType") for each in item.orchestratorRequest.pastEvents]


def finish_activity(harness: Harness) -> None:
    item = harness.take()
    assert item is not None
    harness.complete_activity(item)


def next_turn(harness: Harness, worker: WorkerStream | None = None) -> pb.WorkItem:
    item = harness.take(worker)
    assert item is not None
    assert item.HasField("orchestratorRequest"), item
    return item


def test_a_turn_continues_the_last_one_of_its_worker(harness: Harness) -> None:
    finish_activity(harness)
    item = next_turn(harness)
    assert kinds(item) == ["taskScheduled", "timerCreated", "orchestratorCompleted"]
    first = continued(item)
    harness.complete_turn(item, activity(3))
    finish_activity(harness)
    second = next_turn(harness)

    assert kinds(second) == ["taskScheduled", "orchestratorCompleted"]
    assert first
    assert continued(second) == parse(item.completionToken).lease
    harness.complete_turn(second, end())
    # What is recorded is the same as without sessions.
    assert [each.WhichOneof("eventType") for each in harness.history("i")] == [
        *("orchestratorStarted", "executionStarted", "taskScheduled", "timerCreated", "orchestratorCompleted"),
        *("orchestratorStarted", "taskCompleted", "taskScheduled", "orchestratorCompleted"),
        *("orchestratorStarted", "taskCompleted", "orchestratorCompleted", "executionCompleted"),
    ]


def test_an_event_of_any_length_is_left_out_whole(harness: Harness) -> None:
    for size in (100, 127, 128, 20_000):
        harness.start(f"of {size}")
        item = next_turn(harness)
        harness.complete_turn(item)
        request = pb.RaiseEventRequest(instanceId=f"of {size}", name="go")
        request.input.value = "x" * size
        harness.call("RaiseEvent", request)
        item = next_turn(harness)
        assert kinds(item) == ["orchestratorCompleted"]
        harness.complete_turn(item, activity(1, input={"value": "y" * size}))
        harness.raise_event(f"of {size}")
        [scheduled] = [
            each for each in (harness.take(), harness.take()) if each and each.orchestratorRequest.instanceId
        ]

        assert kinds(scheduled) == ["taskScheduled", "orchestratorCompleted"]


def test_another_worker_is_given_the_whole_history(harness: Harness) -> None:
    finish_activity(harness)
    other = harness.connect()
    other.keeps_sessions = True
    item = next_turn(harness, other)
    assert (continued(item), kinds(item)[:2]) == ("", ["orchestratorStarted", "executionStarted"])
    harness.complete_turn(item)
    harness.raise_event("i")

    # The session of the first worker is of an earlier turn.
    assert continued(next_turn(harness)) == ""


def test_a_worker_that_does_not_say_that_it_keeps_instances_is_given_all(harness: Harness) -> None:
    harness.worker.keeps_sessions = False
    finish_activity(harness)
    harness.complete_turn(next_turn(harness))
    harness.raise_event("i")

    assert continued(next_turn(harness)) == ""


def test_what_is_dispatched_again_continues_the_same_turn(harness: Harness) -> None:
    finish_activity(harness)
    item = next_turn(harness)
    harness.requeue(item)
    again = next_turn(harness)

    assert continued(again) == continued(item) != ""
    assert kinds(again) == kinds(item)


def test_the_whole_history_comes_at_once_for_a_worker_that_asks_for_it(harness: Harness) -> None:
    finish_activity(harness)
    item = next_turn(harness)
    asked = pb.OrchestratorResponse(instanceId="i", completionToken=item.completionToken, requiresHistory=True)
    harness.call("CompleteOrchestratorTask", asked)
    again = next_turn(harness)

    assert continued(again) == ""
    assert len(again.orchestratorRequest.pastEvents) == 5
    assert [each.WhichOneof("eventType") for each in again.orchestratorRequest.newEvents] == [
        "orchestratorStarted",
        "taskCompleted",
    ]


def test_a_worker_that_asks_for_what_it_has_gives_the_turn_back(harness: Harness) -> None:
    harness.start("other")
    finish_activity(harness)
    item = next(each for each in (harness.take(), harness.take()) if each and not continued(each))
    asked = pb.OrchestratorResponse(instanceId="other", completionToken=item.completionToken, requiresHistory=True)
    harness.call("CompleteOrchestratorTask", asked)

    assert harness.kernel.dispatcher.out("orchestration") == 1  # that of the first instance


def test_an_answer_that_does_not_count_is_continued_by_nothing(harness: Harness) -> None:
    finish_activity(harness)
    late = next_turn(harness)
    harness.requeue(late)
    item = next_turn(harness)
    harness.complete_turn(item)
    harness.complete_turn(late)
    harness.raise_event("i")

    assert continued(next_turn(harness)) == parse(item.completionToken).lease


def test_a_history_that_has_changed_otherwise_comes_whole(harness: Harness) -> None:
    finish_activity(harness)
    harness.complete_turn(next_turn(harness))
    failed = pb.CompleteOrchestrationAction(orchestrationStatus=pb.ORCHESTRATION_STATUS_FAILED)
    harness.raise_event("i")
    harness.complete_turn(next_turn(harness), pb.OrchestratorAction(id=9, completeOrchestration=failed))
    harness.call("RewindInstance", pb.RewindInstanceRequest(instanceId="i"))

    assert continued(next_turn(harness)) == ""


def test_an_execution_that_continues_as_new_begins_with_an_empty_history(harness: Harness) -> None:
    finish_activity(harness)
    action = pb.CompleteOrchestrationAction(orchestrationStatus=pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW)
    harness.complete_turn(next_turn(harness), pb.OrchestratorAction(id=9, completeOrchestration=action))
    item = next_turn(harness)

    assert (continued(item), kinds(item)) == ("", [])


def test_nothing_is_remembered_of_what_has_ended(harness: Harness) -> None:
    assert list(harness.kernel._sessions) == ["i"]
    finish_activity(harness)
    harness.complete_turn(next_turn(harness), end())

    assert list(harness.kernel._sessions) == []


def test_nothing_is_remembered_of_what_is_purged(harness: Harness) -> None:
    harness.call("SkipGracefulOrchestrationTerminations", _batch("i"))

    assert list(harness.kernel._sessions) == []


def _batch(*ids: str) -> pb.SkipGracefulOrchestrationTerminationsRequest:
    return pb.SkipGracefulOrchestrationTerminationsRequest(instanceBatch=pb.InstanceBatch(instanceIds=ids))


def test_the_number_that_is_remembered_is_bounded(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    for name in ("j", "k"):
        harness.start(name)
    taken = [harness.take() for _ in range(3)]
    for item in taken:
        if item is not None and item.HasField("orchestratorRequest"):
            harness.complete_turn(item)
    assert list(harness.kernel._sessions) == ["j", "k"]
    harness.advance(timedelta(seconds=6))

    assert continued(next_turn(harness)) == ""
