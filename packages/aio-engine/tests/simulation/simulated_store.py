"""The engine's store on a connection that outlives it, with faults at any statement and at any commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from durabletask_aio.engine import sqlite
from durabletask_aio.engine.sqlite import SqliteStore


class Crash(BaseException):
    """The process of the engine ends here."""


class FaultyConnection(sqlite3.Connection):
    """A connection on which a statement of a transaction can fail.

    Attributes:
        fails_in: the number of statements until one fails, `None` for never.
        rolls_back: whether SQLite then rolls back the transaction by itself, as it does when the disk is full.
    """

    fails_in: int | None = None
    rolls_back = True

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        if self.fails_in is not None and self.in_transaction and arguments != ("ROLLBACK",):
            self.fails_in -= 1
            if self.fails_in < 0:
                self.fails_in = None
                if self.rolls_back:
                    super().execute("ROLLBACK")
                raise sqlite3.OperationalError("database or disk is full")
        return super().execute(*arguments)


def connect() -> FaultyConnection:
    """Open the memory in which the database of a simulation lies."""
    return sqlite3.connect(
        ":memory:", isolation_level=None, check_same_thread=False, cached_statements=256, factory=FaultyConnection
    )


class SimulatedStore(SqliteStore):
    """A store of one life of the engine.

    Attributes:
        crashes_at: the commit at which the process ends: `"before"` or `"after"`, `None` for none.
        is_crashed: whether it has.
    """

    def __init__(
        self, connection: FaultyConnection, on_begin: Callable[[], None], on_commit: Callable[[], None], gap: int
    ) -> None:
        self.connection = connection
        self.crashes_at: str | None = None
        self.is_crashed = False
        self._on_begin = on_begin
        self._on_commit = on_commit
        with mock.patch.object(sqlite, "connect", return_value=connection):
            super().__init__()
        # What a file has at random: numbers that a power cut has undone are not used again.
        self._seq += gap
        # For the engine it is a file, which has another life of it after this one.
        self.path = Path("simulated.db")

    def begin(self) -> None:
        if self.is_crashed:
            raise Crash
        super().begin()
        self._on_begin()

    def commit(self) -> None:
        if self.crashes_at == "before":
            self.crash()
            raise Crash
        super().commit()
        self._on_commit()
        if self.crashes_at == "after":
            self.crash()
            raise Crash

    def crash(self) -> None:
        """End the process: what is not committed is gone."""
        self.is_crashed = True
        self.connection.fails_in = None
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def rollback(self) -> None:
        if not self.is_crashed:
            super().rollback()
