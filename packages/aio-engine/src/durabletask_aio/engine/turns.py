"""Turns: what the answer of a worker makes of an instance.  Pure, as all of `transitions`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from durabletask_aio.engine import events
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.state import (
    TERMINATES,
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
    Task,
    TerminateChildren,
    Timer,
    TimerKind,
)
from durabletask_aio.engine.transitions import (
    CONTINUED_AS_NEW,
    FAILED,
    PENDING,
    RUNNING,
    SUSPENDED,
    TERMINAL,
    Context,
    next_start,
    tell_parent,
    will_be_suspended,
)


@dataclass(frozen=True)
class Turn:
    """A turn that a worker has run.

    Attributes:
        events: what it was given, in this order.
        later: what has arrived since.
        time: the time that it was given.
        response: what it answered.
    """

    events: Sequence[InboxEvent]
    later: Sequence[InboxEvent]
    time: int
    response: pb.OrchestratorResponse


def complete_turn(
    instance: Instance,
    turn: Turn,
    started: Callable[[], pb.ExecutionStartedEvent],
    is_outstanding: Callable[[pb.HistoryEvent], bool],
    context: Context,
) -> Changes:
    """Commit a turn: its events and actions become history, and what the actions ask for happens.

    An action that cannot be carried out fails the instance, as a worker would with an error of its code.

    Args:
        instance: the instance that the turn was of.
        turn: what went in and what came out.
        started: returns the event that started the execution; called for continue-as-new and rewind only.
        is_outstanding: returns whether the activity or the entity operation that an event asks for has yet to be run,
            since the time before the instance failed; called for a rewind only.
        context: time and ids.

    Returns:
        The changes of the instance.
    """
    try:
        return _TurnCommit(instance, turn, started, is_outstanding, context).run(turn.response.actions)
    except (ValueError, TypeError, KeyError) as error:
        failed = pb.OrchestratorAction(id=-1)
        failed.completeOrchestration.orchestrationStatus = FAILED
        failed.completeOrchestration.failureDetails.CopyFrom(
            events.failure("InvalidAction", f"the engine cannot carry out what the turn asks for: {error}")
        )
        return _TurnCommit(instance, turn, started, is_outstanding, context).run([failed])


class _TurnCommit:
    """The changes of one turn in the making."""

    def __init__(
        self,
        instance: Instance,
        turn: Turn,
        started: Callable[[], pb.ExecutionStartedEvent],
        is_outstanding: Callable[[pb.HistoryEvent], bool],
        context: Context,
    ) -> None:
        self.instance = instance
        self.turn = turn
        self.started = started
        self.is_outstanding = is_outstanding
        self.context = context
        self.now = max(context.now + instance.ahead, turn.time)
        self.recorded = [events.orchestrator_started(turn.time), *(each.event for each in turn.events if each.event)]
        """The new events of the history, encoded."""
        self.status = SUSPENDED if will_be_suspended(instance.status, turn.events) else RUNNING
        self.changes = Changes(instance, consumed=turn.events[-1].seq if turn.events else 0)

    def run(self, actions: Iterable[pb.OrchestratorAction]) -> Changes:
        completion: pb.CompleteOrchestrationAction | None = None
        for action in self._heeded(actions):
            field = action.WhichOneof("orchestratorActionType")
            if field == "completeOrchestration":
                completion = action.completeOrchestration
            elif field == "rewindOrchestration":
                return self._rewind(action.rewindOrchestration)
            elif field is not None:
                _ACTIONS[field](self, action)
        if completion is None:
            return self._go_on()
        if completion.orchestrationStatus == CONTINUED_AS_NEW:
            return self._continue_as_new(completion)
        return self._end(completion)

    def _heeded(self, actions: Iterable[pb.OrchestratorAction]) -> Iterable[pb.OrchestratorAction]:
        """Leave out what a turn asks for again: that of a suspended instance which is terminated.

        Upstream's worker holds back the events of a suspended instance, those too which say that an action has been
        taken, and answers with all such actions when it is terminated.
        """
        kinds = {each.kind for each in self.turn.events}
        if self.instance.status != SUSPENDED or not kinds & TERMINATES or EventKind.RESUME in kinds:
            return actions
        return [each for each in actions if each.HasField("completeOrchestration")]

    # The ways in which a turn can end

    def _go_on(self) -> Changes:
        self._record("orchestratorCompleted")
        return self._finish(status=self.status)

    def _end(self, completion: pb.CompleteOrchestrationAction) -> Changes:
        status = completion.orchestrationStatus
        if status not in TERMINAL:
            raise ValueError(f"an instance cannot end as {pb.OrchestrationStatus.Name(status)}")
        output = events.optional(completion, "result")
        details = completion.failureDetails if completion.HasField("failureDetails") else None
        self._record("orchestratorCompleted")
        ended = pb.ExecutionCompletedEvent(
            orchestrationStatus=status, result=events.string_value(output), failureDetails=details
        )
        self._record("executionCompleted", ended)
        changes = self.changes
        changes.drop_inbox = True
        changes.payloads["output"] = output
        changes.payloads["failure"] = None if details is None else details.SerializeToString()
        changes.messages.append(EndExecution(self.instance.execution_id))
        changes.messages += tell_parent(self.instance, status, output, details, self.context)
        if any(each.kind is EventKind.TERMINATE_RECURSIVELY for each in self.turn.events):
            changes.messages.append(TerminateChildren(self.instance.instance_id, output))
        return self._finish(status=status, completed_at=self.context.now)

    def _continue_as_new(self, completion: pb.CompleteOrchestrationAction) -> Changes:
        instance, context = self.instance, self.context
        begun, ahead = next_start(instance, context.now)
        version = events.optional(completion, "newVersion") or instance.version
        tags = {**instance.tags, **completion.tags}
        value = events.optional(completion, "result")
        event = events.execution_started(begun, instance.instance_id, instance.name, version, value, tags)
        before = self.started()
        for kept in ("parentInstance", "parentTraceContext"):
            if before.HasField(kept):
                getattr(event.executionStarted, kept).CopyFrom(getattr(before, kept))
        changes = self.changes
        changes.clear_history = True
        changes.drop_inbox = True
        changes.inbox.append(InboxEvent(0, event.SerializeToString(), EventKind.START))
        changes.inbox += [each._replace(seq=0) for each in self._unheeded()]
        changes.inbox += [InboxEvent(0, events.with_time(each, begun)) for each in completion.carryoverEvents]
        changes.inbox += [each._replace(seq=0) for each in self.turn.later if each.execution_id is None]
        changes.payloads = {"input": value, "output": None, "failure": None}
        # What this turn has asked for may still run; what it brings is for an execution that is no more.
        changes.messages.append(EndExecution(instance.execution_id))
        changes.timers.clear()
        changes.instance = instance._replace(
            execution_id=context.new_id(),
            turn_id=context.new_id(),
            version=version,
            status=PENDING,
            updated_at=context.now,
            started_at=begun,
            turn_time=begun,
            ahead=ahead,
            scheduled_at=None,
            custom_status=self._custom_status(),
            tags=tags,
            event_count=0,
        )
        return changes

    def _unheeded(self) -> list[InboxEvent]:
        """Return the requests of clients that this turn was given after its code had continued as new."""
        suspensions = [each for each in self.turn.events if each.kind is EventKind.SUSPEND]
        unheeded = suspensions[-1:] if self.status == SUSPENDED else []
        return unheeded + [each for each in self.turn.events if each.kind in TERMINATES]

    def _rewind(self, action: pb.RewindOrchestrationAction) -> Changes:
        """The history becomes the one that the worker has sent; what is missing in it is asked for again."""
        history = list(action.newHistory)
        changes = self.changes
        changes.clear_history = True
        self.recorded = [each.SerializeToString() for each in history]
        reason = next(
            (
                events.optional(each.executionRewound, "reason")
                for each in reversed(history)
                if _is(each, "executionRewound")
            ),
            None,
        )
        # Since the rewind was asked for, the instance has had answers to what it had asked for before it failed.
        arrived = [pb.HistoryEvent.FromString(each.event) for each in self.turn.later]
        for event in unanswered([*history, *arrived]):
            if not self.is_outstanding(event):
                self._ask_again(event, reason)
        # An empty event: the turn that follows only replays the new history.
        changes.inbox.append(InboxEvent(0, b""))
        return self._finish(status=self.status, event_count=0)

    def _ask_again(self, event: pb.HistoryEvent, reason: str | None) -> None:
        number, changes = event.eventId, self.changes
        if _is(event, "taskScheduled"):
            asked = event.taskScheduled
            changes.tasks.append(self._new_task(number, asked, events.called(asked)))
        elif _is(event, "timerCreated"):
            changes.timers.append(self._new_timer(number, event.timerCreated))
        elif _is(event, "subOrchestrationInstanceCreated"):
            child = self._new_child(number, event.subOrchestrationInstanceCreated)
            changes.messages.append(RewindInstance(child.instance_id, reason, child))
        elif _is(event, "entityOperationCalled"):
            changes.messages.append(self._operation("entityOperationCalled", event.entityOperationCalled))
        elif _is(event, "entityLockRequested"):
            changes.messages.append(self._lock_request(event.entityLockRequested))

    def _finish(self, *, status: int, **changed: object) -> Changes:
        history = b"".join(events.frame(events.PAST_EVENT, each) for each in self.recorded)
        count = changed.pop("event_count", self.instance.event_count)
        assert isinstance(count, int)
        fields = {
            "turn_id": self.context.new_id(),
            "status": status,
            "scheduled_at": None,
            "updated_at": self.context.now,
            "turn_time": self.turn.time,
            "custom_status": self._custom_status(),
            "event_count": count + len(self.recorded),
            "rewinding": False,
            **changed,
        }
        self.changes.history = history
        self.changes.instance = self.instance._replace(**fields)  # type: ignore[arg-type]
        return self.changes

    def _custom_status(self) -> str | None:
        response = self.turn.response
        if response.HasField("customStatus"):
            return response.customStatus.value or None
        return self.instance.custom_status

    def _record(self, field: str, body: Message | None = None, number: int = -1) -> None:
        self._record_encoded(field, b"" if body is None else body.SerializeToString(), number)

    def _record_encoded(self, field: str, body: bytes, number: int) -> None:
        self.recorded.append(events.encode(self.now, field, body, number))

    # Actions

    def schedule_task(self, action: pb.OrchestratorAction) -> None:
        asked = action.scheduleTask
        call = events.called(asked)
        self._record_encoded("taskScheduled", events.task_scheduled(asked, call), action.id)
        self.changes.tasks.append(self._new_task(action.id, asked, call))

    def _new_task(self, number: int, asked: pb.ScheduleTaskAction | pb.TaskScheduledEvent, call: bytes) -> Task:
        instance = self.instance
        return Task(
            seq=0,
            nonce=self.context.new_id(),
            instance_id=instance.instance_id,
            execution_id=instance.execution_id,
            task_id=number,
            name=asked.name,
            version=events.optional(asked, "version"),
            request=events.activity_request(instance.instance_id, number, asked, call),
        )

    def create_timer(self, action: pb.OrchestratorAction) -> None:
        created = pb.TimerCreatedEvent(fireAt=action.createTimer.fireAt)
        self._record("timerCreated", created, action.id)
        self.changes.timers.append(self._new_timer(action.id, created))

    def _new_timer(self, number: int, created: pb.TimerCreatedEvent) -> Timer:
        fire_at = events.microseconds(created.fireAt)
        event = events.timer_fired(fire_at, number, created.fireAt)
        return Timer(
            fire_at - self.instance.ahead, TimerKind.TIMER, self.instance.instance_id, self.instance.execution_id, event
        )

    def create_child(self, action: pb.OrchestratorAction) -> None:
        asked = action.createSubOrchestration
        created = pb.SubOrchestrationInstanceCreatedEvent(
            instanceId=asked.instanceId or self.context.new_id(), name=asked.name, tags=asked.tags
        )
        for field in ("version", "input", "parentTraceContext"):
            if asked.HasField(field):
                getattr(created, field).CopyFrom(getattr(asked, field))
        self._record("subOrchestrationInstanceCreated", created, action.id)
        self.changes.messages.append(self._new_child(action.id, created))

    def _new_child(self, number: int, created: pb.SubOrchestrationInstanceCreatedEvent) -> StartInstance:
        trace = created.parentTraceContext.SerializeToString() if created.HasField("parentTraceContext") else None
        return StartInstance(
            created.instanceId,
            created.name,
            version=events.optional(created, "version"),
            input=events.optional(created, "input"),
            tags=dict(created.tags),
            parent=Parent(self.instance.instance_id, self.instance.execution_id, number),
            parent_name=self.instance.name,
            trace_context=trace,
            replaceable=TERMINAL,
        )

    def send_event(self, action: pb.OrchestratorAction) -> None:
        asked = action.sendEvent
        target, data = asked.instance.instanceId, events.optional(asked, "data")
        sent = pb.EventSentEvent(instanceId=target, name=asked.name, input=events.string_value(data))
        self._record("eventSent", sent, action.id)
        self.changes.messages.append(DeliverEvent(target, events.event_raised(self.now, asked.name, data)))

    def terminate(self, action: pb.OrchestratorAction) -> None:
        asked = action.terminateOrchestration
        kind = EventKind.TERMINATE_RECURSIVELY if asked.recurse else EventKind.TERMINATE
        event = events.execution_terminated(self.now, events.optional(asked, "reason"), asked.recurse)
        self.changes.messages.append(DeliverEvent(asked.instanceId, event, kind))

    def send_entity_message(self, action: pb.OrchestratorAction) -> None:
        asked = action.sendEntityMessage
        field = asked.WhichOneof("EntityMessageType")
        if field is None:
            return
        body = getattr(asked, field)
        self._record(field, body, action.id)
        if field == "entityLockRequested":
            self.changes.messages.append(self._lock_request(body))
        elif field == "entityUnlockSent":
            self.changes.messages.append(ReleaseLock(body.targetInstanceId.value, body.criticalSectionId))
        else:
            self.changes.messages.append(self._operation(field, body))

    def _operation(self, field: str, body: Any) -> SendOperation:
        event = events.encode(self.now, field, body.SerializeToString())
        due = events.microseconds(body.scheduledTime) if body.HasField("scheduledTime") else None
        target: str = body.targetInstanceId.value
        return SendOperation(target, event, self.instance.execution_id, due)

    def _lock_request(self, body: pb.EntityLockRequestedEvent) -> RequestLock:
        lock = Lock(body.criticalSectionId, self.instance.instance_id, self.instance.execution_id)
        return RequestLock(lock, tuple(dict.fromkeys(body.lockSet)))


_ACTIONS: Mapping[str, Callable[[_TurnCommit, pb.OrchestratorAction], None]] = {
    "scheduleTask": _TurnCommit.schedule_task,
    "createTimer": _TurnCommit.create_timer,
    "createSubOrchestration": _TurnCommit.create_child,
    "sendEvent": _TurnCommit.send_event,
    "terminateOrchestration": _TurnCommit.terminate,
    "sendEntityMessage": _TurnCommit.send_entity_message,
}


def _is(event: pb.HistoryEvent, field: str) -> bool:
    return bool(event.WhichOneof("eventType") == field)


_ANSWERS = {
    "taskCompleted": "taskScheduledId",
    "taskFailed": "taskScheduledId",
    "timerFired": "timerId",
    "subOrchestrationInstanceCompleted": "taskScheduledId",
    "subOrchestrationInstanceFailed": "taskScheduledId",
    "entityOperationCompleted": "requestId",
    "entityOperationFailed": "requestId",
    "entityLockGranted": "criticalSectionId",
}
"""The events that answer a request, with the field that says which."""

_QUESTIONS = {"entityOperationCalled": "requestId", "entityLockRequested": "criticalSectionId"}
"""The requests that are not answered by the number of their event, with the field that is."""


def unanswered(history: Iterable[pb.HistoryEvent]) -> list[pb.HistoryEvent]:
    """Return the requests in a history that have no answer in it."""
    asked: dict[object, pb.HistoryEvent] = {}
    for event in history:
        field = event.WhichOneof("eventType") or ""
        if field in _ANSWERS:
            asked.pop(getattr(getattr(event, field), _ANSWERS[field]), None)
        elif field in _QUESTIONS:
            asked[getattr(getattr(event, field), _QUESTIONS[field])] = event
        elif event.eventId >= 0:
            asked[event.eventId] = event
    return list(asked.values())


def is_suspended(history: Iterable[pb.HistoryEvent]) -> bool:
    """Return whether a worker that replays a history is suspended in the end."""
    found = False
    for event in history:
        if _is(event, "executionSuspended"):
            found = True
        elif _is(event, "executionResumed"):
            found = False
    return found


def held_locks(history: Iterable[pb.HistoryEvent]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the critical sections that an execution is inside of, by its history, with what they still hold."""
    wanted: dict[str, list[str]] = {}
    granted: set[str] = set()
    for event in history:
        if _is(event, "entityLockRequested"):
            wanted[event.entityLockRequested.criticalSectionId] = list(event.entityLockRequested.lockSet)
        elif _is(event, "entityLockGranted"):
            granted.add(event.entityLockGranted.criticalSectionId)
        elif _is(event, "entityUnlockSent"):
            unlocked = event.entityUnlockSent
            held = wanted.get(unlocked.criticalSectionId, [])
            if unlocked.targetInstanceId.value in held:
                held.remove(unlocked.targetInstanceId.value)
    return [(section, tuple(held)) for section, held in wanted.items() if section in granted and held]
