"""The state machine: what a command makes of an instance or an entity.

Every function here is pure.  It is given the state, the command and the time, and returns what changes; it reads no
clock, no store and no source of randomness, starts no thread and does no I/O.  `Context` carries the time and fresh
ids.  The kernel loads the state, calls one of these functions, and has the store write the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from durabletask_aio.engine import events
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.state import (
    WAKES_SUSPENDED,
    Changes,
    DeliverEvent,
    EndExecution,
    EventKind,
    InboxEvent,
    Instance,
    Lock,
    Parent,
    StartInstance,
    Task,
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

TERMINATES = frozenset({EventKind.TERMINATE, EventKind.TERMINATE_RECURSIVELY})


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

    def __init__(self, instance_id: str) -> None:
        super().__init__(f"Orchestration instance '{instance_id}' already exists")


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
    if existing is not None:
        if message.execution_id is not None and message.execution_id == existing.execution_id:
            raise AlreadyStartedError(message.instance_id)
        if existing.status not in message.replaceable:
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
            changes.messages += tell_parent(existing, FAILED, None, details, context)
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
    return Changes(instance._replace(scheduled_at=None))


# -- events --------------------------------------------------------------------------------------------------------


def deliver(instance: Instance, message: DeliverEvent, inbox: Sequence[InboxEvent]) -> Changes | None:
    """Give an instance an event.

    Args:
        instance: the instance.
        message: the event.
        inbox: what waits for its next turn.

    Returns:
        The changes, `None` if the event is dropped: the instance has ended, or the event is for another execution.
    """
    if instance.status in TERMINAL:
        return None
    if message.execution_id is not None and message.execution_id != instance.execution_id:
        return None
    if message.kind is EventKind.SUSPEND and will_be_suspended(instance.status, inbox):
        return None  # a worker that gets a second one needs a second one to resume
    return Changes(instance, inbox=[InboxEvent(0, message.event, message.kind, message.execution_id)])


def will_be_suspended(status: int, inbox: Iterable[InboxEvent]) -> bool:
    """Return whether an instance is suspended once it has had these events."""
    is_suspended = status == SUSPENDED
    for each in inbox:
        if each.kind is EventKind.SUSPEND:
            is_suspended = True
        elif each.kind is EventKind.RESUME:
            is_suspended = False
    return is_suspended


def is_ready(instance: Instance, inbox: Sequence[InboxEvent]) -> bool:
    """Return whether the instance has a turn to run now."""
    if not inbox or instance.status in TERMINAL:
        return False
    if instance.scheduled_at is None and instance.status != SUSPENDED:
        return True
    wakes = WAKES_SUSPENDED if instance.status == SUSPENDED else WAKES_SUSPENDED - {EventKind.RESUME}
    return any(each.kind in wakes for each in inbox)


def rewind(
    instance: Instance, reason: str | None, locks: Iterable[Lock], context: Context, *, was_suspended: bool
) -> Changes:
    """Resume a failed instance from before its failure: the next turn rewrites the history.

    Args:
        instance: the instance.
        reason: for the history, `None` without.
        locks: locks that others hold by now, of those that the instance held when it failed.
        was_suspended: whether its history suspends it; then it is suspended again, as a worker that replays that finds.
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
    rewound = instance._replace(
        status=SUSPENDED if was_suspended else RUNNING,
        completed_at=None,
        turn_id=context.new_id(),
        updated_at=context.now,
        rewinding=True,
    )
    event = events.execution_rewound(context.now, reason)
    return Changes(
        rewound,
        drop_inbox=True,
        inbox=[InboxEvent(0, event, EventKind.REWIND)],
        payloads={"output": None, "failure": None},
    )


def set_aside(instance: Instance, inbox: Sequence[InboxEvent], reason: str, context: Context) -> Changes:
    """Suspend an instance without a turn of its code; its history says why.

    Suspensions and resumptions that wait in its inbox are dropped: it is suspended until a client resumes it again.
    """
    now = max(context.now + instance.ahead, instance.turn_time)
    event = events.execution_suspended(now, events.json_text(reason))
    return Changes(
        instance._replace(
            status=SUSPENDED, turn_id=context.new_id(), updated_at=context.now, event_count=instance.event_count + 1
        ),
        history=events.frame(events.PAST_EVENT, event),
        drop_inbox=True,
        inbox=[each._replace(seq=0) for each in inbox if each.kind not in (EventKind.SUSPEND, EventKind.RESUME)],
    )


def terminate_now(
    instance: Instance, output: str | None, context: Context, inbox: Sequence[InboxEvent] = ()
) -> Changes:
    """End an instance without a turn of its code; its history says how it was started, even if it never ran."""
    now = max(context.now + instance.ahead, instance.turn_time)
    recorded = [
        *(each.event for each in inbox if each.kind is EventKind.START),
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
        instance._replace(
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
    changes.messages += tell_parent(instance, TERMINATED, output, None, context)
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


# -- what others are told ------------------------------------------------------------------------------------------


def tell_parent(
    instance: Instance,
    status: int,
    output: str | None,
    details: pb.TaskFailureDetails | None,
    context: Context,
) -> list[DeliverEvent]:
    """Return the message with which a child tells its parent how it has ended, if it has one."""
    parent = instance.parent
    if parent is None or parent.has_outcome:
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


def is_child_of(instance: Instance, parent: Parent | None) -> bool:
    """Return whether an instance was started by a call of a parent; it may have been rewound by itself since."""
    child_of = instance.parent
    if child_of is None or parent is None:
        return False
    return child_of._replace(execution_id=child_of.execution_id or parent.execution_id, has_outcome=False) == parent


def report_again(instance: Instance, output: str | None, failure: bytes | None, context: Context) -> list[DeliverEvent]:
    """Return what an instance that has ended told its parent."""
    details = None if failure is None else pb.TaskFailureDetails.FromString(failure)
    return tell_parent(instance, instance.status, output, details, context)


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
