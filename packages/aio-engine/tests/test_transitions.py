"""What commands make of an instance, without a store."""

from __future__ import annotations

from typing import Any

import pytest

from durabletask_aio.engine import events, transitions
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
    StartInstance,
    TimerKind,
)
from durabletask_aio.engine.transitions import (
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    SUSPENDED,
    TERMINAL,
    TERMINATED,
    Context,
)

NOW = 1_000_000_000
ENDED = sorted(TERMINAL)


@pytest.fixture
def context() -> Context:
    numbers = iter(range(1000))
    return Context(NOW, lambda: f"id{next(numbers)}")


def instance(status: int = RUNNING, **fields: Any) -> Instance:
    return Instance(1, "x", "execution", "turn", "program", None, status, 0, 0, started_at=5)._replace(**fields)


def inbox(*kinds: EventKind) -> list[InboxEvent]:
    return [InboxEvent(seq, b"event", kind) for seq, kind in enumerate(kinds, 1)]


def told(changes: Changes) -> list[pb.HistoryEvent]:
    """The events that others get."""
    return [pb.HistoryEvent.FromString(each.event) for each in changes.messages if isinstance(each, DeliverEvent)]


class TestStart:
    message = StartInstance("x", "program", input='"in"', tags={"k": "v"})

    def test_a_new_instance_is_pending_with_its_start_in_the_inbox(self, context: Context) -> None:
        changes = transitions.start(None, self.message, context)

        assert changes.instance.status == PENDING
        assert changes.instance.started_at == changes.instance.turn_time == changes.instance.created_at == NOW
        assert changes.payloads == {"input": '"in"', "output": None, "failure": None}
        (start,) = changes.inbox
        assert start.kind is EventKind.START
        body = pb.HistoryEvent.FromString(start.event).executionStarted
        assert (body.name, body.input.value, dict(body.tags)) == ("program", '"in"', {"k": "v"})
        assert not changes.messages
        assert not changes.timers

    @pytest.mark.parametrize("status", [PENDING, RUNNING, SUSPENDED, *ENDED])
    def test_an_id_in_use_is_refused(self, context: Context, status: int) -> None:
        with pytest.raises(transitions.InstanceExistsError):
            transitions.start(instance(status), self.message, context)

    @pytest.mark.parametrize("status", ENDED)
    def test_an_instance_that_has_ended_is_replaced_if_the_request_allows_it(
        self, context: Context, status: int
    ) -> None:
        changes = transitions.start(instance(status), self.message._replace(replaceable=TERMINAL), context)

        assert changes.instance.execution_id != "execution"
        assert changes.instance.key == 1
        assert changes.clear_history
        assert changes.drop_inbox
        assert changes.messages == [EndExecution("execution", drop_tasks=True)]

    def test_the_parent_of_a_running_instance_hears_of_its_replacement(self, context: Context) -> None:
        existing = instance(RUNNING, parent=Parent("p", "pe", 7))

        changes = transitions.start(existing, self.message._replace(replaceable=frozenset({RUNNING})), context)

        (event,) = told(changes)
        assert event.subOrchestrationInstanceFailed.taskScheduledId == 7
        assert event.subOrchestrationInstanceFailed.failureDetails.errorType == "InstanceReplaced"

    @pytest.mark.parametrize("status", [RUNNING, COMPLETED])
    def test_a_repeated_start_is_known_by_its_execution_id(self, context: Context, status: int) -> None:
        message = self.message._replace(execution_id="execution", replaceable=TERMINAL)

        with pytest.raises(transitions.AlreadyStartedError):
            transitions.start(instance(status), message, context)

    def test_a_scheduled_start_waits_for_a_timer(self, context: Context) -> None:
        changes = transitions.start(None, self.message._replace(scheduled_at=NOW + 10), context)

        assert changes.instance.scheduled_at == changes.instance.started_at == NOW + 10
        (timer,) = changes.timers
        assert (timer.due, timer.kind, timer.target) == (NOW + 10, TimerKind.START, "x")
        assert timer.execution_id == changes.instance.execution_id
        assert not transitions.is_ready(changes.instance, changes.inbox)
        assert transitions.is_ready(transitions.fire_start(changes.instance).instance, changes.inbox)

    def test_a_scheduled_start_that_has_passed_is_now(self, context: Context) -> None:
        changes = transitions.start(None, self.message._replace(scheduled_at=NOW - 10), context)

        assert changes.instance.scheduled_at is None
        assert changes.instance.started_at == NOW

    @pytest.mark.parametrize(
        ("before", "expected"), [(None, (NOW, 0)), (NOW - 1, (NOW, 0)), (NOW, (NOW + 1, 1)), (NOW + 5, (NOW + 6, 6))]
    )
    def test_two_executions_never_start_at_the_same_time(self, before: int | None, expected: tuple[int, int]) -> None:
        existing = None if before is None else instance(started_at=before)

        assert transitions.next_start(existing, NOW) == expected


class TestDeliver:
    message = DeliverEvent("x", b"event")

    @pytest.mark.parametrize("status", [PENDING, RUNNING, SUSPENDED])
    def test_a_live_instance_gets_the_event(self, status: int) -> None:
        changes = transitions.deliver(instance(status), self.message, [])

        assert changes is not None
        assert changes.inbox == [InboxEvent(0, b"event")]

    @pytest.mark.parametrize("status", ENDED)
    def test_one_that_has_ended_does_not(self, status: int) -> None:
        assert transitions.deliver(instance(status), self.message, []) is None

    def test_what_is_for_another_execution_is_dropped(self) -> None:
        assert transitions.deliver(instance(), self.message._replace(execution_id="other"), []) is None
        assert transitions.deliver(instance(), self.message._replace(execution_id="execution"), []) is not None

    @pytest.mark.parametrize(
        ("status", "waiting", "is_dropped"),
        [
            (RUNNING, [], False),
            (SUSPENDED, [], True),
            (RUNNING, [EventKind.SUSPEND], True),
            (RUNNING, [EventKind.SUSPEND, EventKind.OTHER, EventKind.RESUME], False),
            (SUSPENDED, [EventKind.RESUME], False),
            (SUSPENDED, [EventKind.RESUME, EventKind.SUSPEND], True),
        ],
    )
    def test_a_suspension_of_a_suspended_instance_is_dropped(
        self, status: int, waiting: list[EventKind], is_dropped: bool
    ) -> None:
        suspend = self.message._replace(kind=EventKind.SUSPEND)

        assert (transitions.deliver(instance(status), suspend, inbox(*waiting)) is None) == is_dropped


@pytest.mark.parametrize(
    ("status", "kinds", "expected"),
    [
        (RUNNING, [], False),
        (RUNNING, [EventKind.OTHER], True),
        (PENDING, [EventKind.START], True),
        (SUSPENDED, [EventKind.OTHER, EventKind.SUSPEND], False),
        (SUSPENDED, [EventKind.OTHER, EventKind.RESUME], True),
        (SUSPENDED, [EventKind.TERMINATE], True),
        (SUSPENDED, [EventKind.TERMINATE_RECURSIVELY], True),
        (SUSPENDED, [EventKind.REWIND], True),
        *[(status, [EventKind.OTHER], False) for status in ENDED],
    ],
)
def test_when_an_instance_has_a_turn_to_run(status: int, kinds: list[EventKind], expected: bool):
    assert transitions.is_ready(instance(status), inbox(*kinds)) == expected


class TestRewind:
    @pytest.mark.parametrize("status", [RUNNING, SUSPENDED, COMPLETED, TERMINATED])
    def test_only_a_failed_instance_can_be_rewound(self, context: Context, status: int) -> None:
        with pytest.raises(transitions.NotAllowedError, match="'x' is not in a failed state"):
            transitions.rewind(instance(status), None, [], context, was_suspended=False)

    def test_what_others_hold_by_now_is_not_taken_from_them(self, context: Context) -> None:
        with pytest.raises(transitions.NotAllowedError, match="locked by instance 'other' now"):
            transitions.rewind(instance(FAILED), None, [Lock("s", "other", "oe")], context, was_suspended=False)

    @pytest.mark.parametrize(("was_suspended", "status"), [(False, RUNNING), (True, SUSPENDED)])
    def test_the_next_turn_gets_the_request_alone(self, context: Context, was_suspended: bool, status: int) -> None:
        failed = instance(FAILED, completed_at=3)

        changes = transitions.rewind(failed, '"why"', [], context, was_suspended=was_suspended)

        assert changes.instance.status == status
        assert changes.instance.completed_at is None
        assert changes.instance.turn_id != "turn"
        assert changes.payloads == {"output": None, "failure": None}
        assert transitions.is_ready(changes.instance, changes.inbox)
        later = [*changes.inbox, *inbox(EventKind.OTHER)]
        assert list(transitions.turn_events(changes.instance, later)) == changes.inbox


class TestTerminateNow:
    def test_it_ends_with_its_end_in_its_history(self, context: Context) -> None:
        changes = transitions.terminate_now(instance(event_count=4, scheduled_at=9), '"out"', context)

        assert changes.instance.status == TERMINATED
        assert changes.instance.completed_at == NOW
        assert changes.instance.scheduled_at is None
        assert changes.instance.event_count == 6
        assert changes.drop_inbox
        assert changes.payloads == {"output": '"out"'}
        assert changes.messages == [EndExecution("execution")]
        kinds = [each.WhichOneof("eventType") for each in events.past_events([changes.history])]
        assert kinds == ["executionTerminated", "executionCompleted"]

    def test_its_parent_is_told(self, context: Context) -> None:
        (event,) = told(transitions.terminate_now(instance(parent=Parent("p", "pe", 7)), None, context))

        details = event.subOrchestrationInstanceFailed.failureDetails
        assert details.errorType == "SubOrchestrationTerminated"
        assert details.errorMessage == "sub-orchestration 'x' was terminated"


class TestTurnTime:
    def test_the_first_turn_is_at_the_start(self) -> None:
        assert transitions.turn_time(instance(started_at=7), inbox(EventKind.START), NOW) == 7

    def test_a_later_turn_is_now_in_the_time_of_the_instance(self) -> None:
        assert transitions.turn_time(instance(ahead=3), inbox(EventKind.OTHER), NOW) == NOW + 3

    def test_it_never_goes_back(self) -> None:
        assert transitions.turn_time(instance(turn_time=NOW + 9), inbox(EventKind.OTHER), NOW) == NOW + 9


class TestParents:
    parent = Parent("p", "pe", 7)

    def test_a_completed_child_reports_its_output(self, context: Context) -> None:
        child = instance(COMPLETED, parent=self.parent)

        (message,) = transitions.report_again(child, '"out"', None, context)

        assert (message.instance_id, message.execution_id) == ("p", "pe")
        body = pb.HistoryEvent.FromString(message.event).subOrchestrationInstanceCompleted
        assert (body.taskScheduledId, body.result.value) == (7, '"out"')

    def test_a_failed_child_reports_its_failure(self, context: Context) -> None:
        details = events.failure("Planned", "no").SerializeToString()

        (message,) = transitions.report_again(instance(FAILED, parent=self.parent), None, details, context)

        body = pb.HistoryEvent.FromString(message.event).subOrchestrationInstanceFailed
        assert body.failureDetails.errorType == "Planned"

    def test_one_that_was_rewound_by_itself_reports_nothing(self, context: Context) -> None:
        child = instance(COMPLETED, parent=self.parent._replace(has_outcome=True))

        assert transitions.report_again(child, None, None, context) == []

    @pytest.mark.parametrize(
        ("parent", "expected"),
        [
            (Parent("p", "pe", 7), True),
            (Parent("p", "pe", 7, True), True),
            (Parent("p", "pe", 8, True), False),
            (Parent("p", "other", 7, True), False),
            (Parent("p", "", 7, True), True),
            (Parent("p", "other", 7), False),
            (Parent("q", "pe", 7), False),
            (None, False),
        ],
    )
    def test_whose_child_it_is(self, parent: Parent | None, expected: bool) -> None:
        assert transitions.is_child_of(instance(parent=parent), self.parent) == expected


def test_an_instance_that_is_set_aside_keeps_all_but_suspensions_and_resumptions(context: Context):
    waiting = inbox(EventKind.START, EventKind.SUSPEND, EventKind.OTHER, EventKind.RESUME, EventKind.TERMINATE)

    changes = transitions.set_aside(instance(), waiting, "reason", context)

    assert changes.instance.status == SUSPENDED
    assert changes.drop_inbox
    assert [each.kind for each in changes.inbox] == [EventKind.START, EventKind.OTHER, EventKind.TERMINATE]
    (event,) = events.past_events([changes.history])
    assert event.executionSuspended.input.value == '"reason"'
