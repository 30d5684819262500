"""The state machine: what a command makes of an instance or an entity.

Every function here is pure.  It is given the state, the command and the time, and returns what changes; it reads no
clock, no store and no source of randomness, starts no thread and does no I/O.  `Context` carries the time and fresh
ids.  The kernel loads the state, calls one of these functions, and has the store write the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from durabletask_aio.engine import events
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.state import (
    WAKES_SUSPENDED,
    Changes,
    DeliverEvent,
    EndExecution,
    Entity,
    EntityChanges,
    EventKind,
    InboxEvent,
    Instance,
    Lock,
    LockRequest,
    Operation,
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

PENDING = pb.ORCHESTRATION_STATUS_PENDING
RUNNING = pb.ORCHESTRATION_STATUS_RUNNING
SUSPENDED = pb.ORCHESTRATION_STATUS_SUSPENDED
COMPLETED = pb.ORCHESTRATION_STATUS_COMPLETED
FAILED = pb.ORCHESTRATION_STATUS_FAILED
TERMINATED = pb.ORCHESTRATION_STATUS_TERMINATED
CANCELED = pb.ORCHESTRATION_STATUS_CANCELED
CONTINUED_AS_NEW = pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW

TERMINAL = frozenset({COMPLETED, FAILED, TERMINATED, CANCELED})


@dataclass(frozen=True)
class Context:
    """What a transition needs in addition to the state.

    Attributes:
        now: the engine's time, in microseconds since 1970.
        new_id: returns a fresh random id.
    """

    now: int
    new_id: Callable[[], str]


class InstanceExistsError(Exception):
    """An instance of this id exists, and the request does not say that it may be replaced."""


class AlreadyStartedError(Exception):
    """This very start has been accepted before."""


class NotAllowedError(Exception):
    """The instance is in a state in which the command makes no sense."""


# -- starting ------------------------------------------------------------------------------------------------------


def start(existing: Instance | None, message: StartInstance, context: Context) -> Changes:
    """Start an instance, or the next execution of an id that may be used again.

    Args:
        existing: the instance that has the id now.
        message: what to start.
        context: time and ids.

    Returns:
        The changes of the instance.

    Raises:
        InstanceExistsError: if the existing instance may not be replaced.
        AlreadyStartedError: if the client repeats a start, by the execution id that it has chosen.
    """
    if existing is not None and existing.status not in message.replaceable:
        if message.execution_id is not None and message.execution_id == existing.execution_id:
            raise AlreadyStartedError(message.instance_id)
        raise InstanceExistsError(message.instance_id)
    wanted = context.now if message.scheduled_at is None else max(message.scheduled_at, context.now)
    started, ahead = next_start(existing, wanted)
    instance = Instance(
        key=0 if existing is None else existing.key,
        instance_id=message.instance_id,
        execution_id=message.execution_id or context.new_id(),
        turn_id=context.new_id(),
        name=message.name,
        version=message.version,
        status=PENDING,
        created_at=context.now,
        updated_at=context.now,
        started_at=started,
        turn_time=started,
        ahead=ahead,
        scheduled_at=wanted if wanted > context.now else None,
        tags=message.tags,
        parent=message.parent,
    )
    event = events.execution_started(
        started, message.instance_id, message.name, message.version, message.input, dict(message.tags)
    )
    body = event.executionStarted
    if message.trace_context is not None:
        body.parentTraceContext.MergeFromString(message.trace_context)
    if message.scheduled_at is not None:
        body.scheduledStartTimestamp.CopyFrom(events.timestamp(message.scheduled_at))
    if message.parent is not None:
        body.parentInstance.taskScheduledId = message.parent.task_id
        body.parentInstance.name.value = message.parent_name
        body.parentInstance.orchestrationInstance.instanceId = message.parent.instance_id
    changes = Changes(
        instance,
        clear_history=True,
        drop_inbox=True,
        inbox=[InboxEvent(0, event.SerializeToString(), EventKind.START)],
        payloads={"input": message.input, "output": None, "failure": None},
    )
    if existing is not None:
        changes.messages.append(EndExecution(existing.execution_id, drop_tasks=True))
        if existing.status not in TERMINAL:
            details = events.failure("InstanceReplaced", f"sub-orchestration '{existing.instance_id}' was replaced")
            changes.messages += _tell_parent(existing, FAILED, None, details, context)
    if instance.scheduled_at is not None:
        changes.timers.append(
            Timer(instance.scheduled_at, TimerKind.START, instance.instance_id, instance.execution_id)
        )
    return changes


def next_start(before: Instance | None, wanted: int) -> tuple[int, int]:
    """Return when an execution starts in its own time, and by how much that is ahead of the engine's.

    The random values of an execution come from the instance and from when it started, so two executions of an instance
    must not start at the same time, even though a virtual clock may stand still between them.  The later one is moved
    by a microsecond; its timers are due that much earlier, so that the clock itself need not move.
    """
    if before is None or before.started_at < wanted:
        return wanted, 0
    started = before.started_at + 1
    return started, started - wanted


def fire_start(instance: Instance) -> Changes:
    """The scheduled start of an instance is due."""
    return Changes(replace(instance, scheduled_at=None))


# -- events --------------------------------------------------------------------------------------------------------


def deliver(instance: Instance, message: DeliverEvent) -> Changes | None:
    """Give an instance an event.

    Returns:
        The changes, `None` if the event is dropped: the instance has ended, or the event is for another execution.
    """
    if instance.status in TERMINAL:
        return None
    if message.execution_id is not None and message.execution_id != instance.execution_id:
        return None
    if message.kind is EventKind.SUSPEND and instance.status == SUSPENDED:
        return None
    return Changes(instance, inbox=[InboxEvent(0, message.event, message.kind, message.execution_id)])


def is_ready(instance: Instance, inbox: Sequence[InboxEvent]) -> bool:
    """Return whether the instance has a turn to run now."""
    if not inbox or instance.status in TERMINAL:
        return False
    if instance.scheduled_at is None and instance.status != SUSPENDED:
        return True
    wakes = WAKES_SUSPENDED if instance.status == SUSPENDED else WAKES_SUSPENDED - {EventKind.RESUME}
    return any(each.kind in wakes for each in inbox)


def rewind(instance: Instance, reason: str | None, locks: Iterable[Lock], context: Context) -> Changes:
    """Resume a failed instance from before its failure: the next turn rewrites the history.

    Args:
        instance: the instance.
        reason: for the history, `None` without.
        locks: locks that others hold by now, of those that the instance held when it failed.
        context: time and ids.

    Raises:
        NotAllowedError: if the instance has not failed, or others hold what it had locked.
    """
    if instance.status != FAILED:
        raise NotAllowedError(f"Orchestration instance '{instance.instance_id}' is not in a failed state")
    for lock in locks:
        raise NotAllowedError(
            f"Orchestration instance '{instance.instance_id}' cannot be rewound: it failed inside a critical section, "
            f"and an entity of that is locked by instance '{lock.instance_id}' now; rewind it when that has ended"
        )
    rewound = replace(
        instance, status=RUNNING, completed_at=None, turn_id=context.new_id(), updated_at=context.now, rewinding=True
    )
    event = events.execution_rewound(context.now, reason)
    return Changes(
        rewound,
        drop_inbox=True,
        inbox=[InboxEvent(0, event, EventKind.REWIND)],
        payloads={"output": None, "failure": None},
    )


def terminate_now(instance: Instance, output: str | None, context: Context) -> Changes:
    """End an instance without a turn of its code."""
    now = max(context.now + instance.ahead, instance.turn_time)
    recorded = [
        events.execution_terminated(now, output, False),
        pb.HistoryEvent(
            eventId=-1,
            timestamp=events.timestamp(now),
            executionCompleted=pb.ExecutionCompletedEvent(
                orchestrationStatus=TERMINATED, result=events.string_value(output)
            ),
        ).SerializeToString(),
    ]
    changes = Changes(
        replace(
            instance,
            status=TERMINATED,
            turn_id=context.new_id(),
            updated_at=context.now,
            completed_at=context.now,
            scheduled_at=None,
            event_count=instance.event_count + len(recorded),
        ),
        history=b"".join(events.frame(events.PAST_EVENT, each) for each in recorded),
        drop_inbox=True,
        payloads={"output": output},
    )
    changes.messages.append(EndExecution(instance.execution_id))
    changes.messages += _tell_parent(instance, TERMINATED, output, None, context)
    return changes


# -- turns ---------------------------------------------------------------------------------------------------------


def turn_events(instance: Instance, inbox: Sequence[InboxEvent]) -> Sequence[InboxEvent]:
    """Return the part of the inbox that the next turn gets: all of it, but a rewind alone."""
    return inbox[:1] if instance.rewinding else inbox


def turn_time(instance: Instance, inbox: Sequence[InboxEvent], now: int) -> int:
    """Return the time of the turn that gets these events, in the instance's own time."""
    if any(each.kind is EventKind.START for each in inbox):
        return instance.started_at
    return max(now + instance.ahead, instance.turn_time)


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
    outstanding: Callable[[], frozenset[int]],
    context: Context,
) -> Changes:
    """Commit a turn: its events and actions become history, and what the actions ask for happens.

    An action that cannot be carried out fails the instance, as a worker would with an error of its code.

    Args:
        instance: the instance that the turn was of.
        turn: what went in and what came out.
        started: returns the event that started the execution; called for continue-as-new and rewind only.
        outstanding: returns the numbers of the activities that have not been completed; called for a rewind only.
        context: time and ids.

    Returns:
        The changes of the instance.
    """
    try:
        return _TurnCommit(instance, turn, started, outstanding, context).run(turn.response.actions)
    except (ValueError, TypeError, KeyError) as error:
        failed = pb.OrchestratorAction(id=-1)
        failed.completeOrchestration.orchestrationStatus = FAILED
        failed.completeOrchestration.failureDetails.CopyFrom(
            events.failure("InvalidAction", f"the engine cannot carry out what the turn asks for: {error}")
        )
        return _TurnCommit(instance, turn, started, outstanding, context).run([failed])


class _TurnCommit:
    """The changes of one turn in the making."""

    def __init__(
        self,
        instance: Instance,
        turn: Turn,
        started: Callable[[], pb.ExecutionStartedEvent],
        outstanding: Callable[[], frozenset[int]],
        context: Context,
    ) -> None:
        self.instance = instance
        self.turn = turn
        self.started = started
        self.outstanding = outstanding
        self.context = context
        self.now = max(context.now + instance.ahead, turn.time)
        self.stamp = events.timestamp(self.now)
        self.recorded = [events.orchestrator_started(turn.time), *(each.event for each in turn.events if each.event)]
        """The new events of the history, encoded."""
        self.status = self._status_after_events()
        self.changes = Changes(instance, consumed=turn.events[-1].seq if turn.events else 0)

    def _status_after_events(self) -> int:
        status = RUNNING if self.instance.status == PENDING else self.instance.status
        for each in self.turn.events:
            if each.kind is EventKind.SUSPEND:
                status = SUSPENDED
            elif each.kind is EventKind.RESUME:
                status = RUNNING
        return status

    def run(self, actions: Iterable[pb.OrchestratorAction]) -> Changes:
        completion: pb.CompleteOrchestrationAction | None = None
        for action in actions:
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

    # The ways in which a turn can end

    def _go_on(self) -> Changes:
        self._record(orchestratorCompleted=pb.OrchestratorCompletedEvent())
        return self._finish(status=self.status)

    def _end(self, completion: pb.CompleteOrchestrationAction) -> Changes:
        status = completion.orchestrationStatus
        if status not in TERMINAL:
            raise ValueError(f"an instance cannot end as {pb.OrchestrationStatus.Name(status)}")
        output = events.optional(completion, "result")
        details = completion.failureDetails if completion.HasField("failureDetails") else None
        self._record(orchestratorCompleted=pb.OrchestratorCompletedEvent())
        self._record(
            executionCompleted=pb.ExecutionCompletedEvent(
                orchestrationStatus=status, result=events.string_value(output), failureDetails=details
            )
        )
        changes = self.changes
        changes.drop_inbox = True
        changes.payloads["output"] = output
        changes.payloads["failure"] = None if details is None else details.SerializeToString()
        changes.messages.append(EndExecution(self.instance.execution_id))
        changes.messages += _tell_parent(self.instance, status, output, details, self.context)
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
        changes.inbox += [InboxEvent(0, each.SerializeToString()) for each in completion.carryoverEvents]
        changes.inbox += [replace(each, seq=0) for each in self.turn.later if each.execution_id is None]
        changes.payloads = {"input": value, "output": None, "failure": None}
        # What this turn has asked for may still run; what it brings is for an execution that is no more.
        changes.messages.append(EndExecution(instance.execution_id))
        changes.timers.clear()
        changes.instance = replace(
            instance,
            execution_id=context.new_id(),
            turn_id=context.new_id(),
            version=version,
            status=PENDING,
            updated_at=context.now,
            started_at=begun,
            turn_time=begun,
            ahead=ahead,
            custom_status=self._custom_status(),
            tags=tags,
            event_count=0,
        )
        return changes

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
        for event in _unanswered(history):
            self._ask_again(event, reason)
        # An empty event: the turn that follows only replays the new history.
        changes.inbox.append(InboxEvent(0, b""))
        return self._finish(status=RUNNING, rewinding=False, turn_id=self.context.new_id(), event_count=0)

    def _ask_again(self, event: pb.HistoryEvent, reason: str | None) -> None:
        number, changes = event.eventId, self.changes
        if _is(event, "taskScheduled"):
            if number not in self.outstanding():
                body = event.taskScheduled
                changes.tasks.append(self._new_task(number, body))
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
            **changed,
        }
        self.changes.history = history
        self.changes.instance = replace(self.instance, **fields)  # type: ignore[arg-type]
        return self.changes

    def _custom_status(self) -> str | None:
        response = self.turn.response
        if response.HasField("customStatus"):
            return response.customStatus.value or None
        return self.instance.custom_status

    def _record(self, number: int = -1, **body: Any) -> None:
        event = pb.HistoryEvent(eventId=number, timestamp=self.stamp, **body)
        self.recorded.append(event.SerializeToString())

    # Actions

    def schedule_task(self, action: pb.OrchestratorAction) -> None:
        asked = action.scheduleTask
        scheduled = pb.TaskScheduledEvent(name=asked.name, tags=asked.tags)
        for field in ("version", "input", "parentTraceContext"):
            if asked.HasField(field):
                getattr(scheduled, field).CopyFrom(getattr(asked, field))
        self._record(action.id, taskScheduled=scheduled)
        self.changes.tasks.append(self._new_task(action.id, scheduled))

    def _new_task(self, number: int, scheduled: pb.TaskScheduledEvent) -> Task:
        request = pb.ActivityRequest(
            name=scheduled.name,
            taskId=number,
            orchestrationInstance=pb.OrchestrationInstance(instanceId=self.instance.instance_id),
            tags=scheduled.tags,
        )
        for field in ("version", "input", "parentTraceContext"):
            if scheduled.HasField(field):
                getattr(request, field).CopyFrom(getattr(scheduled, field))
        return Task(
            seq=0,
            nonce=self.context.new_id(),
            instance_id=self.instance.instance_id,
            execution_id=self.instance.execution_id,
            task_id=number,
            name=scheduled.name,
            version=events.optional(scheduled, "version"),
            request=request.SerializeToString(),
        )

    def create_timer(self, action: pb.OrchestratorAction) -> None:
        created = pb.TimerCreatedEvent(fireAt=action.createTimer.fireAt)
        self._record(action.id, timerCreated=created)
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
        self._record(action.id, subOrchestrationInstanceCreated=created)
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
        self._record(action.id, eventSent=sent)
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
        self._record(action.id, **{field: body})
        if field == "entityLockRequested":
            self.changes.messages.append(self._lock_request(body))
        elif field == "entityUnlockSent":
            self.changes.messages.append(ReleaseLock(body.targetInstanceId.value, body.criticalSectionId))
        else:
            self.changes.messages.append(self._operation(field, body))

    def _operation(self, field: str, body: Any) -> SendOperation:
        event = pb.HistoryEvent(eventId=-1, timestamp=self.stamp, **{field: body})
        due = events.microseconds(body.scheduledTime) if body.HasField("scheduledTime") else None
        target: str = body.targetInstanceId.value
        return SendOperation(target, event.SerializeToString(), self.instance.execution_id, due)

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


def _unanswered(history: Iterable[pb.HistoryEvent]) -> list[pb.HistoryEvent]:
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


def _tell_parent(
    instance: Instance,
    status: int,
    output: str | None,
    details: pb.TaskFailureDetails | None,
    context: Context,
) -> list[DeliverEvent]:
    """Return the message with which a child tells its parent how it has ended, if it has one."""
    parent = instance.parent
    if parent is None:
        return []
    if status == COMPLETED:
        event = events.child_completed(context.now, parent.task_id, output)
    else:
        if details is None:
            ended = pb.OrchestrationStatus.Name(status).removeprefix("ORCHESTRATION_STATUS_").lower()
            details = events.failure(
                f"SubOrchestration{ended.capitalize()}", f"sub-orchestration '{instance.instance_id}' was {ended}"
            )
        event = events.child_failed(context.now, parent.task_id, details)
    return [DeliverEvent(parent.instance_id, event, execution_id=parent.execution_id)]


def report_again(instance: Instance, output: str | None, failure: bytes | None, context: Context) -> list[DeliverEvent]:
    """Return what an instance that has ended told its parent."""
    details = None if failure is None else pb.TaskFailureDetails.FromString(failure)
    return _tell_parent(instance, instance.status, output, details, context)


def refuse_child(message: StartInstance, context: Context) -> list[DeliverEvent]:
    """Return what a parent is told whose child cannot be started, since the id is taken."""
    assert message.parent is not None
    details = events.failure("InstanceExists", f"Orchestration instance '{message.instance_id}' already exists")
    event = events.child_failed(context.now, message.parent.task_id, details)
    return [DeliverEvent(message.parent.instance_id, event, execution_id=message.parent.execution_id)]


def activity_outcome(task: Task, response: pb.ActivityResponse, context: Context) -> DeliverEvent:
    """Return the message that brings the outcome of an activity to the execution that called it."""
    event = events.activity_outcome(context.now, response)
    return DeliverEvent(task.instance_id, event, execution_id=task.execution_id)


# -- entities ------------------------------------------------------------------------------------------------------


def new_entity(entity_id: str, context: Context) -> Entity:
    """Return an entity that nothing has happened to yet."""
    return Entity(entity_id, context.new_id(), None, context.now, stored=False)


def batch(entity: Entity, operations: Sequence[Operation]) -> Sequence[Operation]:
    """Return the operations that may be executed now: all, or those of the execution that holds the lock."""
    if entity.lock is None:
        return operations
    return [each for each in operations if each.execution_id == entity.lock.execution_id]


def complete_batch(
    entity: Entity, operations: Sequence[Operation], result: pb.EntityBatchResult, context: Context
) -> EntityChanges:
    """Commit a batch: the entity's new state, the answers to its callers, and what its operations have asked for.

    Args:
        entity: the entity.
        operations: what the worker was given, in this order.
        result: what it answered.  An answer that has no results fails all operations; one with fewer results than
            operations leaves the others for the next batch.
        context: time and ids.
    """
    answered = operations
    if not result.HasField("failureDetails") and 0 < len(result.results) < len(operations):
        answered = operations[: len(result.results)]
    changed = replace(
        entity, revision=context.new_id(), state=events.optional(result, "entityState"), modified_at=context.now
    )
    if result.HasField("failureDetails"):
        changed = replace(changed, state=entity.state)
    changes = EntityChanges(changed, [each.seq for each in answered])
    for number, operation in enumerate(answered):
        request = pb.HistoryEvent.FromString(operation.event)
        if _is(request, "entityOperationCalled"):
            answer = result.results[number] if number < len(result.results) else None
            changes.messages.append(_answer(request.entityOperationCalled, answer, result, operation, context))
    for action in result.actions:
        if action.HasField("sendSignal"):
            sent = action.sendSignal
            event = events.signal(
                context.now,
                sent.instanceId,
                sent.name,
                context.new_id(),
                sent.input if sent.HasField("input") else None,
            )
            due = events.microseconds(sent.scheduledTime) if sent.HasField("scheduledTime") else None
            changes.messages.append(SendOperation(sent.instanceId, event, due=due))
        elif action.HasField("startNewOrchestration"):
            begun = action.startNewOrchestration
            changes.messages.append(
                StartInstance(
                    begun.instanceId or context.new_id(),
                    begun.name,
                    version=events.optional(begun, "version"),
                    input=events.optional(begun, "input"),
                    trace_context=begun.parentTraceContext.SerializeToString()
                    if begun.HasField("parentTraceContext")
                    else None,
                    scheduled_at=events.microseconds(begun.scheduledTime) if begun.HasField("scheduledTime") else None,
                    replaceable=TERMINAL,
                )
            )
    return changes


def _answer(
    call: pb.EntityOperationCalledEvent,
    answer: pb.OperationResult | None,
    result: pb.EntityBatchResult,
    operation: Operation,
    context: Context,
) -> DeliverEvent:
    event = pb.HistoryEvent(eventId=-1, timestamp=events.timestamp(context.now))
    if answer is not None and answer.HasField("success"):
        event.entityOperationCompleted.requestId = call.requestId
        if answer.success.HasField("result"):
            event.entityOperationCompleted.output.CopyFrom(answer.success.result)
    else:
        event.entityOperationFailed.requestId = call.requestId
        if answer is not None and answer.HasField("failure"):
            details = answer.failure.failureDetails
        elif result.HasField("failureDetails"):
            details = result.failureDetails
        else:
            details = events.failure("NoResult", f"the worker has sent no result of operation '{call.operation}'")
        event.entityOperationFailed.failureDetails.CopyFrom(details)
    return DeliverEvent(call.parentInstanceId.value, event.SerializeToString(), execution_id=operation.execution_id)


def grantable(
    requests: Sequence[LockRequest],
    entity: Callable[[str], Entity | None],
    first_operation: Callable[[str], int | None],
) -> list[LockRequest]:
    """Return the lock requests that can be granted now, first come, first served.

    A critical section gets all its entities at once.  It gets them when none of them is locked, no earlier request
    wants one, and what was sent to them before the request has been executed.

    Args:
        requests: all that wait, in the order of arrival.
        entity: returns an entity, `None` if nothing has ever happened to it.
        first_operation: returns the number of the first operation that an entity has not executed.
    """
    granted: list[LockRequest] = []
    taken: set[str] = set()
    for request in requests:
        if all(_is_free(each, request, taken, entity, first_operation) for each in request.entity_ids):
            granted.append(request)
        taken.update(request.entity_ids)
    return granted


def _is_free(
    entity_id: str,
    request: LockRequest,
    taken: set[str],
    entity: Callable[[str], Entity | None],
    first_operation: Callable[[str], int | None],
) -> bool:
    if entity_id in taken:
        return False
    found = entity(entity_id)
    if found is not None and found.lock is not None:
        return False
    first = first_operation(entity_id)
    return first is None or first > request.seq


def grant(entity: Entity, lock: Lock, context: Context) -> Entity:
    """Return the entity with its new holder; a batch that is being executed does not count any more."""
    return replace(entity, lock=lock, revision=context.new_id())


def grant_message(lock: Lock, context: Context) -> DeliverEvent:
    """Return the message that a critical section has all its entities."""
    event = events.lock_granted(context.now, lock.critical_section_id)
    return DeliverEvent(lock.instance_id, event, execution_id=lock.execution_id)


def release(entity: Entity) -> Entity:
    """Return the entity without its holder."""
    return replace(entity, lock=None)
