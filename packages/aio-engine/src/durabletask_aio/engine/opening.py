"""Opens a database as an engine: the lock on its file, the store and the kernel, or none of them."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack

from durabletask_aio.engine.clock import SystemClock
from durabletask_aio.engine.dispatch import RECONNECT_PERIOD, TURN_LEASE
from durabletask_aio.engine.file_lock import FileLock
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.sqlite import SqliteStore, describe_error
from durabletask_aio.engine.store import StoreError


def open_kernel(
    path: str | os.PathLike[str] | None,
    durability: str = "fsync",
    *,
    wait: float = 0.0,
    turn_lease: float = TURN_LEASE,
    activity_lease: float | None = None,
    reconnect_period: float = RECONNECT_PERIOD,
) -> tuple[Kernel, FileLock | None]:
    """Open a database; if that fails, nothing stays open or locked.

    Args:
        path: its file, `None` for one in memory.
        durability: `"fsync"` or `"os"`, for a file.
        wait: seconds for which to wait for an engine that still uses the file.
        turn_lease: seconds, see `Dispatcher`.
        activity_lease: seconds, see `Dispatcher`.
        reconnect_period: seconds, see `Dispatcher`.

    Returns:
        The kernel, which has not been started, and the lock on its file, to be released once the kernel has stopped;
        `None` in memory.

    Raises:
        StoreError: if the file is in use by another engine, damaged, written by a newer version, or not an engine's.
    """
    if path is not None and os.path.isdir(path):
        raise StoreError(f"{os.fspath(path)} is a folder; name a file in it")
    lock = None if path is None else FileLock(path)
    with ExitStack() as undo:
        if lock is not None:
            lock.acquire(wait)
            undo.callback(lock.release)
        store = SqliteStore(path, durability)
        undo.callback(store.discard)
        try:
            kernel = Kernel(
                store,
                SystemClock(Kernel.last_time(store)),
                turn_lease=turn_lease,
                activity_lease=activity_lease,
                reconnect_period=reconnect_period,
            )
        except sqlite3.DatabaseError as error:
            # Large files are not checked as a whole when they are opened, so damage may be found only now.
            raise StoreError(describe_error(store.path, error)) from error
        undo.pop_all()
    if lock is not None:
        kernel.is_forked = lambda: lock.is_forked
    return kernel, lock
