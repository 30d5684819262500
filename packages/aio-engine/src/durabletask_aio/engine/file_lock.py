"""A lock on a database file: one engine at a time, in one process.

The lock is an advisory lock on a file of its own, next to the database.  SQLite's own locks are no substitute: they are
gone as soon as the process opens and closes the database by any other means.  The file is never deleted, since another
process may be about to lock it.  The operating system releases the lock when the process ends, however it ends.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from durabletask_aio.engine.store import FileInUseError, StoreError

_POLL = 0.05
"""Seconds between two attempts to get a lock."""

_open: weakref.WeakSet[FileLock] = weakref.WeakSet()


if sys.platform == "win32":
    import msvcrt

    _OFFSET = 1 << 30
    """The byte that is locked: Windows' locks are mandatory, and the process id at the start is to be readable."""

    def _try_lock(descriptor: int) -> None:
        os.lseek(descriptor, _OFFSET, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FileLock:
    """The lock on one database.

    Attributes:
        path: the lock file.
        is_forked: whether this process is a fork of the one that has the lock.
    """

    def __init__(self, database: str | os.PathLike[str]) -> None:
        """Name the database; nothing is opened yet."""
        self.database = Path(os.path.realpath(database))
        self.path = self.database.with_name(self.database.name + "-lock")
        self.is_forked = False
        self._descriptor: int | None = None

    def acquire(self, wait: float = 0.0, sleep: Callable[[float], None] = time.sleep) -> None:
        """Get the lock.

        Args:
            wait: seconds for which to try.
            sleep: waits between two attempts.

        Raises:
            FileInUseError: if another engine has it; the message has the id of its process.
            StoreError: if the lock file cannot be created.
        """
        end = time.monotonic() + wait
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            raise StoreError(f"cannot create {self.path}: {error.strerror}") from error
        while True:
            try:
                _try_lock(descriptor)
                break
            except OSError:
                if time.monotonic() >= end:
                    message = self._describe(os.pread(descriptor, 32, 0) if hasattr(os, "pread") else b"")
                    os.close(descriptor)
                    raise FileInUseError(message) from None
            sleep(_POLL)
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, str(os.getpid()).encode())
        self._descriptor = descriptor
        _open.add(self)

    def _describe(self, content: bytes) -> str:
        advice = "stop it, give this engine another file, or wait for it: Engine(..., wait=SECONDS), serve --wait"
        if not content.isdigit():
            return f"{self.database} is in use by another engine; {advice}"
        pid = int(content)
        if pid == os.getpid():
            return f"{self.database} is in use by another engine of this process; {advice}"
        if _is_alive(pid):
            return f"{self.database} is in use by the engine of process {pid}; {advice}"
        return (
            f"{self.database} is in use: process {pid}, whose engine it was, has ended, but a process that was forked "
            "from it still holds the lock; end that process"
        )

    def release(self) -> None:
        """Give the lock back; does nothing without one."""
        descriptor, self._descriptor = self._descriptor, None
        _open.discard(self)
        if descriptor is not None:
            os.close(descriptor)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _after_fork() -> None:
    """Close the inherited descriptors, or the lock would outlive the process that has it."""
    for lock in list(_open):
        lock.is_forked = True
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
