"""What must hold after every step of a simulation, whatever has failed.

The checks read the tables by themselves and compare what they find with the engine's memory, its queues and its leases.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from durabletask_aio.engine import entity_transitions, events, transitions
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.dispatch import Dispatcher
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.reading import Queries
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.engine.state import EventKind, InboxEvent, Instance, Lock, TimerKind
from durabletask_aio.engine.streams import ACTIVITY, BATCH, TURN, UNLIMITED, WORK_KINDS, WorkerStream, WorkKind
from durabletask_aio.engine.transitions import SUSPENDED, TERMINAL


class Violation(AssertionError):
    """An invariant does not hold."""


def expect(condition: object, message: str) -> None:
    if not condition:
        raise Violation(message)


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


class Tables:
    """Reads the tables, and nothing of what the store has in memory."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store

    def rows(self, query: str, *values: object) -> list[Any]:
        return self.store._db.execute(query, values).fetchall()

    def column(self, query: str, *values: object) -> list[Any]:
        return [row[0] for row in self.rows(query, *values)]

    def instance(self, instance_id: str) -> Instance | None:
        return Queries.instance(self.store, instance_id)

    def instances(self) -> Iterator[Instance]:
        for instance_id in self.column("SELECT instance_id FROM instances ORDER BY key"):
            found = self.instance(instance_id)
            assert found is not None
            yield found

    def inbox(self, instance: Instance) -> list[InboxEvent]:
        rows = self.rows("SELECT seq, event, kind, execution_id FROM inbox WHERE key=? ORDER BY seq", instance.key)
        return [InboxEvent(seq, event, EventKind(kind), execution) for seq, event, kind, execution in rows]

    def history(self, instance: Instance) -> list[pb.HistoryEvent]:
        return events.past_events(Queries.history(self.store, instance))

    def input(self, instance: Instance) -> dict[str, Any]:
        (value,) = self.column("SELECT value FROM payloads WHERE key=? AND name='input'", instance.key)
        found: dict[str, Any] = json.loads(value)
        return found


def raised(history: Iterable[pb.HistoryEvent]) -> Counter[str]:
    """Count the external events by their data."""
    return Counter(each.eventRaised.input.value for each in history if each.HasField("eventRaised"))


# -- instances -----------------------------------------------------------------------------------------------------


class InstanceCheck:
    """Checks one instance with what belongs to it."""

    def __init__(self, tables: Tables, instance: Instance) -> None:
        self.tables = tables
        self.instance = instance
        self.id = instance.instance_id
        self.inbox = tables.inbox(instance)
        self.history = tables.history(instance)
        self.arriving = [pb.HistoryEvent.FromString(each.event) for each in self.inbox if each.event]
        self.is_live = instance.status not in TERMINAL

    def run(self) -> None:
        self.check_memory()
        self.check_history()
        if not self.is_live:
            expect(not self.inbox, f"{self.id} has ended and has an inbox")
            expect(self.instance.completed_at is not None, f"{self.id} has ended, and it is not known when")
            return
        expect(self.instance.completed_at is None, f"{self.id} has not ended, and it is known when")
        if not self.instance.rewinding:
            self.check_actions()

    def check_memory(self) -> None:
        cached = self.tables.store._cache.get(self.id)
        if cached is None:
            return
        if cached.instance != self.instance:
            raise Violation(f"{self.id} is {cached.instance} in memory, and {self.instance} in the store")
        if cached.inbox is not None:
            expect(cached.inbox == self.inbox, f"{self.id}: the inbox in memory is not that of the store")
        chunks = Queries.history(self.tables.store, self.instance)
        if cached.chunks is not None:
            expect(cached.chunks == chunks, f"{self.id}: the history in memory is not that of the store")
            expect(cached.size == sum(map(len, chunks)), f"{self.id}: the size of the history is wrong")
        if cached.turns is not None:
            expect(cached.turns == len(chunks), f"{self.id}: the number of chunks is wrong")

    def check_history(self) -> None:
        """Check that it consists of turns, one after the other, in time and in the right order."""
        history = self.history
        expect(
            self.instance.event_count == len(history),
            f"{self.id} counts {self.instance.event_count} events, {len(history)} are in its history",
        )
        self.check_turns()
        scheduled: set[int] = set()
        answered: set[object] = set()
        for event in history:
            field = event.WhichOneof("eventType") or ""
            if event.eventId >= 0:
                expect(event.eventId not in scheduled, f"{self.id}: action {event.eventId} is recorded twice")
                scheduled.add(event.eventId)
            if field in _ANSWERS:
                key = getattr(getattr(event, field), _ANSWERS[field])
                expect(key not in answered, f"{self.id}: the outcome of {key} is recorded twice")
                answered.add(key)
                if isinstance(key, int):
                    expect(key in scheduled, f"{self.id}: {field} {key} comes before its action")

    def check_turns(self) -> None:
        time, is_in_turn, is_rewound, has_ended = 0, False, False, False
        for event in self.history:
            field = event.WhichOneof("eventType") or ""
            where = f"{self.id}: {field} after {'the end' if has_ended else 'the turn'}"
            if field == "orchestratorStarted":
                is_between = not has_ended and (is_rewound or not is_in_turn)
                expect(is_between, f"{self.id}: a turn starts within another one")
                started = events.microseconds(event.timestamp)
                expect(started >= time, f"{self.id}: the time of turns goes back from {time} to {started}")
                time, is_in_turn, is_rewound = started, True, False
            elif field == "orchestratorCompleted":
                expect(is_in_turn, where)
                is_in_turn = False
            elif field == "executionCompleted":
                expect(not is_in_turn and not has_ended, where)
                has_ended = True
            elif field == "executionTerminated" and (is_rewound or not is_in_turn):
                # Ended without a turn, perhaps while a rewind of its end was under way.
                is_in_turn = has_ended = False
            elif field == "executionSuspended" and (is_rewound or not is_in_turn):
                pass  # set aside, without a turn
            elif field == "executionStarted" and not is_in_turn and not has_ended:
                pass  # ended before its first turn
            elif field == "executionStarted" and event is self.history[0]:
                pass  # terminated before its first turn
            else:
                expect(is_in_turn, where)
            is_rewound = is_rewound or field == "executionRewound"
        end = "an end" if has_ended else "no end"
        expect(
            has_ended != self.is_live or self.instance.rewinding,
            f"{self.id}: its status is {self.instance.status}, and its history has {end}",
        )

    def check_actions(self) -> None:
        """Check that what the execution has asked for is under way, or has one outcome."""
        outcomes = Counter[Any]()
        for event in [*self.history, *self.arriving]:
            field = event.WhichOneof("eventType") or ""
            if field in _ANSWERS:
                outcomes[getattr(getattr(event, field), _ANSWERS[field])] += 1
        execution = self.instance.execution_id
        tasks = Counter(self.tables.column("SELECT task_id FROM tasks WHERE execution_id=?", execution))
        timers = Counter[int]()
        for kind, body in self.tables.rows("SELECT kind, event FROM timers WHERE execution_id=?", execution):
            if kind == TimerKind.TIMER.value:
                timers[pb.HistoryEvent.FromString(body).timerFired.timerId] += 1
        operations = Counter(
            pb.HistoryEvent.FromString(body).entityOperationCalled.requestId
            for body in self.tables.column("SELECT event FROM operations WHERE execution_id=?", execution)
        )
        requests = Counter(self.tables.column("SELECT section FROM lock_requests WHERE execution_id=?", execution))
        for event in self.history:
            field, number = event.WhichOneof("eventType") or "", event.eventId
            if field == "taskScheduled":
                self.expect_one("activity", number, outcomes[number] + tasks[number])
            elif field == "timerCreated":
                self.expect_one("timer", number, outcomes[number] + timers[number])
            elif field == "subOrchestrationInstanceCreated":
                child_id = event.subOrchestrationInstanceCreated.instanceId
                is_running = outcomes[number] == 0 and self.is_child(child_id, number)
                self.expect_one("child", number, outcomes[number] + is_running)
            elif field == "entityOperationCalled":
                key = event.entityOperationCalled.requestId
                self.expect_one("call", key, outcomes[key] + operations[key])
            elif field == "entityLockRequested":
                section = event.entityLockRequested.criticalSectionId
                self.expect_one("lock request", section, outcomes[section] + requests[section])
        starts = self.tables.column(
            "SELECT count(*) FROM timers WHERE execution_id=? AND kind=?", execution, TimerKind.START.value
        )
        expect(starts == [int(self.instance.scheduled_at is not None)], f"{self.id} is scheduled {starts[0]} times")

    def is_child(self, child_id: str, number: int) -> bool:
        child = self.tables.instance(child_id)
        if child is None or child.status in TERMINAL or child.parent is None:
            return False
        parent = child.parent
        return not parent.has_outcome and (parent.instance_id, parent.execution_id, parent.task_id) == (
            self.id,
            self.instance.execution_id,
            number,
        )

    def expect_one(self, what: str, key: object, count: int) -> None:
        expect(count == 1, f"{self.id}: {what} {key} is under way or answered {count} times")

    def sections(self) -> Iterator[tuple[str, Lock]]:
        """Return what it has locked by its history and its inbox."""
        held: dict[str, list[str]] = {}
        granted: set[str] = set()
        for event in [*self.history, *self.arriving]:
            if event.HasField("entityLockRequested"):
                held[event.entityLockRequested.criticalSectionId] = list(event.entityLockRequested.lockSet)
            elif event.HasField("entityLockGranted"):
                granted.add(event.entityLockGranted.criticalSectionId)
            elif event.HasField("entityUnlockSent"):
                held[event.entityUnlockSent.criticalSectionId].remove(event.entityUnlockSent.targetInstanceId.value)
        for section in granted:
            for entity_id in held[section]:
                yield entity_id, Lock(section, self.id, self.instance.execution_id)


# -- the whole store -----------------------------------------------------------------------------------------------


def check_store(tables: Tables) -> None:
    """Check what is between instances: locks, and rows that belong to none."""
    wanted: dict[str, Lock] = {}
    live: set[str] = set()
    for instance in tables.instances():
        check = InstanceCheck(tables, instance)
        check.run()
        if check.is_live:
            live.add(instance.execution_id)
            for entity_id, lock in check.sections():
                expect(entity_id not in wanted, f"{entity_id} is locked by {wanted.get(entity_id)} and by {lock}")
                wanted[entity_id] = lock
    locked = {
        entity_id: Lock(section, instance_id, execution_id)
        for entity_id, section, instance_id, execution_id in tables.rows(
            "SELECT entity_id, lock_section, lock_instance, lock_execution FROM entities WHERE lock_section IS NOT NULL"
        )
    }
    if locked != wanted:
        raise Violation(f"locked are {locked}, by the histories it should be {wanted}")
    for table in ("lock_requests", "timers"):
        for execution_id in tables.column(f"SELECT execution_id FROM {table}"):
            expect(not execution_id or execution_id in live, f"{table} has rows of {execution_id}, which is over")
    for table, key in (("inbox", "key"), ("payloads", "key"), ("tags", "key"), ("history", "id>>32")):
        orphans = tables.column(f"SELECT count(*) FROM {table} WHERE {key} NOT IN (SELECT key FROM instances)")
        expect(orphans == [0], f"{table} has rows of no instance")
    check_memory(tables)


def check_memory(tables: Tables) -> None:
    """Check that what the store has in memory is what it would read."""
    store = tables.store
    if store._requests is not None:
        seqs = tables.column("SELECT seq FROM lock_requests ORDER BY seq")
        cached = [each.seq for each in store._requests]
        expect(cached == seqs, "the lock requests in memory are not those of the store")
    if store._leased is not None:
        leased = tables.column("SELECT seq FROM task_leases ORDER BY seq")
        expect(sorted(store._leased) == leased, "the leases in memory are not those of the store")
    orphans = tables.column("SELECT count(*) FROM task_leases WHERE seq NOT IN (SELECT seq FROM tasks)")
    expect(orphans == [0], "a lease of an activity is kept that is done")
    if store._next_due_known:
        due = tables.column("SELECT min(due) FROM timers")
        expect([store._next_due] == due, f"the next timer is due at {due[0]}, in memory at {store._next_due}")
    size = sum(each.size for each in store._cache.values())
    expect(store._cached_bytes == size, f"the store counts {store._cached_bytes} bytes in memory, it has {size}")
    for seq, task in store._tasks.items():
        expect(tables.rows("SELECT * FROM tasks WHERE seq=?", seq) == [task], "a task is in memory only")
    for instance_id in store._cache:
        expect(tables.instance(instance_id) is not None, f"{instance_id} is in memory only")


# -- queues and leases ---------------------------------------------------------------------------------------------


def check_dispatcher(kernel: Kernel, tables: Tables, streams: Mapping[WorkerStream, int]) -> None:
    """Check that all work is in a queue, with a worker or paused, and that limits are kept.

    Args:
        kernel: the kernel.
        tables: its tables.
        streams: all streams, with how many items of each kind they may hold beyond their limits.
    """
    dispatcher = kernel.dispatcher
    leases = dispatcher._leases
    for stream, excess in streams.items():
        for kind in WORK_KINDS:
            held = sum(1 for each in leases.values() if each.stream is stream and each.item.kind is kind)
            if stream.is_open:
                expect(stream.held[kind] == held, f"a stream counts {stream.held[kind]} {kind}s, it holds {held}")
            limit = stream.limits.get(kind, UNLIMITED)
            expect(held <= max(limit, excess), f"a stream with a limit of {limit} {kind}s holds {held}")
            expect(stream.is_open or not held, "a stream that has ended holds leases")
            if stream.has_room(kind):
                for items in dispatcher._queues[kind]._by_name.values():
                    for _, item in items.values():
                        # What a worker has given back waits for another one, if there is one.
                        if stream.accepts(kind, item.name, item.version) and stream not in (item.abandoned_by or ()):
                            raise Violation(f"{kind} {item.key} waits, and a stream has room for it")
    for (kind, key), lease in dispatcher._out.items():
        expect(leases.get(lease.id) is lease, f"{kind} {key} is leased by a lease that is over")
        expect((lease.item.kind, lease.item.key) == (kind, key), f"{kind} {key} has the lease of another item")
    for lease in leases.values():
        expect(lease.stream is not None or lease.worker_id, f"{lease.item.kind} {lease.item.key} is with no worker")
    for kind, key in ready(kernel, tables):
        expect(_has(dispatcher, kind, key), f"{kind} {key} can be done, and is in no queue and with no worker")
    nonces = set(tables.column("SELECT nonce FROM tasks"))
    waiting = list(dispatcher._queues[ACTIVITY]._places)
    waiting += [item.key for item in dispatcher._paused if item.kind is ACTIVITY]
    for nonce in waiting:
        expect(nonce in nonces, f"an activity waits for a worker that is not to be done any more: {nonce}")


def ready(kernel: Kernel, tables: Tables) -> Iterator[tuple[WorkKind, str]]:
    """Return what can be done, by the tables."""
    crash_loops = kernel._crash_loops
    for instance_id in tables.column("SELECT DISTINCT instance_id FROM inbox JOIN instances USING (key)"):
        instance = tables.instance(instance_id)
        assert instance is not None
        if crash_loops.holds_back(instance):
            expect(crash_loops.running or crash_loops._waiting, f"{instance_id} is held back for ever")
        elif transitions.is_ready(instance, tables.inbox(instance)):
            yield TURN, instance_id
    for nonce in tables.column("SELECT nonce FROM tasks"):
        yield ACTIVITY, nonce
    for entity_id in tables.column("SELECT DISTINCT entity_id FROM operations"):
        entity = tables.store.entity(entity_id)
        expect(entity is not None, f"{entity_id} has operations and does not exist")
        assert entity is not None
        if entity_transitions.batch(entity, tables.store.operations(entity_id)):
            yield BATCH, entity_id


def _has(dispatcher: Dispatcher, kind: WorkKind, key: str) -> bool:
    return (
        key in dispatcher._queues[kind]
        or (kind, key) in dispatcher._out
        or any(item.kind is kind and item.key == key for item in dispatcher._paused)
    )


def check_is_over(kernel: Kernel, tables: Tables) -> None:
    """Check that nothing is left but instances that have ended, and entities."""
    for instance in tables.instances():
        expect(instance.status in TERMINAL, f"{instance.instance_id} never ends")
    for table in ("inbox", "tasks", "timers", "operations", "lock_requests"):
        expect(tables.column(f"SELECT count(*) FROM {table}") == [0], f"{table} is not empty in the end")
    dispatcher = kernel.dispatcher
    for kind in WORK_KINDS:
        expect(not dispatcher.queued(kind), f"the queue of {kind}s is not empty in the end")
    expect(not dispatcher._leases and not dispatcher._out, "there are leases in the end")
    expect(not dispatcher._paused, "items are paused in the end")


def control_is_lost(instance: Instance, inbox: Iterable[InboxEvent], control: str) -> bool:
    """Return whether a suspension or the end of one has been lost; `control` is what clients asked for last."""
    pending = any(each.kind in (EventKind.SUSPEND, EventKind.RESUME) for each in inbox)
    return not pending and not instance.rewinding and (instance.status == SUSPENDED) != (control == "suspend")
