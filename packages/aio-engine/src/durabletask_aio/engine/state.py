"""The engine's state as plain data: what a store keeps, and what `transitions` computes with.

Times are integers: microseconds since 1970, UTC.  Events are the bytes of upstream's `HistoryEvent`, so that an event
is written once and never parsed on its way to a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

NO_TAGS: Mapping[str, str] = MappingProxyType({})


def _empty_list() -> list[Any]:
    # Not `list[X]` where it is used: calling that takes ten times as long as calling `list`.
    return []


def _empty_dict() -> dict[str, Any]:
    return {}


class Parent(NamedTuple):
    """The call of a parent that an instance is the child of.

    Attributes:
        instance_id: the parent.
        execution_id: its execution; the child's outcome is for no other one.  Files of engine 0.1 may have an empty
            one for a child that has been rewound by itself.
        task_id: the number of the parent's action.
        has_outcome: whether the child has been rewound by itself: its parent has had its outcome already.
    """

    instance_id: str
    execution_id: str
    task_id: int
    has_outcome: bool = False


class Instance(NamedTuple):
    """One instance, without its history, its inbox and its payloads.

    Attributes:
        key: its row in the store; 0 until the store has given one.
        instance_id: the id that users know.
        execution_id: random, of this execution: continue-as-new, a restart and a new start of the id change it.
        turn_id: random, of the last commit that changed the history or the execution.  The answer of a turn counts only
            if it is the answer to the turn after this one.
        name: the orchestrator.
        version: its version, `None` without.
        status: upstream's `OrchestrationStatus`.
        created_at: when the instance was created.
        updated_at: when a turn of it was last committed.
        started_at: when this execution started, in the instance's own time.
        turn_time: the time of the last turn, in its own time; it never goes back.
        ahead: by how much its own time is ahead of the engine's, see `transitions.next_start`.
        scheduled_at: when its start is due, while that lies in the future.
        completed_at: when it ended.
        custom_status: as the workflow set it, encoded.
        tags: of the latest execution.
        parent: `None` for an instance that a client started.
        event_count: the number of events in its history.
        rewinding: whether the next turn is the one that rewrites the history.
    """

    key: int
    instance_id: str
    execution_id: str
    turn_id: str
    name: str
    version: str | None
    status: int
    created_at: int
    updated_at: int
    started_at: int
    turn_time: int = 0
    ahead: int = 0
    scheduled_at: int | None = None
    completed_at: int | None = None
    custom_status: str | None = None
    tags: Mapping[str, str] = NO_TAGS
    parent: Parent | None = None
    event_count: int = 0
    rewinding: bool = False


class EventKind(Enum):
    """What an event in an inbox does to the instance, beyond being delivered."""

    OTHER = 0
    SUSPEND = 1
    RESUME = 2
    TERMINATE = 3
    TERMINATE_RECURSIVELY = 4
    REWIND = 5
    START = 6


TERMINATES = frozenset({EventKind.TERMINATE, EventKind.TERMINATE_RECURSIVELY})

WAKES_SUSPENDED = TERMINATES | {EventKind.RESUME, EventKind.REWIND}


class InboxEvent(NamedTuple):
    """An event that waits for the instance's next turn.

    Attributes:
        seq: its place in the order of arrival, unique in the store; 0 until the store has given one.
        event: the encoded `HistoryEvent`.
        kind: what it does to the instance.
        execution_id: the execution that it is for, such as the result of an activity; `None` for what the instance
            receives whatever its execution, such as an event that a client raised.
    """

    seq: int
    event: bytes
    kind: EventKind = EventKind.OTHER
    execution_id: str | None = None


class Task(NamedTuple):
    """An activity that has not been completed.

    Attributes:
        seq: its place in the queue; 0 until the store has given one.
        nonce: random; a result counts if it names the nonce of a task that is still there.
        instance_id: the instance that called it.
        execution_id: the execution that called it.
        task_id: the number of the action.
        name: the activity.
        version: of the call, `None` without.
        request: the encoded `ActivityRequest`.
    """

    seq: int
    nonce: str
    instance_id: str
    execution_id: str
    task_id: int
    name: str
    version: str | None
    request: bytes


class TimerKind(Enum):
    """What happens when a timer is due."""

    TIMER = 0
    """A timer of a workflow: the event is delivered to the execution that created it."""
    START = 1
    """The scheduled start of an instance."""
    SIGNAL = 2
    """A delayed signal: the event becomes an operation of the entity."""


class Timer(NamedTuple):
    """Something that is due later.

    Attributes:
        due: when, in the engine's time.
        kind: what happens then.
        target: the id of an instance or an entity.
        execution_id: the execution it belongs to; empty for signals.
        event: the encoded `HistoryEvent` that is delivered; empty for starts.
        seq: its row in the store; 0 until the store has given one.
    """

    due: int
    kind: TimerKind
    target: str
    execution_id: str = ""
    event: bytes = b""
    seq: int = 0


class Lock(NamedTuple):
    """Who holds an entity: the critical section of an execution."""

    critical_section_id: str
    instance_id: str
    execution_id: str


class Entity(NamedTuple):
    """An entity, without its pending operations.

    Attributes:
        entity_id: `@name@key`, in lower case as clients and workers send it.
        revision: random, of the last committed batch; the answer to a batch counts only if it is still this one.
        state: encoded, `None` for none.
        modified_at: when a batch of it was last committed, or when it was created.
        lock: its holder, `None` if it is not locked.
        stored: whether the store has a row for it.
    """

    entity_id: str
    revision: str
    state: str | None
    modified_at: int
    lock: Lock | None = None
    stored: bool = True


class Operation(NamedTuple):
    """An operation that an entity has not executed.

    Attributes:
        seq: its place in the order of arrival; 0 until the store has given one.
        event: the encoded `HistoryEvent`: a call or a signal.
        execution_id: the execution that sent it, `None` for a client, an entity, or a signal that was delayed.
    """

    seq: int
    event: bytes
    execution_id: str | None = None


class LockRequest(NamedTuple):
    """A critical section that waits for its entities.

    Attributes:
        seq: its place in the order of arrival, in one sequence with operations; 0 until the store has given one.
        lock: who asks.
        entity_ids: the entities it wants, all or none.
    """

    seq: int
    lock: Lock
    entity_ids: tuple[str, ...]


# Messages: what a change of one instance or entity has to say to others


class DeliverEvent(NamedTuple):
    """Put an event into the inbox of an instance, if there is one that has not ended.

    Attributes:
        instance_id: the instance.
        event: the encoded `HistoryEvent`.
        kind: what the event does to it.
        execution_id: if given, only that execution gets the event.
    """

    instance_id: str
    event: bytes
    kind: EventKind = EventKind.OTHER
    execution_id: str | None = None


class StartInstance(NamedTuple):
    """Start an instance.

    Attributes:
        instance_id: its id.
        name: the orchestrator.
        version: its version, `None` without.
        input: encoded, `None` without.
        tags: of the instance.
        parent: the call of the parent that waits for it, `None` if there is none.
        parent_name: the orchestrator of that parent.
        trace_context: an encoded `TraceContext`, `None` without.
        scheduled_at: when to start, `None` for now.
        execution_id: given by the client, `None` otherwise.
        replaceable: the statuses of an existing instance that it replaces.
    """

    instance_id: str
    name: str
    version: str | None = None
    input: str | None = None
    tags: Mapping[str, str] = NO_TAGS
    parent: Parent | None = None
    parent_name: str = ""
    trace_context: bytes | None = None
    scheduled_at: int | None = None
    execution_id: str | None = None
    replaceable: frozenset[int] = frozenset()


class SendOperation(NamedTuple):
    """Give an entity an operation, now or when it is due."""

    entity_id: str
    event: bytes
    execution_id: str | None = None
    due: int | None = None


class RequestLock(NamedTuple):
    """Ask for the entities of a critical section."""

    lock: Lock
    entity_ids: tuple[str, ...]


class ReleaseLock(NamedTuple):
    """Give one entity of a critical section back."""

    entity_id: str
    critical_section_id: str


class EndExecution(NamedTuple):
    """An execution is over: its locks are free, its lock requests and its timers are gone.

    Attributes:
        execution_id: the execution.
        drop_tasks: whether the activities that it has called and that have not run are gone, too.
    """

    execution_id: str
    drop_tasks: bool = False


class RewindInstance(NamedTuple):
    """Continue with a child of a rewound parent.

    A child that has failed is rewound, one that has been purged is started again, and one that has ended otherwise
    reports its outcome once more.
    """

    instance_id: str
    reason: str | None
    start: StartInstance


class TerminateChildren(NamedTuple):
    """Terminate every instance that this one is the parent of, in whatever execution it started them."""

    instance_id: str
    output: str | None


Message = (
    DeliverEvent
    | StartInstance
    | SendOperation
    | RequestLock
    | ReleaseLock
    | EndExecution
    | RewindInstance
    | TerminateChildren
)


@dataclass
class EntityChanges:
    """What the answer to a batch changes of one entity, and what it has to say to others.

    Attributes:
        entity: the entity as it is from now on.
        consumed: the operations that have been executed, by their numbers.
        messages: what others have to be told, in this order.
    """

    entity: Entity
    consumed: list[int]
    messages: list[Message] = field(default_factory=_empty_list)


@dataclass
class Changes:
    """What one command changes of one instance, and what it has to say to others.

    A store writes the whole of it in one transaction.

    Attributes:
        instance: the instance as it is from now on.
        clear_history: whether the history so far is replaced and not continued.
        history: encoded events to append to the history, each as a field of `OrchestratorRequest.pastEvents`.
        consumed: inbox rows up to this number are gone.
        drop_execution: inbox rows for this execution are gone, too.
        drop_inbox: the whole inbox is gone.
        inbox: events to append to the inbox, in this order.
        tasks: activities to run.
        timers: timers to keep.
        payloads: input, output and failure that change, by name; `None` removes one.
        messages: what others have to be told, in this order.
    """

    instance: Instance
    clear_history: bool = False
    history: bytes = b""
    consumed: int = 0
    drop_execution: str | None = None
    drop_inbox: bool = False
    inbox: list[InboxEvent] = field(default_factory=_empty_list)
    tasks: list[Task] = field(default_factory=_empty_list)
    timers: list[Timer] = field(default_factory=_empty_list)
    payloads: dict[str, str | bytes | None] = field(default_factory=_empty_dict)
    messages: list[Message] = field(default_factory=_empty_list)
