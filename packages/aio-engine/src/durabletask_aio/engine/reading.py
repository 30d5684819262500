"""Reads a database: queries, and the rows that they find as the engine's state."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from durabletask_aio.engine.state import (
    NO_TAGS,
    Entity,
    Instance,
    Lock,
    LockRequest,
    Operation,
    Parent,
    Task,
    Timer,
    TimerKind,
)
from durabletask_aio.engine.store import InstanceFilter, Page

INSTANCE_COLUMNS = (
    "key, instance_id, execution_id, turn_id, name, version, status, created_at, updated_at, started_at, turn_time, "
    "ahead, scheduled_at, completed_at, custom_status, tags, parent_id, parent_execution, parent_task, event_count, "
    "rewinding"
)
ENTITY_COLUMNS = "entity_id, revision, state, modified_at, lock_section, lock_instance, lock_execution"


class Queries:
    """Queries on one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def instance(self, instance_id: str) -> Instance | None:
        row = self._db.execute(
            f"SELECT {INSTANCE_COLUMNS} FROM instances WHERE instance_id=?", (instance_id,)
        ).fetchone()
        return None if row is None else to_instance(row)

    def history(self, instance: Instance) -> Sequence[bytes]:
        first = instance.key << 32
        rows = self._db.execute(
            "SELECT events FROM history WHERE id>=? AND id<? ORDER BY id", (first, first + (1 << 32))
        )
        return [row[0] for row in rows]

    def payloads(self, instance: Instance) -> Mapping[str, str | bytes]:
        return dict(self._db.execute("SELECT name, value FROM payloads WHERE key=?", (instance.key,)))

    def beginning(self, instance: Instance, name: str, length: int) -> str | None:
        """Return the first characters of a payload, `None` if the instance has none of that name."""
        query = "SELECT substr(value, 1, ?) FROM payloads WHERE key=? AND name=?"
        row = self._db.execute(query, (length, instance.key, name)).fetchone()
        return None if row is None else row[0]

    def query(
        self, wanted: InstanceFilter, limit: int, after: tuple[int, int] | None = None, *, newest_first: bool = False
    ) -> Page:
        where, values = _conditions(wanted)
        if after is not None:
            where.append(f"(created_at, key) {'<' if newest_first else '>'} (?, ?)")
            values += after
        direction = "DESC" if newest_first else "ASC"
        rows = self._db.execute(
            f"SELECT {INSTANCE_COLUMNS} FROM instances{_where(where)} "
            f"ORDER BY created_at {direction}, key {direction} LIMIT ?",
            (*values, limit + 1),
        ).fetchall()
        found = [to_instance(row) for row in rows[:limit]]
        return Page(found, (found[-1].created_at, found[-1].key) if len(rows) > limit and found else None)

    def count(self, wanted: InstanceFilter) -> int:
        where, values = _conditions(wanted)
        found: int = self._db.execute(f"SELECT count(*) FROM instances{_where(where)}", values).fetchone()[0]
        return found

    def completed(self, wanted: InstanceFilter, limit: int, after: tuple[int, str] | None = None) -> Sequence[Instance]:
        where, values = _conditions(wanted)
        where.append("completed_at IS NOT NULL")
        if after is not None:
            where.append("(completed_at, instance_id) > (?, ?)")
            values += after
        rows = self._db.execute(
            f"SELECT {INSTANCE_COLUMNS} FROM instances{_where(where)} ORDER BY completed_at, instance_id LIMIT ?",
            (*values, limit),
        )
        return [to_instance(row) for row in rows]

    def entity(self, entity_id: str) -> Entity | None:
        row = self._db.execute(f"SELECT {ENTITY_COLUMNS} FROM entities WHERE entity_id=?", (entity_id,)).fetchone()
        return None if row is None else to_entity(row)

    def entities(
        self,
        prefix: str,
        modified_from: int | None,
        modified_to: int | None,
        include_transient: bool,
        limit: int,
        after: str = "",
    ) -> Sequence[tuple[Entity, int]]:
        where, values = ["entity_id>?"], [after]
        if prefix:
            where.append("entity_id>=? AND entity_id<?")
            values += [prefix, _after_prefix(prefix)]
        _add_range(where, values, "modified_at", modified_from, modified_to)
        pending = "(SELECT count(*) FROM operations WHERE operations.entity_id=entities.entity_id)"
        if not include_transient:
            where.append(f"({pending}=0 OR state IS NOT NULL)")
        rows = self._db.execute(
            f"SELECT {ENTITY_COLUMNS}, {pending} FROM entities{_where(where)} ORDER BY entity_id LIMIT ?",
            (*values, limit),
        )
        return [(to_entity(row[:-1]), row[-1]) for row in rows]

    def operations(self, entity_id: str) -> Sequence[Operation]:
        rows = self._db.execute(
            "SELECT seq, event, execution_id FROM operations WHERE entity_id=? ORDER BY seq", (entity_id,)
        )
        return [Operation(*row) for row in rows]

    def meta(self, name: str) -> Any:
        """Return a value that was kept with `set_meta`, `None` if there is none."""
        row = self._db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return None if row is None else row[0]

    def sizes(self) -> dict[str, int]:
        """Return the size of the file in bytes, and how many bytes of it are free."""
        page = self._db.execute("PRAGMA page_size").fetchone()[0]
        return {
            "bytes": page * self._db.execute("PRAGMA page_count").fetchone()[0],
            "free_bytes": page * self._db.execute("PRAGMA freelist_count").fetchone()[0],
        }

    def tasks(self, execution_id: str | None = None) -> Iterable[Task]:
        if execution_id is None:
            rows = self._db.execute("SELECT * FROM tasks ORDER BY seq")
        else:
            rows = self._db.execute("SELECT * FROM tasks WHERE execution_id=? ORDER BY seq", (execution_id,))
        return [Task(*row) for row in rows]

    def timers(self, execution_id: str, limit: int) -> Sequence[Timer]:
        """Return the timers of an execution, by due time."""
        rows = self._db.execute(
            "SELECT due, kind, target, execution_id, event, seq FROM timers WHERE execution_id=? ORDER BY due LIMIT ?",
            (execution_id, limit),
        )
        return [Timer(due, TimerKind(kind), *rest) for due, kind, *rest in rows]

    def lock_requests(self) -> Sequence[LockRequest]:
        rows = self._db.execute("SELECT * FROM lock_requests ORDER BY seq")
        return [LockRequest(seq, Lock(*lock), tuple(json.loads(ids))) for seq, *lock, ids in rows]

    def inbox_count(self, instance: Instance) -> int:
        """Return how many events wait for an instance's next turn."""
        found: int = self._db.execute("SELECT count(*) FROM inbox WHERE key=?", (instance.key,)).fetchone()[0]
        return found

    def children(self, instance_id: str, limit: int = -1) -> Sequence[Instance]:
        rows = self._db.execute(
            f"SELECT {INSTANCE_COLUMNS} FROM instances WHERE parent_id=? ORDER BY key LIMIT ?", (instance_id, limit)
        )
        return [to_instance(row) for row in rows]

    def child_counts(self, instance_ids: Sequence[str]) -> dict[str, int]:
        """Return how many children instances have; those that have none are left out."""
        rows = self._db.execute(
            f"SELECT parent_id, count(*) FROM instances WHERE parent_id IN ({', '.join('?' * len(instance_ids))}) "
            "GROUP BY parent_id",
            instance_ids,
        )
        return dict(rows)

    def names(self, limit: int) -> Sequence[str]:
        """Return the names of orchestrators that have instances, in order."""
        # From one name to the next in the index: a DISTINCT would read every row of it.
        rows = self._db.execute(
            "WITH RECURSIVE found(name) AS (SELECT min(name) FROM instances UNION ALL "
            "SELECT (SELECT min(name) FROM instances WHERE name > found.name) FROM found WHERE found.name IS NOT NULL) "
            "SELECT name FROM found WHERE name IS NOT NULL LIMIT ?",
            (limit,),
        )
        return [row[0] for row in rows]

    def counts_by_status(self) -> dict[int, int]:
        """Return how many instances there are of each status."""
        return dict(self._db.execute("SELECT status, count(*) FROM instances GROUP BY status"))

    def count_of(self, table: str) -> int:
        """Return how many rows a table has."""
        found: int = self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return found

    def largest(self, limit: int) -> Sequence[Instance]:
        """Return the instances with the longest histories."""
        rows = self._db.execute(
            f"SELECT {INSTANCE_COLUMNS} FROM instances ORDER BY event_count DESC, key LIMIT ?", (limit,)
        )
        return [to_instance(row) for row in rows]

    def backup(self, target: str | os.PathLike[str]) -> None:
        """Copy what is committed into a new file, while others write."""
        copy = sqlite3.connect(os.fspath(target))
        try:
            with copy:
                self._db.backup(copy, pages=1000, sleep=0.01)
        finally:
            copy.close()


def connect(path: str) -> sqlite3.Connection:
    """Open a connection whose transactions are begun by hand."""
    # A reader or a backup of another program may hold the file for a moment.
    return sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False, cached_statements=256)


class SqliteReader(Queries):
    """Reads a database on a connection of its own; sees what is committed."""

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


def _task_number(parent: Parent) -> int:
    """Return what stands in the column for the task: a negative number if the parent has had the child's outcome."""
    return -1 - parent.task_id if parent.has_outcome else parent.task_id


def _parent(instance_id: str, execution_id: str, number: int) -> Parent:
    if number < 0:
        return Parent(instance_id, execution_id, -1 - number, True)
    return Parent(instance_id, execution_id, number, not execution_id)


def to_row(instance: Instance) -> tuple[Any, ...]:
    """Return an instance as a row of `INSTANCE_COLUMNS`."""
    parent = instance.parent
    return (
        instance.key,
        instance.instance_id,
        instance.execution_id,
        instance.turn_id,
        instance.name,
        instance.version,
        instance.status,
        instance.created_at,
        instance.updated_at,
        instance.started_at,
        instance.turn_time,
        instance.ahead,
        instance.scheduled_at,
        instance.completed_at,
        instance.custom_status,
        json.dumps(dict(instance.tags)) if instance.tags else None,
        None if parent is None else parent.instance_id,
        None if parent is None else parent.execution_id,
        None if parent is None else _task_number(parent),
        instance.event_count,
        int(instance.rewinding),
    )


def to_instance(row: Sequence[Any]) -> Instance:
    """Return a row of `INSTANCE_COLUMNS` as an instance."""
    *fields, tags, parent_id, parent_execution, parent_task, event_count, rewinding = row
    parent = None if parent_id is None else _parent(parent_id, parent_execution, parent_task)
    fields += [json.loads(tags) if tags else NO_TAGS, parent, event_count, bool(rewinding)]
    return Instance(*fields)


def to_entity(row: Sequence[Any]) -> Entity:
    """Return a row of `ENTITY_COLUMNS` as an entity."""
    lock = () if row[4] is None else (Lock(*row[4:7]),)
    return Entity(*row[:4], *lock)


def _where(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _conditions(wanted: InstanceFilter) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    values: list[Any] = []
    for column, among in (("status", wanted.statuses), ("name", wanted.names)):
        if among:
            where.append(f"{column} IN ({', '.join('?' * len(among))})")
            values += sorted(among)
    if wanted.id_prefix:
        where.append("instance_id>=? AND instance_id<?")
        values += [wanted.id_prefix, _after_prefix(wanted.id_prefix)]
    if wanted.id_contains:
        where.append("instr(instance_id, ?)")
        values.append(wanted.id_contains)
    if wanted.text:
        # LIKE ignores the case of ASCII letters.
        pattern = "%" + re.sub(r"([\\%_])", r"\\\1", wanted.text) + "%"
        where.append("(instance_id LIKE ? ESCAPE '\\' OR name LIKE ? ESCAPE '\\')")
        values += [pattern, pattern]
    _add_range(where, values, "created_at", wanted.created_from, wanted.created_to)
    _add_range(where, values, "updated_at", wanted.updated_from, wanted.updated_to)
    _add_range(where, values, "completed_at", wanted.completed_from, wanted.completed_to)
    for name, value in wanted.tags.items():
        where.append("key IN (SELECT key FROM tags WHERE name=? AND value=?)")
        values += [name, value]
    if wanted.parent_id is not None:
        where.append("parent_id=?")
        values.append(wanted.parent_id)
    if wanted.only_roots:
        where.append("parent_id IS NULL")
    return where, values


def _add_range(where: list[str], values: list[Any], column: str, first: int | None, last: int | None) -> None:
    if first is not None:
        where.append(f"{column}>=?")
        values.append(first)
    if last is not None:
        where.append(f"{column}<?")
        values.append(last)


def _after_prefix(prefix: str) -> str:
    """The first string after all that begin with the prefix, in SQLite's order of bytes."""
    return prefix + chr(0x10FFFF)
