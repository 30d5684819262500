"""`WorkItems`: takes the work items of one worker from the thread that reads the stream to the thread that runs each.

Upstream takes an item through a queue to its event loop, from there through a second queue and an `asyncio` task to a
thread pool, and its outcome back to the loop: a third of a worker's CPU time on short steps.  Here the reader hands an
item to its thread itself:

* **Turns** go to the thread of their instance if it may be kept alive, and to a pool for turns otherwise
  (`instance_threads`); sync activities and batches of entity operations to upstream's pool; async activities to their
  event loop.
* **Limits** are upstream's: of each kind of item, so many run at a time as the worker's concurrency options say, and
  all others wait in the order of their arrival.
* **Ended streams.**  An engine gives what it has sent on a stream to other workers when the stream ends.  Items that
  have not begun by then are abandoned, unless the worker has a lease on them that outlives the stream (`leases`).
* **Stopping.**  A worker that stops executes what it has taken, async activities that have not begun excepted.  With
  an engine of another project, which drops the results of a stream that has ended, the stream ends after that; what it
  brings meanwhile is returned to the engine.  Turns that do not end in time are given back and left behind.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from durabletask_aio.worker import _upstream
from durabletask_aio.worker._upstream import ACTIVITY, ENTITY_BATCH, TURN
from durabletask_aio.worker.activities import HANDLED
from durabletask_aio.worker.leases import ENGINE, lease_of
from durabletask_aio.worker.raw_requests import read_work_item
from durabletask_aio.worker.work_item import WorkItem
from durabletask_aio.worker.work_stream import WorkStream

if TYPE_CHECKING:
    from durabletask_aio.worker.activities import Activities
    from durabletask_aio.worker.daemon_threads import DaemonThreads
    from durabletask_aio.worker.instance_threads import InstanceThreads
    from durabletask_aio.worker.leases import Leases
    from durabletask_aio.worker.turns import Turns


SESSIONS = "durabletask-aio-sessions"
"""Metadata of a stream by which an engine of this project sends less than the whole history of a live instance."""


class WorkQueue:
    """Starts work items of one kind: at most `limit` at a time, the others first in, first out.  Thread-safe.

    Args:
        limit: How many may run at a time.
        start: Starts an item; `done` is called when it has ended.
    """

    def __init__(self, limit: int, start: Callable[[WorkItem], None]) -> None:
        self._limit = limit
        self._start = start
        self._lock = threading.Lock()
        self._running = 0
        self._waiting: deque[WorkItem] = deque()

    def put(self, item: WorkItem) -> None:
        """Start an item, now or when an earlier one has ended."""
        with self._lock:
            if self._running >= self._limit:
                self._waiting.append(item)
                return
            self._running += 1
        self._start(item)

    def done(self) -> None:
        """Start the next item in place of one that has ended."""
        with self._lock:
            if not self._waiting:
                self._running -= 1
                return
            item = self._waiting.popleft()
        self._start(item)

    def take(self, condition: Callable[[WorkItem], bool]) -> list[WorkItem]:
        """Take out and return the waiting items for which `condition` is true."""
        with self._lock:
            taken = [item for item in self._waiting if condition(item)]
            if taken:
                self._waiting = deque(item for item in self._waiting if not condition(item))
        return taken


class WorkItems:
    """The work items of one worker.  Thread-safe.

    Args:
        worker: The worker.
        turns: Executes its turns.
        activities: Executes its activities.
        threads: The threads of its instances.
        leases: Its leases; `None` if it has none because its channel was given to it.
    """

    def __init__(
        self,
        worker: _upstream.Worker,
        turns: Turns,
        activities: Activities,
        threads: InstanceThreads,
        leases: Leases | None,
    ) -> None:
        self._worker = worker
        self._turns = turns
        self._activities = activities
        self._deliveries = activities.deliveries
        self._threads = threads
        self._leases = leases
        self._logger = _upstream.logger_of(worker)
        limits = _upstream.limits_of(worker)
        self._queues = {kind: WorkQueue(limits[kind], self._start) for kind in (TURN, ACTIVITY, ENTITY_BATCH)}
        self._lock = threading.Lock()
        self._unfinished = 0
        self._started_turns: set[WorkItem] = set()
        self._leaves_turns = False
        self._left: list[tuple[WorkItem, Callable[[WorkItem], None]]] = []
        """Turns that are given back when their stream has ended."""
        self._is_shut_down = False
        self._is_left = False
        """Whether the items that have not ended are not waited for."""
        self._when_finished: Callable[[], None] | None = None
        self._draining = threading.Condition()
        self.is_draining = False
        """Whether the worker stops, and waits for the items that it has taken."""
        self._bound_to_stream = 0
        """How many of the items that have been taken have a result that does not outlive the stream."""
        self._parked: list[WorkItem] | None = None
        """The items that came while the worker drains; `None` at other times."""

    # -- lifecycle -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Accept items; called when the worker begins to run."""
        with self._lock:
            self._is_shut_down = self._leaves_turns = self._is_left = False
            self._when_finished = None
        with self._draining:
            self.is_draining = False

    def drain(self) -> None:
        """Wait for the items whose results would be lost with the stream; called before the stream is ended.

        Items that come meanwhile go back to the engine at the end: at once, it would send them again by the stream.
        """
        with self._draining:
            self.is_draining = True
            self._parked = []
            while self._bound_to_stream:
                self._draining.wait()
            parked, self._parked = self._parked, None
        for item in parked or ():
            self._drop_item(item)

    def _is_parked(self, item: WorkItem) -> bool:
        """Count an item whose result does not outlive the stream, or keep it from being executed: the worker drains."""
        if item.outlives_stream:
            return False
        with self._draining:
            if not self.is_draining:
                item.is_bound_to_stream = True
                self._bound_to_stream += 1
                return False
            if self._parked is not None:
                self._parked.append(item)
                return True
        # Between the end of `drain` and that of the stream.
        self._deliveries.run_in_thread(self._drop_item, item)
        return True

    def call_when_finished(self, function: Callable[[], None] | None) -> None:
        """Call a function once, on any thread, when all items have ended after `shut_down`; `None` calls nothing."""
        with self._lock:
            self._when_finished = function
        self._report_if_finished()

    def shut_down(self) -> None:
        """Accept no more items; those that there are will be executed."""
        with self._lock:
            self._is_shut_down = True
        self._report_if_finished()

    def leave_turns(self) -> None:
        """Wait no longer for turns: give back those that run, those that wait, and those that come."""
        with self._lock:
            self._leaves_turns = True
            started = list(self._started_turns)
        for item in self._queues[TURN].take(lambda item: True):
            self._leave(item, self._drop_item)
        for item in started:
            self._leave(item, self._return_item)

    def _leave(self, item: WorkItem, give_back: Callable[[WorkItem], None]) -> None:
        """Give a turn back; if its result does not outlive the stream, when the stream has ended.

        Until then, the engine would send it by this stream again.
        """
        self._unbind(item)
        with self._lock:
            waits = not item.outlives_stream and item.stream is not None and not item.stream.has_ended
            if waits:
                self._left.append((item, give_back))
        if not waits:
            give_back(item)

    def _stream_ended(self, stream: WorkStream) -> None:
        with self._lock:
            left = [each for each in self._left if each[0].stream is stream]
            self._left = [each for each in self._left if each[0].stream is not stream]
        for item, give_back in left:
            self._deliveries.run_in_thread(give_back, item)

    def leave(self) -> None:
        """Wait no longer for any item: the process is about to end."""
        with self._lock:
            self._is_left = True
        self._report_if_finished()

    def _report_if_finished(self) -> None:
        with self._lock:
            if not self._is_shut_down or (self._unfinished and not self._is_left):
                return
            when_finished, self._when_finished = self._when_finished, None
        if when_finished is not None:
            when_finished()

    # -- from the stream to a thread -----------------------------------------------------------------------------

    def stream_metadata(self, answer: Iterable[tuple[str, Any]]) -> list[tuple[str, str]] | None:
        """Return what the worker says when it opens a stream, by the metadata with which the engine answers `Hello`."""
        if self._turns.needs_new_events_only and any(key == ENGINE for key, _ in answer):
            return [(SESSIONS, "1")]
        return None

    def item_reader(self, metadata: Sequence[tuple[str, str]] | None) -> Callable[[bytes], Any] | None:
        """Return what reads the items of a stream that was opened with such metadata; `None` for messages as they are.

        An engine that sends less than the whole history leaves nothing to save.
        """
        return read_work_item if self._turns.needs_new_events_only and not metadata else None

    def make_stream(self, call: Any, submit: Callable[[WorkStream, Any, str], None]) -> WorkStream:
        """Return the stream of work items of a gRPC call; `submit` passes on a message with a work item."""
        worker = self._worker
        return WorkStream(
            call,
            submit,
            _upstream.REQUESTS,
            drop=self._drop,
            ended=self._stream_ended,
            is_stopping=lambda: _upstream.is_stopping(worker),
            timeout=_upstream.silence_timeout_of(worker),
            logger=self._logger,
        )

    def submit(self, item: WorkItem) -> None:
        """Take a work item.

        Raises:
            RuntimeError: If the worker has stopped.
        """
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("Cannot submit new work items after shutdown has been initiated.")
            self._unfinished += 1
        if self._leases is not None and (lease := lease_of(item.token)) is not None:
            if not self._leases.hold(lease):
                # Received after the worker has said that it leaves: the engine has given the item to another one.
                self._deliveries.run_in_thread(self._drop_item, item)
                return
            item.lease = lease
        if not item.token:
            self._turns.foreign_engine.note(item.token)
        if not self._is_parked(item):
            self._queues[item.kind].put(item)

    def _start(self, item: WorkItem) -> None:
        """Start an item, without waiting, on the thread that reads the stream or that has ended another item."""
        if item.kind == TURN:
            with self._lock:
                self._started_turns.add(item)
                is_left = self._leaves_turns
            if is_left:
                self._leave(item, lambda item: self._deliveries.run_in_thread(self._return_item, item))
                return
        try:
            if item.kind == ACTIVITY and self._activities.is_async(item.request.name):
                if item.lease is None or self._leases is None:
                    self._begin(item)
                else:
                    self._leases.call_when_connected(lambda: self._begin(item))
            elif item.kind == TURN:
                self._threads_of(item).call(self._run, item)
            else:
                _upstream.thread_pool_of(self._worker).submit(self._run, item)
        except Exception as error:
            self._abandon_after(error, item)

    def _threads_of(self, item: WorkItem) -> DaemonThreads:
        if self._turns.may_keep(item.request):
            return self._threads.thread_of(item.request.instanceId)
        return self._threads.any_thread()

    def _may_begin(self, item: WorkItem) -> bool:
        """Whether the engine has not given the item to another worker, as far as is known."""
        if item.lease is not None:
            return self._leases is None or not self._leases.is_lost(item.lease)
        return item.stream is None or not item.stream.is_stale

    def _drop(self, stream: WorkStream) -> None:
        """Abandon what came by a stream that has ended and waits in a queue; the engine has given it to others."""
        for queue in self._queues.values():
            for item in queue.take(lambda item: item.stream is stream and item.lease is None):
                self._deliveries.run_in_thread(self._drop_item, item)

    def _drop_item(self, item: WorkItem) -> None:
        self._give_back(item)
        self._count_finished(item)

    # -- on a thread ---------------------------------------------------------------------------------------------

    def _run(self, item: WorkItem) -> None:
        """Execute an item in the thread that it was submitted to."""
        if item.has_ended:  # It was given back while it waited for the thread, or for a step.
            if item.kind == TURN:
                self._turns.paused.discard(item.request)
            return
        try:
            if item.lease is not None and self._leases is not None:
                # While the engine cannot be reached, whether the lease has ended is not known.
                self._leases.wait_until_connected()
            if self._may_begin(item):
                if item.kind == TURN and self._turns.may_keep(item.request):
                    self._turns.paused.allow(item.request)
                item.execute(item.request, item.stub, item.token)
                if item.kind == TURN and self._turns.paused.continue_later(item.request, lambda: self._resume(item)):
                    return
            else:
                if item.kind == TURN:
                    self._turns.paused.discard(item.request)
                self._give_back(item)
        except BaseException as error:
            self._abandon_after(error, item)
        else:
            self._finish(item)

    def _resume(self, item: WorkItem) -> None:
        """Continue a turn that has waited for a step, on its thread."""
        try:
            self._threads.thread_of(item.request.instanceId).call(self._run, item)
        except RuntimeError:  # The worker has stopped, and has given the turn back.
            self._turns.paused.discard(item.request)

    def _begin(self, item: WorkItem) -> None:
        """Start an async activity, on any thread."""
        if self._may_begin(item) and not self._activities.is_stopping:  # The grace period is for those that run.
            self._activities.begin(item.request, item.stub, item.token, partial(self._async_ended, item))
        else:
            self._deliveries.run_in_thread(self._return_item, item)

    def _async_ended(self, item: WorkItem, had_outcome: bool, error: BaseException | None) -> None:
        if error is not None:
            self._deliveries.run_in_thread(self._abandon_after, error, item)
        elif had_outcome:
            if item.release is None:
                item.execute(HANDLED, item.stub, item.token)
            self._finish(item)
        else:
            self._deliveries.run_in_thread(self._return_item, item)

    # -- ends ----------------------------------------------------------------------------------------------------

    def _give_back(self, item: WorkItem) -> None:
        """Return an item to the engine at once; otherwise the engine would notice only later."""
        try:
            item.cancel(item.request, item.stub, item.token)
        except Exception as error:  # The engine may be gone; then there is nothing to return it to.
            self._logger.debug("A work item could not be returned to the engine: %s", error)

    def _return_item(self, item: WorkItem) -> None:
        """End an item that has been started, and has no result."""
        if item.has_ended:
            return
        self._give_back(item)
        self._finish(item)

    def _abandon_after(self, error: BaseException, item: WorkItem) -> None:
        self._logger.error("Uncaught error while processing work item, item will be abandoned: %s", error)
        try:
            item.cancel(item.request, item.stub, item.token)
        except Exception as failure:
            self._logger.error("Uncaught error while cancelling work item: %s", failure)
        finally:
            self._finish(item)

    def _finish(self, item: WorkItem) -> None:
        """End an item that has been started, once."""
        with self._lock:
            if item.has_ended:
                return  # A turn that the worker has left behind.
            item.has_ended = True
            self._started_turns.discard(item)
        queue = self._queues[item.kind]
        if item.lease is not None and self._leases is not None:
            self._leases.release(item.lease)
        try:
            queue.done()
        finally:
            self._count_finished(item)

    def _count_finished(self, item: WorkItem) -> None:
        if item.release is not None:
            item.release()
        with self._lock:
            self._unfinished -= 1
        self._unbind(item)
        self._report_if_finished()

    def _unbind(self, item: WorkItem) -> None:
        """Have the end of the stream wait for this item no longer."""
        if item.is_bound_to_stream:
            with self._draining:
                if item.is_bound_to_stream:
                    item.is_bound_to_stream = False
                    self._bound_to_stream -= 1
                    self._draining.notify_all()
