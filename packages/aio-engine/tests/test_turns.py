"""What the answer of a worker makes of an instance, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from engine_support import action, activity, call, child, end, failed, lock, timer, unlock

from durabletask_aio.engine import events, turns
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.state import (
    Changes,
    DeliverEvent,
    EndExecution,
    EventKind,
    InboxEvent,
    Instance,
    Lock,
    Parent,
    ReleaseLock,
    RequestLock,
    RewindInstance,
    SendOperation,
    StartInstance,
    TerminateChildren,
    TimerKind,
)
from durabletask_aio.engine.transitions import FAILED, PENDING, RUNNING, SUSPENDED, TERMINATED, Context

NOW = 1_000_000_000


def instance(status: int = RUNNING, **fields: Any) -> Instance:
    return Instance(1, "x", "execution", "turn", "program", "1", status, 0, 0, started_at=5)._replace(**fields)


def received(*kinds: EventKind) -> list[InboxEvent]:
    """Events of these kinds, each with its place as its data."""
    made = {
        EventKind.OTHER: lambda seq: events.event_raised(0, "e", str(seq)),
        EventKind.SUSPEND: lambda seq: events.execution_suspended(0, str(seq)),
        EventKind.RESUME: lambda seq: events.execution_resumed(0, str(seq)),
        EventKind.TERMINATE: lambda seq: events.execution_terminated(0, str(seq), False),
        EventKind.TERMINATE_RECURSIVELY: lambda seq: events.execution_terminated(0, str(seq), True),
        EventKind.REWIND: lambda seq: events.execution_rewound(0, str(seq)),
    }
    return [InboxEvent(seq, made[kind](seq), kind) for seq, kind in enumerate(kinds, 1)]


def complete(
    before: Instance,
    *actions: pb.OrchestratorAction,
    given: Sequence[InboxEvent] = (),
    later: Sequence[InboxEvent] = (),
    outstanding: Sequence[int] = (),
    time: int = NOW,
    **response: Any,
) -> Changes:
    numbers = iter(range(1000))
    turn = turns.Turn(given, later, time, pb.OrchestratorResponse(actions=actions, **response))
    return turns.complete_turn(
        before,
        turn,
        lambda: pb.ExecutionStartedEvent(name="program"),
        lambda event: event.eventId in outstanding,
        Context(NOW, lambda: f"id{next(numbers)}"),
    )


def kinds(changes: Changes) -> list[str]:
    return [each.WhichOneof("eventType") or "" for each in events.past_events([changes.history])]


class TestContinuing:
    def test_its_events_and_actions_become_history(self) -> None:
        changes = complete(instance(event_count=3), activity(0), given=received(EventKind.OTHER, EventKind.OTHER))

        assert kinds(changes) == [
            "orchestratorStarted",
            "eventRaised",
            "eventRaised",
            "taskScheduled",
            "orchestratorCompleted",
        ]
        assert changes.consumed == 2
        assert changes.instance.event_count == 8
        assert changes.instance.turn_id != "turn"
        assert changes.instance.execution_id == "execution"
        assert changes.instance.status == RUNNING

    def test_the_first_turn_makes_it_run(self) -> None:
        assert complete(instance(PENDING)).instance.status == RUNNING

    def test_its_time_is_that_of_the_turn_and_its_events_are_not_before_it(self) -> None:
        changes = complete(instance(), activity(0), time=NOW + 50)

        assert changes.instance.turn_time == NOW + 50
        history = events.past_events([changes.history])
        assert {events.microseconds(each.timestamp) for each in history} == {NOW + 50}

    def test_a_custom_status_stays_until_it_is_set_again(self) -> None:
        before = instance(custom_status='"old"')

        assert complete(before).instance.custom_status == '"old"'
        assert complete(before, customStatus=events.string_value('"new"')).instance.custom_status == '"new"'
        assert complete(before, customStatus=events.string_value("")).instance.custom_status is None

    @pytest.mark.parametrize(
        ("status", "given", "expected"),
        [
            (RUNNING, [EventKind.SUSPEND], SUSPENDED),
            (RUNNING, [EventKind.SUSPEND, EventKind.RESUME], RUNNING),
            (SUSPENDED, [EventKind.RESUME], RUNNING),
            (SUSPENDED, [EventKind.RESUME, EventKind.SUSPEND], SUSPENDED),
        ],
    )
    def test_suspensions(self, status: int, given: list[EventKind], expected: int) -> None:
        assert complete(instance(status), given=received(*given)).instance.status == expected


class TestActions:
    def test_an_activity(self) -> None:
        (task,) = complete(instance(), activity(7, "price")).tasks

        assert (task.instance_id, task.execution_id, task.task_id, task.name) == ("x", "execution", 7, "price")
        request = pb.ActivityRequest.FromString(task.request)
        assert (request.taskId, request.orchestrationInstance.instanceId) == (7, "x")

    def test_a_timer_is_due_in_the_engine_s_time(self) -> None:
        (made,) = complete(instance(ahead=3), timer(7, NOW + 100)).timers

        assert (made.due, made.kind, made.execution_id) == (NOW + 97, TimerKind.TIMER, "execution")
        fired = events.parse(made.event).timerFired
        assert (fired.timerId, events.microseconds(fired.fireAt)) == (7, NOW + 100)

    def test_a_child(self) -> None:
        (message,) = complete(instance(), child(7, "c")).messages

        assert isinstance(message, StartInstance)
        assert message.instance_id == "c"
        assert message.parent == Parent("x", "execution", 7)

    def test_a_child_without_an_id_gets_one(self) -> None:
        changes = complete(instance(), child(7, ""))

        (message,) = changes.messages
        assert isinstance(message, StartInstance)
        created = events.past_events([changes.history])[1].subOrchestrationInstanceCreated
        assert created.instanceId == message.instance_id != ""

    def test_an_event_for_another_instance(self) -> None:
        sent = pb.SendEventAction(
            instance=pb.OrchestrationInstance(instanceId="y"), name="go", data=events.string_value("1")
        )

        changes = complete(instance(), action(7, sendEvent=sent))

        (message,) = changes.messages
        assert isinstance(message, DeliverEvent)
        assert (message.instance_id, message.execution_id) == ("y", None)
        assert "eventSent" in kinds(changes)

    def test_the_termination_of_another_instance(self) -> None:
        asked = pb.TerminateOrchestrationAction(instanceId="y", recurse=True)

        (message,) = complete(instance(), action(7, terminateOrchestration=asked)).messages

        assert isinstance(message, DeliverEvent)
        assert (message.instance_id, message.kind) == ("y", EventKind.TERMINATE_RECURSIVELY)

    def test_operations_and_locks(self) -> None:
        messages = complete(instance(), call(0, "@e@a"), lock(1, "@e@a", "@e@b", "@e@a"), unlock(2, 1, "@e@b")).messages

        operation, request, release = messages
        assert isinstance(operation, SendOperation)
        assert (operation.entity_id, operation.execution_id, operation.due) == ("@e@a", "execution", None)
        assert request == RequestLock(Lock("section 1", "x", "execution"), ("@e@a", "@e@b"))
        assert release == ReleaseLock("@e@b", "section 1")

    def test_what_cannot_be_carried_out_fails_the_instance(self) -> None:
        changes = complete(instance(), activity(0), end("RUNNING"))

        assert changes.instance.status == FAILED
        assert changes.tasks == []
        failure = changes.payloads["failure"]
        assert isinstance(failure, bytes)
        details = pb.TaskFailureDetails.FromString(failure)
        assert details.errorType == "InvalidAction"
        assert "an instance cannot end as ORCHESTRATION_STATUS_RUNNING" in details.errorMessage


class TestEnding:
    def test_it_completes_with_its_output(self) -> None:
        changes = complete(instance(), end(result=events.string_value('"out"')), given=received(EventKind.OTHER))

        assert changes.instance.completed_at == NOW
        assert changes.payloads == {"output": '"out"', "failure": None}
        assert changes.drop_inbox
        assert kinds(changes)[-2:] == ["orchestratorCompleted", "executionCompleted"]
        assert changes.messages == [EndExecution("execution")]

    def test_its_parent_gets_its_failure_as_it_is(self) -> None:
        changes = complete(instance(parent=Parent("p", "pe", 7)), failed("no"))

        message = changes.messages[-1]
        assert isinstance(message, DeliverEvent)
        details = events.parse(message.event).subOrchestrationInstanceFailed.failureDetails
        assert (details.errorType, details.errorMessage) == ("Planned", "no")

    def test_a_recursive_termination_goes_on_to_the_children(self) -> None:
        given = received(EventKind.TERMINATE_RECURSIVELY)

        changes = complete(instance(), end("TERMINATED", result=events.string_value("1")), given=given)

        assert changes.instance.status == TERMINATED
        assert changes.messages[-1] == TerminateChildren("x", "1")

    def test_what_a_suspended_instance_asks_for_when_it_is_terminated_is_left_out(self) -> None:
        given = received(EventKind.TERMINATE)

        assert complete(instance(SUSPENDED), activity(0), end("TERMINATED"), given=given).tasks == []
        assert complete(instance(), activity(0), end("TERMINATED"), given=given).tasks != []
        resumed = received(EventKind.RESUME, EventKind.TERMINATE)
        assert complete(instance(SUSPENDED), activity(0), end("TERMINATED"), given=resumed).tasks != []


class TestContinuingAsNew:
    def test_another_execution_begins_with_the_new_input(self) -> None:
        before = instance(event_count=9, parent=Parent("p", "pe", 7), started_at=NOW - 5, tags={"a": "1"})
        completion = end("CONTINUED_AS_NEW", result=events.string_value('"next"'), newVersion=events.string_value("2"))

        changes = complete(before, completion)

        after = changes.instance
        assert (after.status, after.version, after.event_count) == (PENDING, "2", 0)
        assert after.execution_id != "execution"
        assert after.turn_id != "turn"
        assert after.parent == before.parent
        assert after.started_at == NOW
        assert changes.clear_history
        assert changes.history == b""
        assert changes.payloads == {"input": '"next"', "output": None, "failure": None}
        assert EndExecution("execution") in changes.messages

    def test_what_is_for_any_execution_is_kept_in_its_order(self) -> None:
        carried = pb.HistoryEvent(eventId=-1, eventRaised=pb.EventRaisedEvent(name="carried"))
        later = [
            InboxEvent(11, b"result", execution_id="execution"),
            InboxEvent(12, b"event"),
            InboxEvent(13, b"suspend", EventKind.SUSPEND),
        ]

        changes = complete(instance(), end("CONTINUED_AS_NEW", carryoverEvents=[carried]), later=later)

        start, first, *rest = changes.inbox
        assert start.kind is EventKind.START
        assert events.parse(first.event).eventRaised.name == "carried"
        assert [(each.seq, each.event, each.kind) for each in rest] == [
            (0, b"event", EventKind.OTHER),
            (0, b"suspend", EventKind.SUSPEND),
        ]

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ([EventKind.OTHER, EventKind.SUSPEND], [EventKind.SUSPEND]),
            ([EventKind.SUSPEND, EventKind.RESUME], []),
            ([EventKind.SUSPEND, EventKind.RESUME, EventKind.SUSPEND], [EventKind.SUSPEND]),
            ([EventKind.TERMINATE], [EventKind.TERMINATE]),
        ],
    )
    def test_what_the_turn_was_given_and_has_not_heeded_is_kept(
        self, given: list[EventKind], kept: list[EventKind]
    ) -> None:
        changes = complete(instance(), end("CONTINUED_AS_NEW"), given=received(*given))

        assert [each.kind for each in changes.inbox] == [EventKind.START, *kept]

    def test_its_timers_are_dropped_and_its_activities_run(self) -> None:
        changes = complete(instance(), activity(0), timer(1, NOW + 5), end("CONTINUED_AS_NEW"))

        assert len(changes.tasks) == 1
        assert changes.timers == []


class TestRewinding:
    def rewind(self, *history: pb.HistoryEvent, **options: Any) -> Changes:
        asked = pb.OrchestratorAction(
            id=-1, rewindOrchestration=pb.RewindOrchestrationAction(newHistory=[*history, *HISTORY[-1:]])
        )
        return complete(instance(rewinding=True, event_count=50), asked, given=received(EventKind.REWIND), **options)

    def test_the_history_is_the_new_one(self) -> None:
        changes = self.rewind(*HISTORY[:3])

        assert changes.clear_history
        assert kinds(changes) == ["orchestratorStarted", "taskScheduled", "timerCreated", "executionRewound"]
        assert changes.instance.event_count == 4
        assert not changes.instance.rewinding
        # The next turn replays it.
        assert [each.event for each in changes.inbox] == [b""]

    def test_what_has_no_outcome_is_asked_for_again(self) -> None:
        changes = self.rewind(*HISTORY)

        assert [each.task_id for each in changes.tasks] == [0]
        assert len(changes.timers) == 1
        rewound, operation, request = changes.messages
        assert isinstance(rewound, RewindInstance)
        assert rewound.instance_id == "c"
        assert isinstance(operation, SendOperation)
        assert isinstance(request, RequestLock)

    def test_what_has_an_outcome_is_not(self) -> None:
        answers = [
            pb.HistoryEvent(eventId=-1, taskCompleted=pb.TaskCompletedEvent(taskScheduledId=0)),
            pb.HistoryEvent(eventId=-1, timerFired=pb.TimerFiredEvent(timerId=1)),
            pb.HistoryEvent(
                eventId=-1,
                subOrchestrationInstanceCompleted=pb.SubOrchestrationInstanceCompletedEvent(taskScheduledId=2),
            ),
            pb.HistoryEvent(eventId=-1, entityOperationCompleted=pb.EntityOperationCompletedEvent(requestId="call 3")),
            pb.HistoryEvent(eventId=-1, entityLockGranted=pb.EntityLockGrantedEvent(criticalSectionId="section 4")),
        ]

        changes = self.rewind(*HISTORY, *answers)

        assert (changes.tasks, changes.timers, changes.messages) == ([], [], [])

    def test_nor_what_has_come_since_the_request(self) -> None:
        completed = pb.HistoryEvent(eventId=-1, taskCompleted=pb.TaskCompletedEvent(taskScheduledId=0))

        changes = self.rewind(*HISTORY, later=[InboxEvent(5, completed.SerializeToString())])

        assert changes.tasks == []

    def test_nor_what_is_still_outstanding(self) -> None:
        changes = self.rewind(*HISTORY, outstanding=[0, 3])

        assert changes.tasks == []
        assert not any(isinstance(each, SendOperation) for each in changes.messages)


HISTORY = [
    pb.HistoryEvent(eventId=-1, orchestratorStarted=pb.OrchestratorStartedEvent()),
    pb.HistoryEvent(eventId=0, taskScheduled=pb.TaskScheduledEvent(name="work")),
    pb.HistoryEvent(eventId=1, timerCreated=pb.TimerCreatedEvent()),
    pb.HistoryEvent(
        eventId=2, subOrchestrationInstanceCreated=pb.SubOrchestrationInstanceCreatedEvent(instanceId="c", name="n")
    ),
    pb.HistoryEvent(eventId=3, entityOperationCalled=call(3).sendEntityMessage.entityOperationCalled),
    pb.HistoryEvent(eventId=4, entityLockRequested=lock(4, "@e@a").sendEntityMessage.entityLockRequested),
    pb.HistoryEvent(eventId=-1, executionRewound=pb.ExecutionRewoundEvent()),
]
"""Everything that an instance can wait for, and the request to rewind it."""


def test_the_critical_sections_that_a_history_leaves_open():
    request = lock(0, "@e@a", "@e@b").sendEntityMessage.entityLockRequested
    history = [
        pb.HistoryEvent(eventId=0, entityLockRequested=request),
        pb.HistoryEvent(eventId=-1, entityLockGranted=pb.EntityLockGrantedEvent(criticalSectionId="section 0")),
        pb.HistoryEvent(eventId=1, entityUnlockSent=unlock(1, 0, "@e@a").sendEntityMessage.entityUnlockSent),
        pb.HistoryEvent(eventId=2, entityUnlockSent=unlock(2, 0, "@e@b").sendEntityMessage.entityUnlockSent),
    ]

    assert [turns.held_locks(history[:end]) for end in range(5)] == [
        [],
        [],
        [("section 0", ("@e@a", "@e@b"))],
        [("section 0", ("@e@b",))],
        [],
    ]
