"""The store: what is committed is there after a restart, what is not leaves no trace, and odd files are refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from durabletask_aio.engine import schema, sqlite
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.engine.state import (
    Changes,
    Entity,
    EventKind,
    InboxEvent,
    Instance,
    Lock,
    LockRequest,
    Parent,
    Task,
    Timer,
    TimerKind,
)
from durabletask_aio.engine.store import InstanceFilter, RolledBackError, StoreError
from durabletask_aio.engine.transitions import COMPLETED, RUNNING


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def instance(instance_id: str = "x", **fields: Any) -> Instance:
    return Instance(0, instance_id, f"e-{instance_id}", "turn", "program", None, RUNNING, 10, 10, 10)._replace(**fields)


def apply(store: SqliteStore, changes: Changes) -> Instance:
    store.begin()
    stored = store.apply(changes)
    store.commit()
    return stored


def inbox(*events: bytes) -> list[InboxEvent]:
    return [InboxEvent(0, event, EventKind.OTHER, "e-x") for event in events]


def everything(store: SqliteStore) -> dict[str, list[Any]]:
    """All rows of all tables, but for what the store keeps for itself."""
    tables = [row[0] for row in store._db.execute("SELECT name FROM sqlite_schema WHERE type='table' ORDER BY name")]
    return {table: store._db.execute(f"SELECT * FROM {table}").fetchall() for table in tables if table != "meta"}


FULL = instance(
    version="2",
    turn_time=11,
    ahead=1,
    scheduled_at=12,
    completed_at=13,
    custom_status='"half"',
    tags={"a": "1", "b": "2"},
    parent=Parent("p", "pe", 7),
    event_count=3,
    rewinding=True,
)


class TestInstances:
    def test_all_of_an_instance_is_there_after_a_restart(self, path: Path) -> None:
        store = SqliteStore(path)
        stored = apply(store, Changes(FULL, history=b"one", inbox=inbox(b"a", b"b"), payloads={"input": '"in"'}))
        apply(store, Changes(stored, history=b"two", payloads={"failure": b"f"}))
        waiting = store.inbox(stored)
        store.close()

        store = SqliteStore(path)

        assert store.instance("x") == stored
        assert stored._replace(key=0) == FULL
        assert store.history(stored) == [b"one", b"two"]
        assert store.inbox(stored) == waiting
        assert [each.event for each in waiting] == [b"a", b"b"]
        assert store.payloads(stored) == {"input": '"in"', "failure": b"f"}
        assert [each.instance_id for each in store.waiting_instances()] == ["x"]
        store.close()

    @pytest.mark.parametrize(
        "changed",
        [
            {"turn_id": "other", "status": COMPLETED, "updated_at": 99, "turn_time": 99, "custom_status": '"c"'},
            {"event_count": 99},
            {"execution_id": "other", "version": "9", "tags": {"c": "3"}, "created_at": 99, "ahead": 9},
            {"completed_at": None},
            {"scheduled_at": None},
            {"rewinding": False},
            {"parent": Parent("p", "", 7, True)},
            {"parent": Parent("p", "pe", 0, True)},
        ],
        ids=lambda changed: next(iter(changed)),
    )
    def test_a_change_is_written(self, path: Path, changed: dict[str, Any]) -> None:
        store = SqliteStore(path)
        stored = apply(store, Changes(FULL))
        expected = apply(store, Changes(stored._replace(**changed)))
        store.close()

        store = SqliteStore(path)

        assert store.instance("x") == expected == stored._replace(**changed)
        store.close()

    def test_what_is_consumed_is_gone_and_the_rest_is_not(self, store: SqliteStore) -> None:
        stored = apply(store, Changes(instance(), inbox=inbox(b"a", b"b", b"c")))
        second = store.inbox(stored)[1].seq

        apply(store, Changes(stored, consumed=second, inbox=inbox(b"d")))

        assert [each.event for each in store.inbox(stored)] == [b"c", b"d"]
        assert store._db.execute("SELECT event FROM inbox ORDER BY seq").fetchall() == [(b"c",), (b"d",)]

    def test_a_history_that_is_replaced_begins_at_its_beginning(self, store: SqliteStore) -> None:
        stored = apply(store, Changes(instance(), history=b"one"))
        apply(store, Changes(stored, history=b"two"))

        apply(store, Changes(stored, clear_history=True, history=b"new"))

        assert store.history(stored) == [b"new"]
        assert store._db.execute("SELECT events FROM history").fetchall() == [(b"new",)]

    def test_a_history_on_its_way_to_a_worker_does_not_change(self, store: SqliteStore) -> None:
        stored = apply(store, Changes(instance(), history=b"one"))
        chunks = store.history(stored)
        count = len(chunks)

        apply(store, Changes(stored, history=b"two"))
        apply(store, Changes(stored, clear_history=True, history=b"new"))

        assert list(chunks)[:count] == [b"one"]

    def test_the_histories_of_neighbours_do_not_mix(self, store: SqliteStore) -> None:
        stored = [apply(store, Changes(instance(key), history=key.encode())) for key in "abc"]

        store.begin()
        store.delete(stored[1])
        store.commit()

        assert [store.history(stored[number]) for number in (0, 2)] == [[b"a"], [b"c"]]
        assert store.instance("b") is None

    def test_nothing_is_left_of_what_is_deleted(self, store: SqliteStore) -> None:
        before = everything(store)
        stored = apply(store, Changes(FULL, history=b"one", inbox=inbox(b"a"), payloads={"input": '"in"'}))

        store.begin()
        store.delete(stored)
        store.commit()

        assert everything(store) == before

    def test_memory_is_bounded_and_what_was_dropped_from_it_is_read_again(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite, "_MAX_CACHED_INSTANCES", 10)
        stored = [apply(store, Changes(instance(str(number)), history=b"one")) for number in range(25)]

        assert len(store._cache) <= 11
        for each in stored:
            apply(store, Changes(each, history=b"two"))
        assert all(store.history(each) == [b"one", b"two"] for each in stored)
        assert store._cached_bytes == sum(each.size for each in store._cache.values())


class TestTransactions:
    def change_everything(self, store: SqliteStore, stored: Instance) -> None:
        """Write into every table."""
        store.begin()
        store.apply(Changes(stored._replace(status=COMPLETED), history=b"lost", drop_inbox=True, inbox=inbox(b"lost")))
        store.apply(Changes(instance("new"), history=b"lost", inbox=inbox(b"lost")))
        store.add_task(Task(0, "n", "x", "e-x", 1, "work", None, b""))
        store.add_timer(Timer(1, TimerKind.TIMER, "x", "e-x", b"lost"))
        store.put_entity(Entity("@e@a", "r", "1", 1, Lock("s", "x", "e-x")))
        store.add_operation("@e@a", b"lost", None)
        store.add_lock_request(LockRequest(0, Lock("s", "x", "e-x"), ("@e@a",)))

    @pytest.fixture
    def stored(self, store: SqliteStore) -> Instance:
        stored = apply(store, Changes(instance(), history=b"kept", inbox=inbox(b"kept")))
        # All that can be in memory is.
        store.history(stored)
        store.inbox(stored)
        store.lock_requests()
        store.next_due()
        return stored

    def check_nothing_has_changed(self, store: SqliteStore, stored: Instance, before: Any) -> None:
        assert everything(store) == before
        assert store.instance("x") == stored
        assert store.history(stored) == [b"kept"]
        assert [each.event for each in store.inbox(stored)] == [b"kept"]
        assert store.instance("new") is None
        assert store.lock_requests() == []
        assert store.next_due() is None

    def test_what_is_rolled_back_leaves_no_trace(self, store: SqliteStore, stored: Instance) -> None:
        before = everything(store)
        self.change_everything(store, stored)

        store.rollback()

        self.check_nothing_has_changed(store, stored, before)

    def test_the_end_of_the_process_rolls_back(self, path: Path) -> None:
        store = SqliteStore(path)
        stored = apply(store, Changes(instance(), history=b"kept", inbox=inbox(b"kept")))
        before = everything(store)
        self.change_everything(store, stored)
        store._db.close()

        store = SqliteStore(path)

        self.check_nothing_has_changed(store, stored, before)
        store.close()

    @pytest.fixture
    def limited(self, store: SqliteStore, stored: Instance) -> SqliteStore:
        """The store on a disk that is nearly full."""
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count={pages + 4}")
        return store

    def test_a_commit_after_a_full_disk_fails_and_nothing_is_in_the_file(
        self, limited: SqliteStore, stored: Instance
    ) -> None:
        """SQLite rolls back the transaction by itself; a `COMMIT` would then succeed with what came after that."""
        before = everything(limited)
        self.change_everything(limited, stored)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            limited.apply(Changes(instance("big"), payloads={"input": "x" * 1_000_000}))
        assert not limited.in_transaction

        with pytest.raises(RolledBackError):
            limited.commit()

        self.check_nothing_has_changed(limited, stored, before)

    def test_it_can_be_used_after_that(self, limited: SqliteStore, stored: Instance) -> None:
        limited.begin()
        with pytest.raises(sqlite3.OperationalError):
            limited.apply(Changes(stored, payloads={"input": "x" * 1_000_000}))
        limited.rollback()

        apply(limited, Changes(stored, history=b"more"))

        assert limited.history(stored) == [b"kept", b"more"]

    def test_a_file_that_another_program_locks_cannot_be_written_and_says_so(
        self, path: Path, store: SqliteStore
    ) -> None:
        store._db.execute("PRAGMA busy_timeout=10")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(RolledBackError, match="locked"):
            store.begin()

        other.execute("ROLLBACK")
        other.close()
        apply(store, Changes(instance()))


class TestWork:
    def test_tasks_timers_and_operations_are_there_after_a_restart(self, path: Path) -> None:
        store = SqliteStore(path)
        store.begin()
        task = store.add_task(Task(0, "n", "x", "e", 1, "work", "2", b"request"))
        store.add_timer(Timer(50, TimerKind.SIGNAL, "@e@a", event=b"event"))
        store.put_entity(Entity("@e@a", "r", "1", 1, Lock("s", "x", "e")))
        store.add_operation("@e@a", b"op", "e")
        store.add_lock_request(LockRequest(0, Lock("t", "y", "f"), ("@e@a", "@e@b")))
        store.commit()
        store.close()

        store = SqliteStore(path)

        assert list(store.tasks()) == [task] == [store.task(task.seq)]
        (timer,) = store.due_timers(50, 10)
        assert timer._replace(seq=0) == Timer(50, TimerKind.SIGNAL, "@e@a", event=b"event")
        assert store.due_timers(49, 10) == []
        assert store.next_due() == 50
        assert store.entity("@e@a") == Entity("@e@a", "r", "1", 1, Lock("s", "x", "e"))
        assert store.locked_entities("e") == [store.entity("@e@a")]
        assert [(each.event, each.execution_id) for each in store.operations("@e@a")] == [(b"op", "e")]
        (request,) = store.lock_requests()
        assert (request.lock, request.entity_ids) == (Lock("t", "y", "f"), ("@e@a", "@e@b"))
        assert list(store.waiting_entities()) == ["@e@a"]
        store.close()

    def test_the_end_of_an_execution_takes_what_belongs_to_it_and_nothing_else(self, store: SqliteStore) -> None:
        store.begin()
        for execution in ("e", "f"):
            store.add_task(Task(0, "n", "x", execution, 1, "work", None, b""))
            store.add_timer(Timer(50, TimerKind.TIMER, "x", execution, b"event"))
            store.add_lock_request(LockRequest(0, Lock("s", "x", execution), ("@e@a",)))

        assert store.end_execution("e", False)
        assert len(list(store.tasks())) == 2
        assert not store.end_execution("e", True)
        store.commit()

        assert [each.execution_id for each in store.tasks()] == ["f"]
        assert [each.execution_id for each in store.due_timers(50, 10)] == ["f"]
        assert [each.lock.execution_id for each in store.lock_requests()] == ["f"]

    def test_the_next_timer_is_known_without_asking_and_right(self, store: SqliteStore) -> None:
        assert store.next_due() is None
        store.begin()
        for due in (30, 10, 20):
            store.add_timer(Timer(due, TimerKind.TIMER, "x", "e", b""))
            assert store.next_due() == min(row[0] for row in store._db.execute("SELECT due FROM timers"))
        for timer in store.due_timers(100, 10):
            assert store.next_due() == timer.due
            store.drop_timer(timer)
        store.commit()

        assert store.next_due() is None

    def test_after_a_restart_numbers_are_after_all_that_is_in_the_file(self, path: Path) -> None:
        store = SqliteStore(path)
        store.begin()
        before = store.add_task(Task(0, "n", "x", "e", 1, "work", None, b""))
        store.commit()
        store._db.close()  # as if the process had been killed

        store = SqliteStore(path)
        store.begin()

        assert store.add_task(before).seq > before.seq
        store.rollback()
        store.close()

    def test_numbers_that_a_power_cut_has_undone_are_not_used_again(self, path: Path) -> None:
        """The answer to a turn says how far its inbox went, and must not count for what came instead."""
        SqliteStore(path).close()
        on_the_disk = path.read_bytes()
        numbers: list[int] = []
        for _ in range(2):
            path.write_bytes(on_the_disk)
            store = SqliteStore(path)
            store.begin()
            numbers.append(store.add_task(Task(0, "n", "x", "e", 1, "work", None, b"")).seq)
            store.commit()
            store.close()

        assert numbers[0] != numbers[1]

    def test_after_an_orderly_end_no_number_is_used_again(self, path: Path) -> None:
        numbers: list[int] = []
        for _ in range(3):
            store = SqliteStore(path)
            store.begin()
            task = store.add_task(Task(0, "n", "x", "e", 1, "work", None, b""))
            store.drop_task(task)
            store.commit()
            store.close()
            numbers.append(task.seq)

        assert numbers == sorted(set(numbers))


class TestQueries:
    @pytest.fixture
    def filled(self, store: SqliteStore) -> SqliteStore:
        for number in range(10):
            apply(
                store,
                Changes(
                    instance(
                        f"order-{number}" if number % 2 else f"%other_{number}",
                        created_at=number // 2,
                        status=COMPLETED if number < 5 else RUNNING,
                        completed_at=100 - number if number < 5 else None,
                        tags={"n": str(number % 3)},
                        name="one" if number < 7 else "two",
                        parent=Parent("order-1", "e", number) if number in (4, 6) else None,
                    )
                ),
            )
        return store

    @pytest.mark.parametrize(
        ("wanted", "count"),
        [
            (InstanceFilter(), 10),
            (InstanceFilter(id_prefix="order-"), 5),
            (InstanceFilter(id_prefix="%"), 5),
            (InstanceFilter(id_prefix="_"), 0),
            (InstanceFilter(id_contains="r_"), 5),
            (InstanceFilter(statuses=frozenset({COMPLETED})), 5),
            (InstanceFilter(names=frozenset({"two"})), 3),
            (InstanceFilter(tags={"n": "0"}), 4),
            (InstanceFilter(tags={"n": "0", "m": "0"}), 0),
            (InstanceFilter(created_from=1, created_to=3), 4),
            (InstanceFilter(parent_id="order-1"), 2),
            (InstanceFilter(only_roots=True), 8),
            (InstanceFilter(id_prefix="order-", statuses=frozenset({RUNNING})), 3),
        ],
    )
    def test_filters(self, filled: SqliteStore, wanted: InstanceFilter, count: int) -> None:
        assert filled.count(wanted) == len(filled.query(wanted, 100).instances) == count

    @pytest.mark.parametrize("newest_first", [False, True])
    def test_pages_have_everything_once_in_order(self, filled: SqliteStore, newest_first: bool) -> None:
        found: list[Instance] = []
        after, pages = None, 0
        while pages == 0 or after is not None:
            page = filled.query(InstanceFilter(), 3, after, newest_first=newest_first)
            found += page.instances
            after, pages = page.after, pages + 1

        order = [(each.created_at, each.key) for each in found]
        assert order == sorted(order, reverse=newest_first)
        assert (len(found), len(set(found_ids(found))), pages) == (10, 10, 4)

    def test_those_that_have_ended_in_the_order_of_their_end(self, filled: SqliteStore) -> None:
        first = filled.completed(InstanceFilter(), 2)
        rest = filled.completed(InstanceFilter(), 10, (first[-1].completed_at or 0, first[-1].instance_id))

        assert [each.completed_at for each in [*first, *rest]] == [96, 97, 98, 99, 100]

    def test_a_reader_sees_what_is_committed(self, store: SqliteStore) -> None:
        reader = store.reader()
        store.begin()
        store.apply(Changes(instance()))
        assert reader.instance("x") is None

        store.commit()

        assert reader.instance("x") is not None
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("DELETE FROM instances")
        reader.close()


def found_ids(instances: list[Instance]) -> list[str]:
    return [each.instance_id for each in instances]


class TestFiles:
    def test_a_file_of_another_program_is_refused_and_left_as_it_is(self, path: Path) -> None:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE theirs (a)")
        other.close()
        before = path.read_bytes()

        with pytest.raises(StoreError, match="is a database of another program; give the engine a file of its own"):
            SqliteStore(path)

        assert path.read_bytes() == before

    def test_what_is_no_database_is_refused_and_left_as_it_is(self, path: Path) -> None:
        path.write_bytes(b"something else" * 500)

        with pytest.raises(StoreError, match="is not a database"):
            SqliteStore(path)

        assert path.read_bytes() == b"something else" * 500

    def test_a_newer_file_is_refused(self, path: Path) -> None:
        SqliteStore(path).close()
        with sqlite3.connect(path) as newer:
            newer.execute(f"PRAGMA user_version={schema.VERSION + 1}")
        newer.close()

        with pytest.raises(StoreError, match="written by a newer durabletask-aio-engine") as raised:
            SqliteStore(path)

        assert f"schema {schema.VERSION + 1}; this one knows up to {schema.VERSION}" in str(raised.value)

    def test_a_damaged_file_is_refused(self, path: Path) -> None:
        store = SqliteStore(path)
        apply(store, Changes(instance(), payloads={"input": "x" * 100_000}))
        store.close()
        content = bytearray(path.read_bytes())
        content[4096 : 4096 * 8] = b"\xff" * (4096 * 7)
        path.write_bytes(content)

        with pytest.raises(StoreError, match=r"(?s)is damaged .*start from a backup"):
            SqliteStore(path)

    def test_a_file_that_is_refused_is_not_kept_open(self, path: Path) -> None:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE theirs (a)")
        with pytest.raises(StoreError):
            SqliteStore(path)

        with other:
            other.execute("PRAGMA locking_mode=EXCLUSIVE")
            other.execute("INSERT INTO theirs VALUES (1)")
        other.close()

    def test_a_file_that_another_program_locks_is_refused(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        SqliteStore(path).close()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        connect = sqlite3.connect
        monkeypatch.setattr(
            sqlite3, "connect", lambda *arguments, **options: connect(*arguments, **options | {"timeout": 0})
        )

        with pytest.raises(StoreError, match="is in use by another program: database is locked"):
            SqliteStore(path)

        other.execute("ROLLBACK")
        other.close()
        SqliteStore(path).close()

    def test_an_empty_file_becomes_a_database(self, path: Path) -> None:
        path.touch()

        SqliteStore(path).close()

        with sqlite3.connect(path) as database:
            assert database.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
            assert database.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        database.close()

    @pytest.mark.parametrize("version", range(1, schema.VERSION + 1))
    def test_a_file_of_an_older_version_becomes_the_newest(self, path: Path, version: int) -> None:
        old = sqlite3.connect(path)
        old.executescript(
            f"{';'.join(schema.MIGRATIONS[:version])}; PRAGMA application_id={schema.APPLICATION_ID}; "
            f"PRAGMA user_version={version};"
        )
        old.execute("INSERT INTO meta VALUES ('time', 12345)")
        old.commit()
        old.close()

        store = SqliteStore(path)

        assert store.meta("time") == 12345
        new = SqliteStore()
        assert columns(store) == columns(new)
        new.close()
        store.close()

    def test_a_step_that_fails_changes_nothing(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        SqliteStore(path).close()
        broken = (*schema.MIGRATIONS, "CREATE TABLE more (a); CREATE TABLE more (a);")
        with monkeypatch.context() as patch:
            patch.setattr(schema, "MIGRATIONS", broken)
            patch.setattr(schema, "VERSION", len(broken))
            with pytest.raises(StoreError):
                SqliteStore(path)

        store = SqliteStore(path)

        new = SqliteStore()
        assert columns(store) == columns(new)
        new.close()
        store.close()

    def test_a_backup_is_a_database_of_its_own(self, path: Path, tmp_path: Path, store: SqliteStore) -> None:
        apply(store, Changes(instance(), history=b"one"))
        store.backup(tmp_path / "copy.db")
        apply(store, Changes(instance("later")))

        copy = SqliteStore(tmp_path / "copy.db")

        found = copy.instance("x")
        assert found is not None
        assert copy.history(found) == [b"one"]
        assert copy.instance("later") is None
        copy.close()

    def test_what_is_kept_survives_and_the_log_is_gone(self, path: Path) -> None:
        store = SqliteStore(path)
        store.set_meta("time", 5)
        store.close()

        assert not path.with_name("engine.db-wal").exists()
        store = SqliteStore(path)
        assert store.meta("time") == 5
        assert store.meta("nothing") is None
        store.close()

    @pytest.mark.parametrize(("durability", "synchronous"), [("fsync", 2), ("os", 1)])
    def test_durability(self, path: Path, durability: str, synchronous: int) -> None:
        store = SqliteStore(path, durability)

        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._db.execute("PRAGMA synchronous").fetchone() == (synchronous,)
        assert store.durability == durability
        store.close()


def columns(store: SqliteStore) -> dict[str, list[Any]]:
    """The columns of all tables and the definitions of all indexes."""
    tables = [row[0] for row in store._db.execute("SELECT name FROM sqlite_schema WHERE type='table' ORDER BY name")]
    found = {table: store._db.execute(f"PRAGMA table_info({table})").fetchall() for table in tables}
    found["indexes"] = store._db.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type='index' AND sql IS NOT NULL ORDER BY name"
    ).fetchall()
    return found
