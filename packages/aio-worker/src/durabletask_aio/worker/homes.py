"""The threads on which live instances are at home: each instance has one, and all of its turns run there.

An asyncio program has one thread, and libraries rely on it: what they keep in a ``threading.local()`` they expect to
find again after an ``await`` (``tenacity`` keeps its count of attempts so).  In upstream's pool each turn of a live
instance could be on another thread, which would have nothing there, while a full replay, all on one thread, would
have it all: the recorded history would be one that no replay comes to.

It also keeps the turns of an instance apart.  An engine that has a response may send the next turn before the thread
that delivered it has put the session back: at home, the next turn begins after that, and finds it.

There it is closed as well, since ``finally`` blocks reach for the same things.

As in an asyncio program, others run on the same thread.  A thread for each instance would be a thousand threads, and
one for all of them would wait for every delivery.  Considered and dropped: to hand over to the home in the middle of a
turn, for workflow code alone; that is two changes of threads for each turn, where this one has none.
"""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from durabletask_aio.worker._upstream import SubmitWorkItem, pb

if TYPE_CHECKING:
    from durabletask_aio.worker.sessions import Session


class Homes:
    """As many threads as upstream's pool has, each started when an instance first comes home to it."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._threads: dict[int, ThreadPoolExecutor] = {}
        self._lock = threading.Lock()
        self._is_open = False

    def open(self) -> None:
        """The worker starts (again)."""
        with self._lock:
            self._is_open = True

    def of(self, instance_id: str) -> ThreadPoolExecutor:
        """The home of that instance, the same one from :meth:`open` to :meth:`close`; else a ``RuntimeError``."""
        # By the id alone, so that an instance that was evicted comes back to where it was.
        place = zlib.crc32(instance_id.encode()) % self._number
        with self._lock:
            if not self._is_open:
                raise RuntimeError("the worker is not running")
            home = self._threads.get(place)
            if home is None:
                home = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"durabletask-aio-turns-{place}")
                self._threads[place] = home
            return home

    def dispose(self, session: Session) -> None:
        """Have an instance closed where it lived, after what is under way there."""
        try:
            self.of(session.instance_id).submit(session.dispose)
        except RuntimeError:  # there are no homes (any more); this may be the last turn in one of them
            session.dispose()

    def close(self, *, wait: bool) -> None:
        """The worker has stopped: give the threads back.  ``wait`` for turns, unless the stop was interrupted."""
        with self._lock:
            self._is_open = False
            homes, self._threads = self._threads, {}
        for home in homes.values():
            home.shutdown(wait=wait)

    def submission(
        self, submit: SubmitWorkItem, may_live_on: Callable[[pb.OrchestratorRequest], bool]
    ) -> SubmitWorkItem:
        """Wrap the way into upstream's queue: turns of instances that ``may_live_on`` are run at home.

        Upstream's limits and bookkeeping hold for them as for all others; all others go to upstream's pool.
        """

        def submit_turn(handler: Any, cancel: Any, request: pb.OrchestratorRequest, stub: Any, token: Any) -> None:
            if not may_live_on(request):
                submit(handler, cancel, request, stub, token)
                return

            async def execute(request: pb.OrchestratorRequest, stub: Any, token: Any) -> None:
                home = self.of(request.instanceId)
                await asyncio.get_running_loop().run_in_executor(home, handler, request, stub, token)

            submit(execute, cancel, request, stub, token)

        return submit_turn
