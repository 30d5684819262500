"""Dispatches work items to the streams of workers, within their limits, and ends leases.

The queues are a view of the store, built again when the engine starts; leases are in memory only.  Nothing
here is thread-safe: the kernel calls it under its lock.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence

from durabletask_aio.engine.abandoned import PausedItems
from durabletask_aio.engine.kept_leases import KeptLeases
from durabletask_aio.engine.queues import WorkQueue
from durabletask_aio.engine.streams import ACTIVITY, BATCH, TURN, WORK_KINDS, Lease, WorkerStream, WorkItem, WorkKind

_logger = logging.getLogger("durabletask.aio.engine")

RECONNECT_PERIOD = 30.0
"""Seconds for which a worker that has named itself keeps what it holds after its stream has ended."""

TURN_LEASE = 300.0
"""Seconds after which a turn or a batch that a worker has not answered goes to another one, over the network."""


class Dispatcher:
    """Dispatches work items to streams, within their limits."""

    def __init__(
        self,
        prepare: Callable[[Lease], object | None],
        new_id: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
        *,
        turn_lease: float = TURN_LEASE,
        activity_lease: float | None = None,
        reconnect_period: float = RECONNECT_PERIOD,
        keep_leases: bool = False,
    ) -> None:
        """Make a dispatcher without streams.

        Args:
            prepare: makes what goes into a stream's outbox, `None` if there is nothing to do any more.
            new_id: makes the ids of leases.
            monotonic: the clock of leases, in seconds.
            turn_lease: seconds until an unanswered turn or batch goes to another worker.
            activity_lease: the same for activities; `None` for never.
            reconnect_period: seconds for which a worker with a name keeps what it holds after its stream has ended.
            keep_leases: whether the caller uses `leases_to_keep`.
        """
        self._prepare = prepare
        self._new_id = new_id
        self._monotonic = monotonic
        self._durations = {
            TURN: turn_lease,
            BATCH: turn_lease,
            ACTIVITY: activity_lease,
        }
        self._reconnect_period = reconnect_period
        self._queues = {kind: WorkQueue() for kind in WORK_KINDS}
        self._leases: dict[str, Lease] = {}
        self._out: dict[tuple[WorkKind, str], Lease] = {}
        self._away: dict[str, float] = {}
        """When the period of a worker ends that is away, by its name."""
        self._last_number: dict[str, int] = {}
        """The number of the last stream of each worker with a name that is there or away."""
        self._keep_leases = keep_leases
        self._kept = KeptLeases()
        self._paused = PausedItems()
        self._last_worker: OrderedDict[str, WorkerStream] = OrderedDict()
        self.streams: list[WorkerStream] = []
        self.is_stopping = False

    # -- streams ---------------------------------------------------------------------------------------------------

    def open(self, stream: WorkerStream, holding: frozenset[str] | None = None) -> frozenset[str]:
        """A worker has come.

        Args:
            stream: its stream.
            holding: the leases that a worker says it still has from a stream before; the others of its name go back
                to the queues.  `None` if it does not say.

        Returns:
            Those of the leases that have ended: their items are not the worker's any more.
        """
        if stream.worker_id and holding is not None:
            if stream.number < self._last_number.get(stream.worker_id, 0):
                # Held up on its way: the worker has opened another one since, and does not listen to this one.
                stream.is_open = False
                stream.outbox.put(None)
                return frozenset()
            self._last_number[stream.worker_id] = stream.number
        self.streams.append(stream)
        if stream.worker_id and holding is not None:
            self._take_over(stream, holding)
        lost = frozenset[str]() if holding is None else holding - self._leases.keys()
        # What all workers have abandoned: the new one may be able to execute it.
        for item in self._paused.take_long(lambda item: stream.accepts(item.kind, item.name, item.version)):
            self.add(item)
        for kind in WORK_KINDS:
            self._fill(stream, kind)
        return lost

    def _take_over(self, stream: WorkerStream, holding: frozenset[str]) -> None:
        """Let a stream have the leases of its worker's streams before it, which are over."""
        self._away.pop(stream.worker_id, None)
        for other in [each for each in self.streams if each.worker_id == stream.worker_id and each is not stream]:
            # The worker has noticed that its connection is broken, and this side has not.
            self._end(other)
        lost: list[Lease] = []
        for lease in [each for each in self._leases.values() if each.worker_id == stream.worker_id]:
            if lease.id not in holding:
                lost.append(lease)
                continue
            if lease.stream is not None:
                lease.stream.held[lease.item.kind] -= 1
            lease.stream = stream
            lease.since = self._monotonic()
            stream.held[lease.item.kind] += 1
        # Only now, since the stream may get these items again, within its limits.
        self._requeue(lost)

    def close(self, stream: WorkerStream) -> None:
        """A worker's stream has ended; what it holds goes to others, at once or after a while."""
        if not stream.is_open:
            return
        self._end(stream)
        held = [each for each in self._leases.values() if each.stream is stream]
        if stream.worker_id and not stream.is_leaving:
            self._away[stream.worker_id] = self._monotonic() + self._reconnect_period
            for lease in held:
                lease.stream = None
        else:
            self._last_number.pop(stream.worker_id, None)
            self._requeue(held)

    def _end(self, stream: WorkerStream) -> None:
        stream.is_open = False
        self.streams.remove(stream)
        stream.outbox.put(None)

    def restore(self, item: WorkItem, lease_id: str, worker_id: str) -> None:
        """A worker has had an item when the engine ended, and may come back with it."""
        lease = Lease(lease_id, item, None, worker_id, self._monotonic(), is_kept=True)
        self._leases[lease.id] = lease
        self._out[item.kind, item.key] = lease
        self._away[worker_id] = self._monotonic() + self._reconnect_period

    # -- items -----------------------------------------------------------------------------------------------------

    def add(self, item: WorkItem) -> None:
        """Something can be done now."""
        waiting = self._queues[item.kind]
        if item.key in waiting or (item.kind, item.key) in self._out:
            return
        stream = self._choose(item)
        if stream is None:
            waiting.append(item)
        else:
            self._dispatch(item, stream)

    def discard(self, kind: WorkKind, key: str) -> None:
        """Something need not be done any more; a worker that has it keeps its lease, and no other gets the item."""
        self._queues[kind].discard(key)
        self._out.pop((kind, key), None)
        self._paused.discard_if(lambda item: item.kind is kind and item.key == key)

    def discard_if(self, kind: WorkKind, condition: Callable[[WorkItem], bool]) -> None:
        """Some things need not be done any more."""
        self._queues[kind].discard_if(condition)
        for lease in [each for each in self._out.values() if each.item.kind is kind and condition(each.item)]:
            del self._out[kind, lease.item.key]
        self._paused.discard_if(lambda item: item.kind is kind and condition(item))

    def is_queued(self, kind: WorkKind, key: str) -> bool:
        """Return whether it waits for a worker."""
        return key in self._queues[kind]

    def is_out(self, kind: WorkKind, key: str) -> bool:
        """Return whether a worker has it."""
        return (kind, key) in self._out

    def holder(self, kind: WorkKind, key: str) -> Lease | None:
        """Return the lease on it."""
        return self._out.get((kind, key))

    def stream_of(self, lease_id: str) -> WorkerStream | None:
        """Return the stream of the worker that has a lease."""
        lease = self._leases.get(lease_id)
        return None if lease is None else lease.stream

    def queued_item(self, kind: WorkKind, key: str) -> WorkItem | None:
        """Return the item that waits for a worker, `None` if none does."""
        return self._queues[kind].get(key)

    def take(self, stream: WorkerStream) -> object | None:
        """Lease the next item to a stream that asks for one: turns first, then activities, then batches.

        Returns:
            What `prepare` has made of it, `None` if nothing waits.
        """
        for kind in WORK_KINDS:
            waiting = self._queues[kind]
            while stream.is_open and len(waiting) and not self.is_stopping and not stream.is_leaving:
                item = waiting.pop(stream, kind)
                if item is None:
                    break
                prepared = self._lease(item, stream)
                if prepared is not None:
                    return prepared
        return None

    def finish(self, lease_id: str) -> WorkItem | None:
        """A worker has answered, and has room for another item; returns what it has answered for."""
        lease = self._forget(lease_id)
        if lease is None:
            return None
        if lease.stream is not None:
            self._fill(lease.stream, lease.item.kind)
        return lease.item

    def abandon(self, lease_id: str) -> None:
        """A worker gives an item back unanswered."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return
        if self._is_current(lease):
            if lease.stream is not None:
                if lease.item.abandoned_by is None:
                    lease.item.abandoned_by = weakref.WeakSet()
                lease.item.abandoned_by.add(lease.stream)
            by_all = all(stream in (lease.item.abandoned_by or ()) for stream in self._serving(lease.item))
            self._paused.add_abandoned(lease.item, self._monotonic(), by_all=by_all)
            self._kept.end(lease)
        self._forget(lease_id)
        if lease.stream is not None:
            self._fill(lease.stream, lease.item.kind)

    def requeue(self, lease_id: str) -> None:
        """Let an item be dispatched again, before all others of its kind."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            self._requeue([lease])

    def stop(self) -> None:
        """Dispatch nothing from now on."""
        self.is_stopping = True

    # -- time ------------------------------------------------------------------------------------------------------

    def check(self) -> float | None:
        """Requeue what has been held for too long, and what was abandoned a moment ago.

        Returns:
            Seconds until the next call is of use, `None` if none is.
        """
        now = self._monotonic()
        for item in self._paused.take_due(now):
            self.add(item)
        for name in [name for name, until in self._away.items() if until <= now]:
            del self._away[name]
            if not any(each.worker_id == name for each in self.streams):
                self._last_number.pop(name, None)
        self._requeue([lease for lease in self._leases.values() if self._is_over(lease, now)])
        expiries = [self._expiry(lease) for lease in self._leases.values()]
        times = [*self._paused.due, *self._away.values()]
        times += [each for each in expiries if each is not None]
        if (due := self.keep_due) is not None:
            times.append(due)
        return max(min(times) - now, 0.0) if times else None

    @property
    def keep_due(self) -> float | None:
        """When `leases_to_keep` has something to return next, by the monotonic clock."""
        return self._kept.due(self._monotonic())

    def leases_to_keep(self) -> tuple[list[Lease], list[WorkItem]]:
        """Return the leases on activities that have lasted for a while, and the activities whose lease is over.

        Each is returned once, for the caller to write it into the file.
        """
        return self._kept.take(self._monotonic())

    # -- looking ---------------------------------------------------------------------------------------------------

    def queued(self, kind: WorkKind) -> int:
        """Return how many items wait for a worker."""
        return len(self._queues[kind])

    def out(self, kind: WorkKind) -> int:
        """Return how many items workers hold."""
        return sum(1 for lease in self._leases.values() if lease.item.kind is kind)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _choose(self, item: WorkItem) -> WorkerStream | None:
        """The worker that had the instance last if it has room, else the one that has the most room."""
        if self.is_stopping:
            return None
        if len(self.streams) == 1:
            only = self.streams[0]
            return only if only.has_room(item.kind) and only.accepts(item.kind, item.name, item.version) else None
        served_by = self._serving(item)
        if item.abandoned_by:
            served_by = [each for each in served_by if each not in item.abandoned_by] or served_by
        free = [each for each in served_by if each.has_room(item.kind)]
        last = self._last_worker.get(item.affinity)
        if last in free:
            return last
        return min(free, key=lambda stream: stream.load(item.kind), default=None)

    def _serving(self, item: WorkItem) -> list[WorkerStream]:
        return [each for each in self.streams if each.accepts(item.kind, item.name, item.version)]

    def _fill(self, stream: WorkerStream, kind: WorkKind) -> None:
        waiting = self._queues[kind]
        while len(waiting) and stream.has_room(kind) and not self.is_stopping:
            item = waiting.pop(stream, kind)
            if item is None:
                return
            self._dispatch(item, stream)

    def _dispatch(self, item: WorkItem, stream: WorkerStream) -> None:
        prepared = self._lease(item, stream)
        if prepared is not None:
            stream.outbox.put(prepared)

    def _lease(self, item: WorkItem, stream: WorkerStream) -> object | None:
        """Give a worker an item; returns what goes to it, `None` if there is nothing to do any more."""
        lease = Lease(self._new_id(), item, stream, stream.worker_id, self._monotonic())
        try:
            prepared = self._prepare(lease)
        except Exception:
            # The disk may not be readable for a moment.
            _logger.exception("A work item could not be read; it is tried again")
            self._paused.add(item, self._monotonic())
            return None
        if prepared is None:
            return None
        self._leases[lease.id] = lease
        self._out[item.kind, item.key] = lease
        stream.held[item.kind] += 1
        if self._keep_leases and item.kind is ACTIVITY and stream.worker_id:
            self._kept.add(lease)
        if item.kind is TURN:
            self._remember(item.key, stream)
        return prepared

    def _remember(self, instance_id: str, stream: WorkerStream) -> None:
        if len(self.streams) > 1:
            self._last_worker[instance_id] = stream
            self._last_worker.move_to_end(instance_id)
            if len(self._last_worker) > 10_000:
                self._last_worker.popitem(last=False)

    def _is_over(self, lease: Lease, now: float) -> bool:
        if lease.stream is None:
            return lease.worker_id not in self._away
        expiry = self._expiry(lease)
        return expiry is not None and expiry <= now

    def _expiry(self, lease: Lease) -> float | None:
        """Return when a lease ends by itself, by the monotonic clock."""
        duration = self._durations[lease.item.kind]
        if lease.stream is None or not lease.stream.expires or duration is None:
            return None
        return lease.since + duration

    def _forget(self, lease_id: str) -> Lease | None:
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            return None
        self._kept.forget(lease_id)
        if self._is_current(lease):
            del self._out[lease.item.kind, lease.item.key]
        if lease.stream is not None:
            lease.stream.held[lease.item.kind] -= 1
        return lease

    def _is_current(self, lease: Lease) -> bool:
        """Return whether its item has yet to be done, and no other lease is on it."""
        return self._out.get((lease.item.kind, lease.item.key)) is lease

    def _requeue(self, leases: Sequence[Lease]) -> None:
        """Put items first in their queues, in the order in which they were dispatched, or dispatch them again."""
        current = [each for each in leases if self._is_current(each)]
        for lease in leases:
            self._forget(lease.id)
        for lease in reversed(current):
            self._kept.end(lease)
            self._queues[lease.item.kind].put_first(lease.item)
        for lease in current:
            item = lease.item
            stream = self._choose(item)
            if stream is not None:
                self._queues[item.kind].discard(item.key)
                self._dispatch(item, stream)
        for lease in leases:
            if lease.stream is not None:
                self._fill(lease.stream, lease.item.kind)
