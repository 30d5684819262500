"""The store of short lives: Python objects, for tests that make thousands of engines and run a few instances in each.

A transaction is undone by a journal: each write appends what puts the old value back.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from durabletask_aio.engine.state import (
    Changes,
    Entity,
    InboxEvent,
    Instance,
    LockRequest,
    Operation,
    Task,
    Timer,
)
from durabletask_aio.engine.store import InstanceFilter, Page

K = TypeVar("K")
V = TypeVar("V")


@dataclass(eq=False)
class _Row:
    """What is kept of one instance; the lists are only appended to, or replaced."""

    instance: Instance
    inbox: list[InboxEvent] = field(default_factory=list[InboxEvent])
    chunks: list[bytes] = field(default_factory=list[bytes])
    payloads: dict[str, str | bytes] = field(default_factory=dict[str, "str | bytes"])


class MemoryStore:
    """A store that ends with its process.  Used by one thread at a time."""

    path: Path | None = None
    durability = "none"

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._children: dict[str, dict[str, None]] = {}
        """The ids of the children of an instance, by its id."""
        self._tasks: dict[int, Task] = {}
        self._tasks_of: dict[str, dict[int, Task]] = {}
        """The activities of an execution, by its id."""
        self._task_leases: dict[int, tuple[str, str]] = {}
        """The lease on an activity and the name of the worker, by the activity's number."""
        self._timers: list[tuple[int, int, Timer]] = []
        """Due time, number and timer, in this order."""
        self._timers_of: dict[str, dict[int, Timer]] = {}
        """The timers of an execution, by its id."""
        self._entities: dict[str, Entity] = {}
        self._locked: dict[str, Entity] = {}
        self._operations: dict[str, dict[int, Operation]] = {}
        """The operations that an entity has not executed, by its id and their numbers."""
        self._requests: dict[int, LockRequest] = {}
        self._meta: dict[str, Any] = {}
        self._crashes: dict[str, tuple[str, int]] = {}
        self._seq = 0
        self._key = 0
        self._journal: list[Callable[[], object]] = []
        self._in_transaction = False

    def reader(self) -> None:
        """There is no other reader than the store itself."""

    def close(self) -> None:
        """Do nothing: the state is garbage once the store is."""

    def meta(self, name: str) -> Any:
        return self._meta.get(name)

    def set_meta(self, name: str, value: Any) -> None:
        self._put(self._meta, name, value)

    def crashes(self) -> Mapping[str, tuple[str, int]]:
        return dict(self._crashes)

    def set_crashes(self, crashes: Mapping[str, tuple[str, int]]) -> None:
        self._crashes.clear()
        self._crashes.update(crashes)

    def sizes(self) -> Mapping[str, int]:
        return {"bytes": 0, "free_bytes": 0}

    def vacuum(self) -> None:
        """Do nothing: Python frees what is not needed."""

    # -- transactions ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._journal.clear()
        self._in_transaction = True

    def commit(self) -> None:
        self._journal.clear()
        self._in_transaction = False

    def rollback(self) -> None:
        while self._journal:
            self._journal.pop()()
        self._in_transaction = False

    @property
    def in_transaction(self) -> bool:
        return self._in_transaction

    def _put(self, table: dict[K, V], key: K, value: V) -> None:
        if key in table:
            self._journal.append(partial(table.__setitem__, key, table[key]))
        else:
            self._journal.append(partial(table.pop, key))
        table[key] = value

    def _drop(self, table: dict[K, V], key: K) -> None:
        if key in table:
            self._journal.append(partial(table.__setitem__, key, table.pop(key)))

    def _put_in(self, tables: dict[str, dict[K, V]], name: str, key: K, value: V) -> None:
        if name not in tables:
            self._put(tables, name, {})
        self._put(tables[name], key, value)

    def _drop_in(self, tables: dict[str, dict[K, V]], name: str, key: K) -> None:
        table = tables.get(name)
        if table is not None:
            self._drop(table, key)
            if not table:
                self._drop_table(tables, name)

    def _drop_table(self, tables: dict[str, dict[K, V]], name: str) -> dict[K, V]:
        table = tables.pop(name, None)
        if table is None:
            return {}
        self._journal.append(partial(tables.__setitem__, name, table))
        return table

    def _set(self, row: _Row, name: str, value: object) -> None:
        self._journal.append(partial(setattr, row, name, getattr(row, name)))
        setattr(row, name, value)

    def _append(self, values: list[V], value: V) -> None:
        self._journal.append(values.pop)
        values.append(value)

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    # -- instances -------------------------------------------------------------------------------------------------

    def instance(self, instance_id: str) -> Instance | None:
        row = self._rows.get(instance_id)
        return None if row is None else row.instance

    def inbox(self, instance: Instance) -> Sequence[InboxEvent]:
        return self._rows[instance.instance_id].inbox

    def history(self, instance: Instance) -> Sequence[bytes]:
        return self._rows[instance.instance_id].chunks

    def payloads(self, instance: Instance) -> Mapping[str, str | bytes]:
        return self._rows[instance.instance_id].payloads

    def apply(self, changes: Changes) -> Instance:
        instance = changes.instance
        row = self._rows.get(instance.instance_id)
        if row is None:
            self._key += 1
            instance = instance._replace(key=self._key)
            row = _Row(instance)
            self._put(self._rows, instance.instance_id, row)
            self._set_parent(None, instance)
        elif instance is not row.instance:
            if instance.parent is not row.instance.parent:
                self._set_parent(row.instance, instance)
            self._set(row, "instance", instance)
        if changes.drop_inbox:
            # A new list, since a turn on its way to a worker may refer to the old one; and so below.
            self._set(row, "inbox", [])
        elif changes.consumed:
            self._set(row, "inbox", [each for each in row.inbox if each.seq > changes.consumed])
        for each in changes.inbox:
            self._append(row.inbox, InboxEvent(self._next_seq(), each.event, each.kind, each.execution_id))
        if changes.clear_history and row.chunks:
            self._set(row, "chunks", [])
        if changes.history:
            self._append(row.chunks, changes.history)
        for name, value in changes.payloads.items():
            if value is None:
                self._drop(row.payloads, name)
            else:
                self._put(row.payloads, name, value)
        return instance

    def _set_parent(self, before: Instance | None, instance: Instance) -> None:
        if before is not None and before.parent is not None:
            self._drop_in(self._children, before.parent.instance_id, before.instance_id)
        if instance.parent is not None:
            self._put_in(self._children, instance.parent.instance_id, instance.instance_id, None)

    def delete(self, instance: Instance) -> None:
        self._drop(self._rows, instance.instance_id)
        if instance.parent is not None:
            self._drop_in(self._children, instance.parent.instance_id, instance.instance_id)

    def clear(self) -> None:
        tables: list[dict[Any, Any]] = [
            self._rows,
            self._children,
            self._tasks,
            self._tasks_of,
            self._task_leases,
            self._crashes,
            self._timers_of,
            self._entities,
            self._locked,
            self._operations,
            self._requests,
        ]
        for table in tables:
            self._journal.append(partial(table.update, dict(table)))
            table.clear()
        self._journal.append(partial(self._timers.extend, list(self._timers)))
        self._timers.clear()

    def children(self, instance_id: str, limit: int = -1) -> Sequence[Instance]:
        found = [self._rows[each].instance for each in self._children.get(instance_id, ())]
        found.sort(key=lambda each: each.key)
        return found if limit < 0 else found[:limit]

    def waiting_instances(self) -> Iterable[Instance]:
        waiting = [row for row in self._rows.values() if row.inbox]
        return [row.instance for row in sorted(waiting, key=lambda row: row.inbox[0].seq)]

    def query(
        self, wanted: InstanceFilter, limit: int, after: tuple[int, int] | None = None, *, newest_first: bool = False
    ) -> Page:
        found = [each for each in self._instances(wanted) if after is None or _is_after(each, after, newest_first)]
        found.sort(key=_by_creation, reverse=newest_first)
        page = found[:limit]
        return Page(page, _by_creation(page[-1]) if len(found) > limit and page else None)

    def count(self, wanted: InstanceFilter) -> int:
        return sum(1 for _ in self._instances(wanted))

    def completed(self, wanted: InstanceFilter, limit: int, after: tuple[int, str] | None = None) -> Sequence[Instance]:
        ended = ((each.completed_at, each.instance_id, each) for each in self._instances(wanted))
        found = sorted(
            (at, instance_id, each)
            for at, instance_id, each in ended
            if at is not None and (after is None or (at, instance_id) > after)
        )
        return [each for _, _, each in found[:limit]]

    def _instances(self, wanted: InstanceFilter) -> Iterable[Instance]:
        return (row.instance for row in self._rows.values() if _matches(row.instance, wanted))

    # -- activities and timers -------------------------------------------------------------------------------------

    def add_task(self, new: Task) -> Task:
        stored = Task(self._next_seq(), *new[1:])
        self._put(self._tasks, stored.seq, stored)
        self._put_in(self._tasks_of, stored.execution_id, stored.seq, stored)
        return stored

    def task(self, seq: int) -> Task | None:
        return self._tasks.get(seq)

    def drop_task(self, task: Task) -> None:
        self._drop(self._tasks, task.seq)
        self._drop(self._task_leases, task.seq)
        self._drop_in(self._tasks_of, task.execution_id, task.seq)

    def tasks(self, execution_id: str | None = None) -> Iterable[Task]:
        found = self._tasks if execution_id is None else self._tasks_of.get(execution_id, {})
        return [found[seq] for seq in sorted(found)]

    def keep_lease(self, task: Task, lease_id: str, worker_id: str) -> None:
        if task.seq in self._tasks:
            self._put(self._task_leases, task.seq, (lease_id, worker_id))

    def drop_lease(self, task: Task) -> None:
        self._drop(self._task_leases, task.seq)

    def leases(self) -> Sequence[tuple[int, str, str]]:
        return [(seq, *self._task_leases[seq]) for seq in sorted(self._task_leases)]

    def add_timer(self, timer: Timer) -> None:
        stored = Timer(*timer[:-1], self._next_seq())
        self._insert_timer(stored)
        self._journal.append(partial(self._remove_timer, stored))
        if stored.execution_id:
            self._put_in(self._timers_of, stored.execution_id, stored.seq, stored)

    def _insert_timer(self, timer: Timer) -> None:
        bisect.insort(self._timers, (timer.due, timer.seq, timer))

    def _remove_timer(self, timer: Timer) -> None:
        del self._timers[bisect.bisect_left(self._timers, (timer.due, timer.seq, timer))]

    def due_timers(self, now: int, limit: int) -> Sequence[Timer]:
        return [timer for due, _, timer in islice(self._timers, limit) if due <= now]

    def drop_timer(self, timer: Timer) -> None:
        self._remove_timer(timer)
        self._journal.append(partial(self._insert_timer, timer))
        self._drop_in(self._timers_of, timer.execution_id, timer.seq)

    def next_due(self) -> int | None:
        return self._timers[0][0] if self._timers else None

    # -- entities --------------------------------------------------------------------------------------------------

    def entity(self, entity_id: str) -> Entity | None:
        return self._entities.get(entity_id)

    def entities(
        self,
        prefix: str,
        modified_from: int | None,
        modified_to: int | None,
        include_transient: bool,
        limit: int,
        after: str = "",
    ) -> Sequence[tuple[Entity, int]]:
        found: list[tuple[Entity, int]] = []
        for entity_id in sorted(self._entities):
            entity = self._entities[entity_id]
            pending = len(self._operations.get(entity_id, ()))
            if (
                entity_id > after
                and entity_id.startswith(prefix)
                and _is_within(entity.modified_at, modified_from, modified_to)
                and (include_transient or not pending or entity.state is not None)
            ):
                found.append((entity, pending))
        return found[:limit]

    def put_entity(self, entity: Entity) -> Entity:
        stored = entity if entity.stored else entity._replace(stored=True)
        self._put(self._entities, stored.entity_id, stored)
        if stored.lock is not None:
            self._put(self._locked, stored.entity_id, stored)
        else:
            self._drop(self._locked, stored.entity_id)
        return stored

    def delete_entity(self, entity_id: str) -> None:
        self._drop(self._entities, entity_id)
        self._drop(self._locked, entity_id)

    def operations(self, entity_id: str) -> Sequence[Operation]:
        return list(self._operations.get(entity_id, {}).values())

    def add_operation(self, entity_id: str, event: bytes, execution_id: str | None) -> None:
        operation = Operation(self._next_seq(), event, execution_id)
        self._put_in(self._operations, entity_id, operation.seq, operation)

    def drop_operations(self, entity_id: str, seqs: Iterable[int]) -> None:
        dropped = frozenset(seqs)
        before = self._drop_table(self._operations, entity_id)
        left = {seq: operation for seq, operation in before.items() if seq not in dropped}
        if left:
            self._put(self._operations, entity_id, left)

    def first_operation(self, entity_id: str) -> int | None:
        return next(iter(self._operations.get(entity_id, ())), None)

    def waiting_entities(self) -> Iterable[str]:
        return sorted(self._operations, key=lambda each: next(iter(self._operations[each])))

    def add_lock_request(self, request: LockRequest) -> None:
        stored = request._replace(seq=self._next_seq())
        self._put(self._requests, stored.seq, stored)

    def lock_requests(self) -> Sequence[LockRequest]:
        return [self._requests[seq] for seq in sorted(self._requests)]

    def drop_lock_request(self, seq: int) -> None:
        self._drop(self._requests, seq)

    def locked_entities(self, execution_id: str | None = None) -> Sequence[Entity]:
        return [
            each
            for each in self._locked.values()
            if execution_id is None or (each.lock is not None and each.lock.execution_id == execution_id)
        ]

    def end_execution(self, execution_id: str, drop_tasks: bool) -> bool:
        for timer in list(self._timers_of.get(execution_id, {}).values()):
            self.drop_timer(timer)
        if drop_tasks:
            for task in list(self._tasks_of.get(execution_id, {}).values()):
                self.drop_task(task)
        mine = [seq for seq, each in self._requests.items() if each.lock.execution_id == execution_id]
        for seq in mine:
            self.drop_lock_request(seq)
        return bool(mine)


def _by_creation(instance: Instance) -> tuple[int, int]:
    return instance.created_at, instance.key


def _is_after(instance: Instance, after: tuple[int, int], newest_first: bool) -> bool:
    return _by_creation(instance) < after if newest_first else _by_creation(instance) > after


def _is_within(time: int | None, first: int | None, end: int | None) -> bool:
    if time is None:
        return first is None and end is None
    return (first is None or time >= first) and (end is None or time < end)


def _matches(instance: Instance, wanted: InstanceFilter) -> bool:
    parent_id = None if instance.parent is None else instance.parent.instance_id
    return (
        (not wanted.statuses or instance.status in wanted.statuses)
        and (not wanted.names or instance.name in wanted.names)
        and instance.instance_id.startswith(wanted.id_prefix)
        and wanted.id_contains in instance.instance_id
        and wanted.text.lower() in f"{instance.instance_id}\n{instance.name}".lower()
        and _is_within(instance.created_at, wanted.created_from, wanted.created_to)
        and _is_within(instance.updated_at, wanted.updated_from, wanted.updated_to)
        and _is_within(instance.completed_at, wanted.completed_from, wanted.completed_to)
        and all(instance.tags.get(name) == value for name, value in wanted.tags.items())
        and (wanted.parent_id is None or parent_id == wanted.parent_id)
        and not (wanted.only_roots and parent_id is not None)
    )
