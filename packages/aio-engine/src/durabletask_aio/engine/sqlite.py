"""The store: one SQLite database, in a file or in memory."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durabletask_aio.engine import schema
from durabletask_aio.engine.reading import (
    ENTITY_COLUMNS,
    INSTANCE_COLUMNS,
    Queries,
    SqliteReader,
    connect,
    to_entity,
    to_instance,
    to_row,
)
from durabletask_aio.engine.state import (
    Changes,
    Entity,
    EventKind,
    InboxEvent,
    Instance,
    LockRequest,
    Task,
    Timer,
    TimerKind,
)
from durabletask_aio.engine.store import RolledBackError, StoreError

_UPDATE_INSTANCE = (
    "UPDATE instances SET " + ", ".join(f"{name}=?" for name in INSTANCE_COLUMNS.split(", ")[1:]) + " WHERE key=?"
)
_INSERT_INSTANCE = f"INSERT INTO instances ({INSTANCE_COLUMNS}) VALUES ({', '.join('?' * 21)})"
_UPDATE_AFTER_TURN = (
    "UPDATE instances SET turn_id=?, updated_at=?, turn_time=?, custom_status=?, event_count=? WHERE key=?"
)

_MAX_CACHED_INSTANCES = 10_000
_MAX_CACHED_TASKS = 10_000
_MAX_CACHED_BYTES = 64 * 1024 * 1024

DISK_ERRORS = (sqlite3.OperationalError,)
"""What a statement raises when the disk is full or fails, or when another program locks the file."""

_GAP = 1 << 24
"""Numbers left out at each start, at random: what a power cut has undone is not numbered the same way again."""

_CHECKED_PAGES = 1 << 18
"""Files of up to so many pages, a gigabyte, are checked as a whole at the start, which takes some seconds then."""

_SYNCHRONOUS = {"fsync": "FULL", "os": "NORMAL"}


@dataclass
class _Cached:
    """What is in memory of one instance.

    Attributes:
        instance: its row.
        inbox: its inbox, `None` if not loaded.
        chunks: its history, `None` if not loaded.
        turns: the number of its chunks, `None` if not known.
        size: the bytes of `chunks`.
    """

    instance: Instance
    inbox: list[InboxEvent] | None = None
    chunks: list[bytes] | None = None
    turns: int | None = None
    size: int = 0


class SqliteStore(Queries):
    """The writer of a database.  Used by one thread at a time."""

    def __init__(self, path: str | os.PathLike[str] | None = None, durability: str = "fsync") -> None:
        """Open or create a database.

        Args:
            path: its file, `None` for one in memory.
            durability: `"fsync"` or `"os"`, for a file.

        Raises:
            StoreError: if the file is not an engine's database, is damaged, or was written by a newer version.
        """
        self.path = None if path is None else Path(path)
        self.durability = durability if path is not None else "none"
        try:
            super().__init__(connect(":memory:" if path is None else os.fspath(path)))
        except sqlite3.DatabaseError as error:
            raise StoreError(describe_error(self.path, error)) from error
        try:
            self._open(path is not None, durability)
            self._seq = self._first_seq(path is not None)
        except BaseException as error:
            # An open connection would keep its locks, and what it has not committed.
            self._db.close()
            if isinstance(error, sqlite3.DatabaseError):
                raise StoreError(describe_error(self.path, error)) from error
            raise
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._cached_bytes = 0
        self._touched: set[str] = set()
        self._tasks: dict[int, Task] = {}
        """Activities that have been added lately, by number."""
        self._leased: set[int] | None = None
        """Activities of which a lease is kept, by number; `None` if it has to be read."""
        self._leased_changed = False
        self._requests: list[LockRequest] | None = None
        self._next_due: int | None = None
        self._next_due_known = False

    def _open(self, is_file: bool, durability: str) -> None:
        db = self._db
        version = self._check()
        if is_file:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(f"PRAGMA synchronous={_SYNCHRONOUS[durability]}")
            db.execute("PRAGMA fullfsync=1")  # without it macOS keeps what is written in the drive's cache
            db.execute("PRAGMA wal_autocheckpoint=2000")
        else:
            db.execute("PRAGMA synchronous=OFF")
            db.execute("PRAGMA journal_mode=MEMORY")
        db.execute("PRAGMA cache_size=-32000")
        db.execute("PRAGMA temp_store=MEMORY")
        for number, step in enumerate(schema.MIGRATIONS[version:], version + 1):
            db.executescript(
                f"BEGIN IMMEDIATE; {step}; PRAGMA application_id={schema.APPLICATION_ID}; "
                f"PRAGMA user_version={number}; COMMIT;"
            )
        db.execute("DELETE FROM task_leases WHERE seq NOT IN (SELECT seq FROM tasks)")

    def _first_seq(self, is_file: bool) -> int:
        last: int = self._db.execute(
            "SELECT max(coalesce((SELECT max(seq) FROM inbox), 0), coalesce((SELECT max(seq) FROM tasks), 0), "
            "coalesce((SELECT max(seq) FROM timers), 0), coalesce((SELECT max(seq) FROM operations), 0), "
            "coalesce((SELECT max(seq) FROM lock_requests), 0), coalesce((SELECT value FROM meta WHERE name='seq'), 0))"
        ).fetchone()[0]
        return last + (_GAP + secrets.randbelow(_GAP) if is_file else 0)

    def _check(self) -> int:
        """Refuse a file that is not an engine's, too new or damaged, before anything is written; returns its schema."""
        db = self._db
        (application,) = db.execute("PRAGMA application_id").fetchone()
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if not tables:
            return version
        if application != schema.APPLICATION_ID:
            raise StoreError(f"{self.path} is a database of another program; give the engine a file of its own")
        if version > schema.VERSION:
            raise StoreError(
                f"{self.path} was written by a newer durabletask-aio-engine (schema {version}; this one knows up to "
                f"{schema.VERSION}); upgrade the package, or start from a backup that is older"
            )
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        if pages <= _CHECKED_PAGES:
            (check,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if check != "ok":
                raise StoreError(describe_error(self.path, sqlite3.DatabaseError(check)))
        return version

    def reader(self) -> SqliteReader | None:
        """Open a connection that reads what is committed; there is none to a database in memory."""
        if self.path is None:
            return None
        connection = connect(os.fspath(self.path))
        connection.execute("PRAGMA query_only=1")
        return SqliteReader(connection)

    def close(self) -> None:
        """Write the log back into the file, and close it."""
        if self.path is not None:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('seq', ?)", (self._seq,))
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()

    def discard(self) -> None:
        """Close it without writing anything, after an error."""
        self._db.close()

    def set_meta(self, name: str, value: Any) -> None:
        """Keep a value."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def crashes(self) -> dict[str, tuple[str, int]]:
        """Return the turn and the number of crashes of each instance that has any."""
        rows = self._db.execute("SELECT instance_id, turn_id, count FROM crashes")
        return {instance_id: (turn_id, count) for instance_id, turn_id, count in rows}

    def set_crashes(self, crashes: Mapping[str, tuple[str, int]]) -> None:
        """Replace what `crashes` returns."""
        self._db.execute("DELETE FROM crashes")
        rows = [(instance_id, turn_id, count) for instance_id, (turn_id, count) in crashes.items()]
        self._db.executemany("INSERT INTO crashes VALUES (?, ?, ?)", rows)

    def vacuum(self) -> None:
        """Give free pages back to the file system."""
        self._db.execute("VACUUM")

    # -- transactions ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.DatabaseError as error:
            raise RolledBackError(str(error)) from error

    def commit(self) -> None:
        # SQLite rolls a transaction back by itself when the disk is full; a COMMIT after that would succeed in vain.
        if not self._db.in_transaction:
            self._forget()
            raise RolledBackError("the transaction has been rolled back")
        try:
            self._db.execute("COMMIT")
        except BaseException as error:
            self.rollback()
            if isinstance(error, sqlite3.DatabaseError):
                raise RolledBackError(str(error)) from error
            raise
        self._touched.clear()
        self._leased_changed = False
        if len(self._cache) > _MAX_CACHED_INSTANCES or self._cached_bytes > _MAX_CACHED_BYTES:
            self._shrink()

    def rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._forget()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; after an error it may be gone."""
        return self._db.in_transaction

    def _forget(self) -> None:
        """Drop from memory what a transaction has changed that did not happen."""
        for instance_id in self._touched:
            self._evict(instance_id)
        self._touched.clear()
        self._tasks.clear()
        if self._leased_changed:
            self._leased, self._leased_changed = None, False
        self._requests = None
        self._next_due_known = False

    def _evict(self, instance_id: str) -> None:
        cached = self._cache.pop(instance_id, None)
        if cached is not None:
            self._cached_bytes -= cached.size

    def _shrink(self) -> None:
        while self._cache and (
            len(self._cache) > _MAX_CACHED_INSTANCES * 9 // 10 or self._cached_bytes > _MAX_CACHED_BYTES * 9 // 10
        ):
            self._evict(next(iter(self._cache)))

    # -- instances -------------------------------------------------------------------------------------------------

    def instance(self, instance_id: str) -> Instance | None:
        cached = self._cached(instance_id)
        return None if cached is None else cached.instance

    def _cached(self, instance_id: str) -> _Cached | None:
        cached = self._cache.get(instance_id)
        if cached is None:
            found = super().instance(instance_id)
            if found is None:
                return None
            cached = self._cache[instance_id] = _Cached(found)
        return cached

    def inbox(self, instance: Instance) -> Sequence[InboxEvent]:
        cached = self._cached(instance.instance_id)
        assert cached is not None
        return self._load_inbox(cached)

    def _load_inbox(self, cached: _Cached) -> list[InboxEvent]:
        if cached.inbox is None:
            rows = self._db.execute(
                "SELECT seq, event, kind, execution_id FROM inbox WHERE key=? ORDER BY seq", (cached.instance.key,)
            )
            cached.inbox = [InboxEvent(seq, event, EventKind(kind), execution) for seq, event, kind, execution in rows]
        return cached.inbox

    def history(self, instance: Instance) -> Sequence[bytes]:
        cached = self._cached(instance.instance_id)
        assert cached is not None
        if cached.chunks is None:
            cached.chunks = list(super().history(instance))
            cached.turns = len(cached.chunks)
            self._resize(cached, sum(map(len, cached.chunks)))
        return cached.chunks

    def _resize(self, cached: _Cached, size: int) -> None:
        self._cached_bytes += size - cached.size
        cached.size = size

    def apply(self, changes: Changes) -> Instance:
        instance = changes.instance
        self._touched.add(instance.instance_id)
        cached = self._cached(instance.instance_id)
        is_new = cached is None
        if not is_new:
            self._cache.move_to_end(instance.instance_id)
        if cached is None:
            instance = self._insert(instance)
            cached = self._cache[instance.instance_id] = _Cached(instance, [], [], 0)
        elif instance is not cached.instance:
            self._update(cached.instance, instance)
            cached.instance = instance
        key = instance.key
        self._apply_inbox(cached, changes)
        if changes.clear_history and cached.turns != 0:
            self._db.execute("DELETE FROM history WHERE id>=? AND id<?", (key << 32, (key + 1) << 32))
            cached.chunks, cached.turns = [], 0
            self._resize(cached, 0)
        if changes.history:
            self._append_history(cached, changes.history)
        for name, value in changes.payloads.items():
            if value is not None:
                self._db.execute("INSERT OR REPLACE INTO payloads VALUES (?, ?, ?)", (key, name, value))
            elif not is_new:
                self._db.execute("DELETE FROM payloads WHERE key=? AND name=?", (key, name))
        return instance

    def _insert(self, instance: Instance) -> Instance:
        row = self._db.execute(_INSERT_INSTANCE, (None, *to_row(instance)[1:]))
        assert row.lastrowid is not None
        instance = instance._replace(key=row.lastrowid)
        self._write_tags(instance)
        return instance

    def _update(self, before: Instance, instance: Instance) -> None:
        if _rarely_changed(before) == _rarely_changed(instance):
            values = (
                instance.turn_id,
                instance.updated_at,
                instance.turn_time,
                instance.custom_status,
                instance.event_count,
                instance.key,
            )
            self._db.execute(_UPDATE_AFTER_TURN, values)
            return
        self._db.execute(_UPDATE_INSTANCE, (*to_row(instance)[1:], instance.key))
        if before.tags != instance.tags:
            self._db.execute("DELETE FROM tags WHERE key=?", (instance.key,))
            self._write_tags(instance)

    def _write_tags(self, instance: Instance) -> None:
        if instance.tags:
            rows = [(name, value, instance.key) for name, value in instance.tags.items()]
            self._db.executemany("INSERT INTO tags VALUES (?, ?, ?)", rows)

    def _apply_inbox(self, cached: _Cached, changes: Changes) -> None:
        key, inbox = cached.instance.key, self._load_inbox(cached)
        if changes.drop_inbox:
            if inbox:
                self._db.execute("DELETE FROM inbox WHERE key=?", (key,))
                # A new list, since a turn on its way to a worker may refer to the old one.
                inbox = cached.inbox = []
        elif changes.consumed:
            self._db.execute("DELETE FROM inbox WHERE key=? AND seq<=?", (key, changes.consumed))
            inbox = cached.inbox = [each for each in inbox if each.seq > changes.consumed]
        for each in changes.inbox:
            stored = InboxEvent(self._next_seq(), each.event, each.kind, each.execution_id)
            self._db.execute(
                "INSERT INTO inbox VALUES (?, ?, ?, ?, ?)",
                (stored.seq, key, stored.kind.value, stored.execution_id, stored.event),
            )
            inbox.append(stored)

    def _append_history(self, cached: _Cached, chunk: bytes) -> None:
        first = cached.instance.key << 32
        turns = cached.turns
        if turns is None:
            (last,) = self._db.execute(
                "SELECT max(id) FROM history WHERE id>=? AND id<?", (first, first + (1 << 32))
            ).fetchone()
            turns = 0 if last is None else last - first + 1
        self._db.execute("INSERT INTO history VALUES (?, ?)", (first + turns, chunk))
        cached.turns = turns + 1
        if cached.chunks is not None:
            cached.chunks.append(chunk)
            self._resize(cached, cached.size + len(chunk))

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def delete(self, instance: Instance) -> None:
        key = instance.key
        self._touched.add(instance.instance_id)
        self._evict(instance.instance_id)
        self._db.execute("DELETE FROM history WHERE id>=? AND id<?", (key << 32, (key + 1) << 32))
        for table in ("inbox", "payloads", "tags", "instances"):
            self._db.execute(f"DELETE FROM {table} WHERE key=?", (key,))

    def clear(self) -> None:
        self._touched.update(self._cache)
        for table in schema.TABLES_OF_STATE:
            self._db.execute(f"DELETE FROM {table}")
        self._forget()
        self._leased, self._leased_changed = None, True

    def waiting_instances(self) -> Iterable[Instance]:
        rows = self._db.execute("SELECT key, min(seq) FROM inbox GROUP BY key ORDER BY 2").fetchall()
        for key, _ in rows:
            row = self._db.execute(f"SELECT {INSTANCE_COLUMNS} FROM instances WHERE key=?", (key,)).fetchone()
            if row is not None:
                yield to_instance(row)

    # -- activities and timers -------------------------------------------------------------------------------------

    def add_task(self, new: Task) -> Task:
        """Keep an activity; returns it with its number."""
        stored = new._replace(seq=self._next_seq())
        if len(self._tasks) < _MAX_CACHED_TASKS:
            self._tasks[stored.seq] = stored
        self._db.execute(
            "INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                stored.seq,
                stored.nonce,
                stored.instance_id,
                stored.execution_id,
                stored.task_id,
                stored.name,
                stored.version,
                stored.request,
            ),
        )
        return stored

    def task(self, seq: int) -> Task | None:
        found = self._tasks.get(seq)
        if found is not None:
            return found
        row = self._db.execute("SELECT * FROM tasks WHERE seq=?", (seq,)).fetchone()
        return None if row is None else Task(*row)

    def drop_task(self, task: Task) -> None:
        self._tasks.pop(task.seq, None)
        self._db.execute("DELETE FROM tasks WHERE seq=?", (task.seq,))
        self.drop_lease(task)

    def keep_lease(self, task: Task, lease_id: str, worker_id: str) -> None:
        leased = self._leased_tasks()
        row = self._db.execute(
            "INSERT OR REPLACE INTO task_leases SELECT seq, ?, ? FROM tasks WHERE seq=?",
            (lease_id, worker_id, task.seq),
        )
        if row.rowcount:
            leased.add(task.seq)
            self._leased_changed = True

    def drop_lease(self, task: Task) -> None:
        leased = self._leased_tasks()
        if task.seq in leased:
            leased.remove(task.seq)
            self._leased_changed = True
            self._db.execute("DELETE FROM task_leases WHERE seq=?", (task.seq,))

    def _leased_tasks(self) -> set[int]:
        if self._leased is None:
            self._leased = {seq for seq, _, _ in self.leases()}
        return self._leased

    def leases(self) -> Sequence[tuple[int, str, str]]:
        return self._db.execute("SELECT seq, lease, worker FROM task_leases ORDER BY seq").fetchall()

    def add_timer(self, timer: Timer) -> None:
        self._db.execute(
            "INSERT INTO timers VALUES (?, ?, ?, ?, ?, ?)",
            (self._next_seq(), timer.due, timer.kind.value, timer.target, timer.execution_id, timer.event),
        )
        if self._next_due_known and (self._next_due is None or timer.due < self._next_due):
            self._next_due = timer.due

    def due_timers(self, now: int, limit: int) -> Sequence[Timer]:
        rows = self._db.execute(
            "SELECT due, kind, target, execution_id, event, seq FROM timers WHERE due<=? ORDER BY due, seq LIMIT ?",
            (now, limit),
        )
        return [Timer(due, TimerKind(kind), *rest) for due, kind, *rest in rows]

    def drop_timer(self, timer: Timer) -> None:
        self._db.execute("DELETE FROM timers WHERE seq=?", (timer.seq,))
        self._next_due_known = False

    def next_due(self) -> int | None:
        if not self._next_due_known:
            (self._next_due,) = self._db.execute("SELECT min(due) FROM timers").fetchone()
            self._next_due_known = True
        return self._next_due

    # -- entities --------------------------------------------------------------------------------------------------

    def put_entity(self, entity: Entity) -> Entity:
        lock = entity.lock
        self._db.execute(
            "INSERT OR REPLACE INTO entities VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                entity.entity_id,
                entity.revision,
                entity.state,
                entity.modified_at,
                None if lock is None else lock.critical_section_id,
                None if lock is None else lock.instance_id,
                None if lock is None else lock.execution_id,
            ),
        )
        return entity._replace(stored=True)

    def delete_entity(self, entity_id: str) -> None:
        self._db.execute("DELETE FROM entities WHERE entity_id=?", (entity_id,))

    def add_operation(self, entity_id: str, event: bytes, execution_id: str | None) -> None:
        self._db.execute(
            "INSERT INTO operations VALUES (?, ?, ?, ?)", (self._next_seq(), entity_id, execution_id, event)
        )

    def drop_operations(self, entity_id: str, seqs: Iterable[int]) -> None:
        self._db.executemany("DELETE FROM operations WHERE seq=?", [(seq,) for seq in seqs])

    def first_operation(self, entity_id: str) -> int | None:
        row = self._db.execute("SELECT min(seq) FROM operations WHERE entity_id=?", (entity_id,)).fetchone()
        first: int | None = row[0]
        return first

    def waiting_entities(self) -> Iterable[str]:
        rows = self._db.execute("SELECT entity_id, min(seq) FROM operations GROUP BY entity_id ORDER BY 2")
        return [row[0] for row in rows]

    def add_lock_request(self, request: LockRequest) -> None:
        stored = request._replace(seq=self._next_seq())
        lock = stored.lock
        self._db.execute(
            "INSERT INTO lock_requests VALUES (?, ?, ?, ?, ?)",
            (
                stored.seq,
                lock.critical_section_id,
                lock.instance_id,
                lock.execution_id,
                json.dumps(stored.entity_ids),
            ),
        )
        if self._requests is not None:
            self._requests.append(stored)

    def lock_requests(self) -> Sequence[LockRequest]:
        if self._requests is None:
            self._requests = list(super().lock_requests())
        return list(self._requests)

    def drop_lock_request(self, seq: int) -> None:
        self._db.execute("DELETE FROM lock_requests WHERE seq=?", (seq,))
        self._requests = [each for each in self.lock_requests() if each.seq != seq]

    def locked_entities(self, execution_id: str | None = None) -> Sequence[Entity]:
        if execution_id is None:
            rows = self._db.execute(f"SELECT {ENTITY_COLUMNS} FROM entities WHERE lock_execution IS NOT NULL")
        else:
            rows = self._db.execute(f"SELECT {ENTITY_COLUMNS} FROM entities WHERE lock_execution=?", (execution_id,))
        return [to_entity(row) for row in rows]

    def end_execution(self, execution_id: str, drop_tasks: bool) -> bool:
        if self._db.execute("DELETE FROM timers WHERE execution_id=?", (execution_id,)).rowcount:
            self._next_due_known = False
        if drop_tasks:
            self._tasks.clear()
            if self._leased_tasks():
                self._leased, self._leased_changed = None, True
                self._db.execute(
                    "DELETE FROM task_leases WHERE seq IN (SELECT seq FROM tasks WHERE execution_id=?)", (execution_id,)
                )
            self._db.execute("DELETE FROM tasks WHERE execution_id=?", (execution_id,))
        mine = [each.seq for each in self.lock_requests() if each.lock.execution_id == execution_id]
        for seq in mine:
            self.drop_lock_request(seq)
        return bool(mine)


def describe_error(path: Path | None, error: sqlite3.DatabaseError) -> str:
    """Say what is wrong with a file, and what to do, after an error of SQLite."""
    if "not a database" in str(error):
        return f"{path} is not a database; give the engine a file of its own, or one that does not exist yet"
    if "locked" in str(error):
        return f"{path} is in use by another program: {error}"
    if isinstance(error, DISK_ERRORS):
        return f"{path} cannot be used: {error}"
    return f"{path} is damaged ({error}); start from a backup, or save what can be read with `sqlite3 {path} .recover`"


def _rarely_changed(instance: Instance) -> tuple[object, ...]:
    """What an ordinary turn leaves as it is, with `_UPDATE_AFTER_TURN`.

    SQLite rewrites the index entries of each column that a statement names, even if the value stays.
    """
    return (
        instance.execution_id,
        instance.status,
        instance.completed_at,
        instance.scheduled_at,
        instance.rewinding,
        instance.parent,
    )
