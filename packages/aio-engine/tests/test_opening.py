"""Opening a database as an engine: all of it, or nothing stays open or locked."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.opening import open_kernel
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.engine.store import StoreError


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], list[SqliteStore]]:
    """Has the kernel fail while it loads what a store holds; returns the stores that it was given."""

    def fail_with(error: Exception) -> list[SqliteStore]:
        stores: list[SqliteStore] = []

        def tasks(store: SqliteStore) -> NoReturn:
            stores.append(store)
            raise error

        monkeypatch.setattr(SqliteStore, "tasks", tasks)
        return stores

    return fail_with


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (sqlite3.DatabaseError("database disk image is malformed"), StoreError, "is damaged .*start from a backup"),
        (sqlite3.OperationalError("disk I/O error"), StoreError, "cannot be used: disk I/O error"),
        (RuntimeError("a defect"), RuntimeError, "a defect"),
    ],
)
@pytest.mark.parametrize("in_file", [True, False])
def test_a_kernel_that_fails_to_load_closes_the_store_and_releases_the_lock(
    tmp_path: Path,
    failing: Callable[[Exception], list[SqliteStore]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    expected: type[Exception],
    message: str,
    in_file: bool,
) -> None:
    path = tmp_path / "engine.db" if in_file else None
    stores = failing(error)

    with pytest.raises(expected, match=message):
        Engine(path).start()

    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        stores[0].meta("time")
    monkeypatch.undo()
    with Engine(path) as engine:
        assert engine.management().statistics().instances == {}


def test_a_folder_is_refused_and_no_file_is_left_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(StoreError, match="folder is a folder; name a file in it"):
        open_kernel(folder)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"turn_lease": 0}, "turn_lease=0 is not a positive number of seconds"),
        ({"activity_lease": -1.5}, r"activity_lease=-1\.5 is not a positive number of seconds"),
        ({"reconnect_period": -1}, "reconnect_period=-1 is negative"),
        ({"wait": -1}, "wait=-1 is negative"),
    ],
)
def test_leases_that_would_end_at_once_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(**options)  # type: ignore[arg-type]


def test_a_file_that_is_refused_is_not_locked(tmp_path: Path) -> None:
    path = tmp_path / "engine.db"
    path.write_bytes(b"something else" * 500)
    for _ in range(2):
        with pytest.raises(StoreError, match="is not a database"):
            open_kernel(path)


def test_a_kernel_of_a_file_knows_its_lock(tmp_path: Path) -> None:
    kernel, lock = open_kernel(tmp_path / "engine.db", "os", turn_lease=3.0)
    assert lock is not None
    with pytest.raises(StoreError, match="is in use by another engine of this process"):
        open_kernel(tmp_path / "engine.db")
    assert not kernel.is_forked()
    kernel.stop()
    lock.release()

    kernel, lock = open_kernel(None)
    assert lock is None
    kernel.stop()
