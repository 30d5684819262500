"""`InstanceThreads`: each live instance has one thread, on which all of its turns run and on which it is closed.

An asyncio program has one thread, and libraries rely on it: they expect to find the values of a `threading.local()`
again after an `await` (`tenacity` keeps its count of attempts there).  In upstream's pool, each turn of a live instance
could be on another thread and find no value, while a full replay, which runs on one thread, would find all of them: the
recorded history would be one that no replay produces.  `finally` blocks use the same values, so an instance is closed
on its thread as well.

It also orders the turns of an instance.  An engine that has a response may send the next turn before the thread that
delivered the response has stored the session: on the same thread, the next turn begins after that and finds it.

Instances share threads, as tasks share the thread of an asyncio program.  A thread for each instance would be thousands
of threads, and a single one would wait for every delivery.  Rejected: switching threads inside of a turn, for workflow
code alone; that is two switches in each turn, and there are none now.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Collection
from typing import TYPE_CHECKING

from durabletask_aio.worker.daemon_threads import DaemonThreads

if TYPE_CHECKING:
    from durabletask_aio.worker.sessions import Session


class InstanceThreads:
    """The threads of turns.

    Instances that may be kept alive have lazily created single-thread executors, as many as upstream's pool has
    threads; an instance maps to one of them by the crc32 of its id.  All other turns share a pool of as many threads.
    They are daemon threads, because the code of a workflow may never return.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._executors: dict[int, DaemonThreads] = {}
        self._left: set[int] = set()
        self._lock = threading.Lock()
        self._is_open = False

    def open(self) -> None:
        """Allow threads to be used; called when the worker starts."""
        with self._lock:
            self._is_open = True

    def thread_of(self, instance_id: str) -> DaemonThreads:
        """Return the executor of an instance, the same one from `open` to `close`.

        Raises:
            RuntimeError: If the worker is not running.
        """
        # By the id alone, so that an evicted instance comes back to its thread.
        index = zlib.crc32(instance_id.encode()) % self._number
        return self._executor(index, 1, f"durabletask-aio-turns-{index}")

    def any_thread(self) -> DaemonThreads:
        """Return the pool of the turns that need no thread of their own.

        Raises:
            RuntimeError: If the worker is not running.
        """
        return self._executor(-1, self._number, "durabletask-aio-replays")

    def _executor(self, index: int, number: int, name: str) -> DaemonThreads:
        with self._lock:
            if not self._is_open:
                raise RuntimeError("the worker is not running")
            executor = self._executors.get(index)
            if executor is None:
                executor = self._executors[index] = DaemonThreads(number, name)
            return executor

    def dispose(self, session: Session) -> None:
        """Close an instance on its thread, after the turns that are queued there."""
        try:
            self.thread_of(session.instance_id).submit(session.dispose)
        except RuntimeError:  # The worker has stopped, or never ran; this may be the last turn on that thread.
            session.dispose()

    def leave(self, threads: Collection[int]) -> None:
        """Do not wait for these threads in `close`."""
        self._left.update(threads)

    def close(self, *, wait: bool) -> None:
        """End the threads, after their turns if `wait`; called when the worker has stopped."""
        with self._lock:
            self._is_open = False
            executors, self._executors = self._executors, {}
        for executor in executors.values():
            executor.shutdown(wait=wait, leave=self._left)
        self._left.clear()
