"""Commands: each loads what it is about, lets `transitions` compute, and writes the result, in one transaction.

A command changes one instance or entity; what that has to say to others is delivered to them within the same
transaction.  A store that several engines share would deliver them in transactions of their own.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from durabletask_aio.engine import entity_transitions, events, forking, transitions, turns
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.forking import Cut
from durabletask_aio.engine.state import (
    Changes,
    DeliverEvent,
    EndExecution,
    Entity,
    EventKind,
    InboxEvent,
    Instance,
    Lock,
    LockRequest,
    Message,
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
from durabletask_aio.engine.store import InstanceFilter, Store, all_instances
from durabletask_aio.engine.tokens import BatchToken, TaskToken, TurnToken
from durabletask_aio.engine.transitions import TERMINAL, Context

_logger = logging.getLogger("durabletask.aio.engine")


class InstanceNotFoundError(Exception):
    """There is no such instance."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(f"Orchestration instance '{instance_id}' not found")


class Recorded(NamedTuple):
    """What the answer of a turn has added to the history, beyond the events that the turn was given."""

    instance: Instance
    rest: bytes


class Transaction:
    """One command at work on a store.

    Attributes:
        touched: the instances that have changed, by id; `None` for one that has been deleted.
        new_tasks: activities to queue once this is committed.
        dropped_tasks: activities that are done.
        dropped_executions: executions whose activities are not to be run any more.
        entities: entities that may have something to do.
        has_written: whether the store has been changed; a command that raises before that leaves nothing to undo.
        finished: the lease that the command is the answer to.
        recorded: what the command has added to a history, if it is the answer of a turn that continues.
    """

    def __init__(self, store: Store, context: Context) -> None:
        self.store = store
        self.context = context
        self.touched: dict[str, Instance | None] = {}
        self.new_tasks: list[Task] = []
        self.dropped_tasks: list[Task] = []
        self.dropped_executions: list[str] = []
        self.entities: dict[str, None] = {}
        self.has_written = False
        self.finished: str | None = None
        self.recorded: Recorded | None = None
        self._messages: deque[Message] = deque()
        self._locks_changed = False

    # -- instances -------------------------------------------------------------------------------------------------

    def start_instance(self, message: StartInstance) -> str:
        """Start an instance; returns its id."""
        try:
            self._apply(transitions.start(self.store.instance(message.instance_id), message, self.context))
        except transitions.AlreadyStartedError:
            return message.instance_id
        return message.instance_id

    def restart_instance(self, instance_id: str, new_id: str | None) -> str:
        """Run an instance that has ended once more, from its first input; returns the id."""
        instance = self._existing(instance_id)
        if instance.status not in TERMINAL:
            raise transitions.NotAllowedError(f"Orchestration instance '{instance_id}' is not in a terminal state")
        value = self.store.payloads(instance).get("input")
        assert value is None or isinstance(value, str)
        return self.start_instance(
            StartInstance(
                new_id or instance_id, instance.name, instance.version, value, instance.tags, replaceable=TERMINAL
            )
        )

    def raise_event(self, instance_id: str, name: str, data: str | None) -> None:
        """Give an instance an external event."""
        self._existing(instance_id)
        self._send(DeliverEvent(instance_id, events.event_raised(self.context.now, name, data)))

    def suspend(self, instance_id: str, reason: str | None) -> None:
        """Let an instance get no events until it is resumed."""
        self._existing(instance_id)
        event = events.execution_suspended(self.context.now, reason)
        self._send(DeliverEvent(instance_id, event, EventKind.SUSPEND))

    def resume(self, instance_id: str, reason: str | None) -> None:
        """Give a suspended instance what has arrived meanwhile."""
        self._existing(instance_id)
        event = events.execution_resumed(self.context.now, reason)
        self._send(DeliverEvent(instance_id, event, EventKind.RESUME))

    def terminate(self, instance_id: str, output: str | None, recurse: bool) -> None:
        """End an instance; with `recurse`, its children too."""
        kind = EventKind.TERMINATE_RECURSIVELY if recurse else EventKind.TERMINATE
        self._send(DeliverEvent(instance_id, events.execution_terminated(self.context.now, output, recurse), kind))

    def terminate_now(self, instance_id: str, reason: str | None) -> bool:
        """End an instance without asking its code; returns whether there was one to end."""
        instance = self.store.instance(instance_id)
        if instance is None or instance.status in TERMINAL:
            return False
        self._apply(transitions.terminate_now(instance, reason, self.context, self.store.inbox(instance)))
        return True

    def set_aside(self, instance_id: str, reason: str) -> bool:
        """Suspend an instance without asking its code; returns whether there was one to suspend."""
        instance = self.store.instance(instance_id)
        if instance is None or instance.status in TERMINAL:
            return False
        self._apply(transitions.set_aside(instance, self.store.inbox(instance), reason, self.context))
        return True

    def rewind_instance(self, instance_id: str, reason: str | None) -> None:
        """Resume a failed instance from before its failure; its parent has had the failure, and hears no more of it."""
        instance = self._existing(instance_id)
        if instance.parent is not None:
            instance = instance._replace(parent=instance.parent._replace(has_outcome=True))
        self._rewind(instance, reason)

    def _rewind(self, instance: Instance, reason: str | None) -> None:
        history = events.past_events(self.store.history(instance))
        held = turns.held_locks(history)
        entities = [(section, self._entity(each)) for section, ids in held for each in ids]
        others = [each.lock for _, each in entities if each.lock is not None]
        changes = transitions.rewind(instance, reason, others, self.context, was_suspended=turns.is_suspended(history))
        self._apply(changes)
        for section, entity in entities:
            lock = Lock(section, instance.instance_id, instance.execution_id)
            self.store.put_entity(entity_transitions.grant(entity, lock, self.context))

    def fork(self, instance_id: str, new_id: str, cut: Callable[[Instance, Sequence[pb.HistoryEvent]], Cut]) -> None:
        """Start a new instance from the beginning of another one's history.

        Args:
            instance_id: the other instance.
            new_id: the id of the new one.
            cut: returns the part of the history that it begins with.
        """
        source = self._existing(instance_id)
        if self.store.instance(new_id) is not None:
            raise transitions.InstanceExistsError(new_id)
        history = events.past_events(self.store.history(source))
        changes = forking.fork(source, new_id, cut(source, history), self.context)
        changes.payloads = {"input": self.store.payloads(source).get("input")}
        self._apply(changes)

    def set_retention(self, age: int | None) -> None:
        """Say for how many seconds instances stay that have ended; `None` for no limit."""
        self.has_written = True
        self.store.set_meta("retention", age)

    def purge_ended(self, age: int, statuses: frozenset[int], limit: int) -> int:
        """Delete root instances that ended longer ago than an age, with their children.

        Args:
            age: microseconds.
            statuses: of these only; all that have ended if empty.
            limit: at most that many roots.

        Returns:
            How many instances are gone.
        """
        wanted = InstanceFilter(statuses=statuses, completed_to=self.context.now - age, only_roots=True)
        return sum(self.purge(each.instance_id, recursive=True) for each in self.store.completed(wanted, limit))

    def purge(self, instance_id: str, *, recursive: bool) -> int:
        """Delete an instance that has ended; with `recursive`, its children first.

        Returns:
            The number of instances that are gone.  What runs, and children of what runs, stay.
        """
        found: dict[str, Instance] = {}
        pending = [instance_id]
        while pending:
            instance = self.store.instance(pending.pop())
            # An id that is used again may be a descendant of itself.
            if instance is None or instance.status not in TERMINAL or instance.instance_id in found:
                continue
            found[instance.instance_id] = instance
            if recursive:
                pending += [child.instance_id for child in self.store.children(instance.instance_id)]
        for instance in reversed(found.values()):
            self.has_written = True
            self.end_execution(EndExecution(instance.execution_id, drop_tasks=True))
            self.store.delete(instance)
            self.touched[instance.instance_id] = None
        return len(found)

    def clear(self) -> None:
        """Forget every instance, entity and timer."""
        for instance in all_instances(self.store):
            self.touched[instance.instance_id] = None
            self.dropped_executions.append(instance.execution_id)
        self.has_written = True
        self.store.clear()

    def _existing(self, instance_id: str) -> Instance:
        instance = self.store.instance(instance_id)
        if instance is None:
            raise InstanceNotFoundError(instance_id)
        return instance

    # -- what workers answer ---------------------------------------------------------------------------------------

    def complete_turn(self, token: TurnToken, response: pb.OrchestratorResponse) -> bool:
        """Commit a turn; returns whether it counted."""
        instance = self.store.instance(token.instance_id)
        if instance is None or instance.turn_id != token.turn_id:
            return False
        inbox = self.store.inbox(instance)
        given = [each for each in inbox if each.seq <= token.upto]
        if len(given) != token.row_count:
            return False
        if instance.scheduled_at is not None and not transitions.is_ready(instance, given):
            # A power cut has undone that its start was due, after this turn had been dispatched.
            return False
        turn = turns.Turn(given, inbox[len(given) :], token.time, response)
        changes = turns.complete_turn(
            instance,
            turn,
            lambda: self._started(instance, given),
            lambda event: self._is_outstanding(instance, event),
            self.context,
        )
        self._apply(changes)
        if not changes.clear_history and changes.instance.status not in TERMINAL:
            count = 1 + sum(1 for each in given if each.event)
            self.recorded = Recorded(changes.instance, events.without_first(changes.history, count))
        return True

    def _is_outstanding(self, instance: Instance, event: pb.HistoryEvent) -> bool:
        if event.HasField("taskScheduled"):
            return any(each.task_id == event.eventId for each in self.store.tasks(instance.execution_id))
        if event.HasField("entityOperationCalled"):
            call = event.entityOperationCalled
            return any(
                each.execution_id == instance.execution_id
                and pb.HistoryEvent.FromString(each.event).entityOperationCalled.requestId == call.requestId
                for each in self.store.operations(call.targetInstanceId.value)
            )
        return False

    def _started(self, instance: Instance, given: Sequence[InboxEvent]) -> pb.ExecutionStartedEvent:
        for each in given:
            if each.kind is EventKind.START:
                return pb.HistoryEvent.FromString(each.event).executionStarted
        for chunk in self.store.history(instance):
            for event in events.past_events([chunk]):
                if event.HasField("executionStarted"):
                    return event.executionStarted
        return pb.ExecutionStartedEvent()

    def complete_activity(self, token: TaskToken, response: pb.ActivityResponse) -> bool:
        """Take the outcome of an activity; returns whether it counted."""
        task = self.store.task(token.seq)
        if task is None or task.nonce != token.nonce:
            return False
        self.has_written = True
        self.store.drop_task(task)
        self.dropped_tasks.append(task)
        self._send(transitions.activity_outcome(task, response, self.context))
        return True

    def keep_leases(self, leases: Sequence[tuple[Task, str, str]], dropped: Sequence[Task]) -> None:
        """Keep which workers have had activities for a while, for the engine's next start.

        Args:
            leases: activities, each with the id of its lease and the worker's name.
            dropped: activities that a worker has no more.
        """
        self.has_written = True
        for task in dropped:
            self.store.drop_lease(task)
        for task, lease_id, worker_id in leases:
            self.store.keep_lease(task, lease_id, worker_id)

    def complete_batch(self, token: BatchToken, result: pb.EntityBatchResult) -> bool:
        """Commit a batch of an entity; returns whether it counted."""
        entity = self.store.entity(token.entity_id)
        if entity is None or entity.revision != token.revision:
            return False
        holder = "" if entity.lock is None else entity.lock.execution_id
        given = [
            each
            for each in entity_transitions.batch(entity, self.store.operations(token.entity_id))
            if each.seq <= token.upto
        ]
        if holder != token.holder or len(given) != token.row_count:
            return False
        changes = entity_transitions.complete_batch(entity, given, result, self.context)
        self.has_written = True
        self.store.put_entity(changes.entity)
        self.store.drop_operations(token.entity_id, changes.consumed)
        self.entities[token.entity_id] = None
        self._locks_changed = True
        self._messages.extend(changes.messages)
        self._deliver()
        return True

    # -- time ------------------------------------------------------------------------------------------------------

    def fire_timers(self, limit: int) -> int:
        """Let what is due happen; returns how many timers that were."""
        due = self.store.due_timers(self.context.now, limit)
        for timer in due:
            self.has_written = True
            self.store.drop_timer(timer)
            self._fire(timer)
        self._deliver()
        return len(due)

    def _fire(self, timer: Timer) -> None:
        if timer.kind is TimerKind.TIMER:
            self._messages.append(DeliverEvent(timer.target, timer.event, execution_id=timer.execution_id))
        elif timer.kind is TimerKind.SIGNAL:
            self._messages.append(SendOperation(timer.target, timer.event))
        else:
            instance = self.store.instance(timer.target)
            if instance is not None and instance.execution_id == timer.execution_id:
                self._write(transitions.fire_start(instance))

    # -- entities --------------------------------------------------------------------------------------------------

    def signal_entity(self, entity_id: str, event: bytes, due: int | None) -> None:
        """Give an entity a signal, now or later."""
        self._send(SendOperation(entity_id, event, due=due))

    def clean_entities(self, *, remove_empty: bool, release_orphaned: bool) -> tuple[int, int]:
        """Delete entities without state and operations, and free those whose holder is no more.

        Returns:
            How many of either.
        """
        removed = released = 0
        if release_orphaned:
            for entity in self.store.locked_entities():
                assert entity.lock is not None
                holder = self.store.instance(entity.lock.instance_id)
                if holder is None or holder.status in TERMINAL or holder.execution_id != entity.lock.execution_id:
                    self.has_written = True
                    self._release(entity)
                    released += 1
        if remove_empty:
            wanted = {each for request in self.store.lock_requests() for each in request.entity_ids}
            after = ""
            while page := self.store.entities("", None, None, True, 1000, after):
                for entity, pending in page:
                    after = entity.entity_id
                    if entity.state is None and not pending and entity.lock is None and after not in wanted:
                        self.has_written = True
                        self.store.delete_entity(entity.entity_id)
                        removed += 1
        self._deliver()
        return removed, released

    def _entity(self, entity_id: str) -> Entity:
        return self.store.entity(entity_id) or entity_transitions.new_entity(entity_id, self.context)

    def _release(self, entity: Entity) -> None:
        self.store.put_entity(entity_transitions.release(entity))
        self.entities[entity.entity_id] = None
        self._locks_changed = True

    def _grant_locks(self) -> None:
        self._locks_changed = False
        requests = self.store.lock_requests()
        if not requests:
            return
        for request in entity_transitions.grantable(requests, self.store.entity, self.store.first_operation):
            for entity_id in request.entity_ids:
                self.store.put_entity(entity_transitions.grant(self._entity(entity_id), request.lock, self.context))
                self.entities[entity_id] = None
            self.store.drop_lock_request(request.seq)
            self._messages.append(entity_transitions.grant_message(request.lock, self.context))

    # -- changes and messages --------------------------------------------------------------------------------------

    def _apply(self, changes: Changes) -> None:
        self._write(changes)
        self._deliver()

    def _write(self, changes: Changes) -> None:
        self.has_written = True
        instance = self.store.apply(changes)
        self.touched[instance.instance_id] = instance
        for task in changes.tasks:
            self.new_tasks.append(self.store.add_task(task))
        for timer in changes.timers:
            self.store.add_timer(timer)
        self._messages.extend(changes.messages)

    def _send(self, message: Message) -> None:
        self._messages.append(message)
        self._deliver()

    def _deliver(self) -> None:
        """Deliver messages until there are none, and grant the locks that have become free."""
        while self._messages or self._locks_changed:
            while self._messages:
                message = self._messages.popleft()
                _RECEIVERS[type(message)](self, message)
            if self._locks_changed:
                self._grant_locks()

    def deliver_event(self, message: DeliverEvent) -> None:
        """Give an instance an event, if it is for it."""
        instance = self.store.instance(message.instance_id)
        if instance is None:
            return
        if message.kind in transitions.TERMINATES and instance.scheduled_at is not None:
            # Its code has not begun, and does not.
            output = events.optional(events.parse(message.event).executionTerminated, "input")
            self._write(transitions.terminate_now(instance, output, self.context, self.store.inbox(instance)))
            return
        changes = transitions.deliver(instance, message, self.store.inbox(instance))
        if changes is not None:
            self._write(changes)

    def start_child(self, message: StartInstance) -> None:
        """Start a child, or tell its parent why not; or what an entity has asked for."""
        try:
            self._write(transitions.start(self.store.instance(message.instance_id), message, self.context))
        except transitions.InstanceExistsError:
            if message.parent is not None:
                self._messages.extend(transitions.refuse_child(message, self.context))
            else:
                _logger.warning("An entity asked to start '%s', which runs already", message.instance_id)

    def send_operation(self, message: SendOperation) -> None:
        """Give an entity an operation, now or when it is due."""
        self.has_written = True
        if message.due is not None and message.due > self.context.now:
            self.store.add_timer(Timer(message.due, TimerKind.SIGNAL, message.entity_id, event=message.event))
            return
        if self.store.entity(message.entity_id) is None:
            self.store.put_entity(entity_transitions.new_entity(message.entity_id, self.context))
        self.store.add_operation(message.entity_id, message.event, message.execution_id)
        self.entities[message.entity_id] = None

    def request_lock(self, message: RequestLock) -> None:
        """Keep a lock request until it can be granted."""
        self.store.add_lock_request(LockRequest(0, message.lock, message.entity_ids))
        self._locks_changed = True

    def release_lock(self, message: ReleaseLock) -> None:
        """Free an entity that a critical section has left."""
        entity = self.store.entity(message.entity_id)
        lock = None if entity is None else entity.lock
        if entity is not None and lock is not None and lock.critical_section_id == message.critical_section_id:
            self._release(entity)

    def end_execution(self, message: EndExecution) -> None:
        """Clear away what belongs to an execution that is over."""
        if self.store.end_execution(message.execution_id, message.drop_tasks):
            self._locks_changed = True
        if message.drop_tasks:
            self.dropped_executions.append(message.execution_id)
            self.new_tasks = [each for each in self.new_tasks if each.execution_id != message.execution_id]
        for entity in self.store.locked_entities(message.execution_id):
            self._release(entity)

    def rewind_child(self, message: RewindInstance) -> None:
        """Rewind, restart or report a child of a rewound parent."""
        child, parent = self.store.instance(message.instance_id), message.start.parent
        if child is None:
            self.start_child(message.start)
            return
        if not transitions.is_child_of(child, parent):
            self._messages.extend(transitions.refuse_child(message.start, self.context))
            return
        child = child._replace(parent=parent)
        if child.status == transitions.FAILED:
            try:
                self._rewind(child, message.reason)
            except transitions.NotAllowedError as error:
                _logger.warning("%s", error)
            else:
                return
        self._write(Changes(child))
        if child.status in TERMINAL:
            payloads = self.store.payloads(child)
            output, failure = payloads.get("output"), payloads.get("failure")
            assert output is None or isinstance(output, str)
            assert failure is None or isinstance(failure, bytes)
            self._messages.extend(transitions.report_again(child, output, failure, self.context))

    def terminate_children(self, message: TerminateChildren) -> None:
        """Ask the children of an instance to end."""
        for child in self.store.children(message.instance_id):
            if child.status not in TERMINAL:
                event = events.execution_terminated(self.context.now, message.output, True)
                self._messages.append(DeliverEvent(child.instance_id, event, EventKind.TERMINATE_RECURSIVELY))


_RECEIVERS: dict[type, Callable[[Transaction, Any], None]] = {
    DeliverEvent: Transaction.deliver_event,
    StartInstance: Transaction.start_child,
    SendOperation: Transaction.send_operation,
    RequestLock: Transaction.request_lock,
    ReleaseLock: Transaction.release_lock,
    EndExecution: Transaction.end_execution,
    RewindInstance: Transaction.rewind_child,
    TerminateChildren: Transaction.terminate_children,
}
