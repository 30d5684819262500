"""Queues of work, the streams of workers, and the leases on what they work on.

The queues are a view of the store, built again when the engine starts; leases are in memory only.  Nothing
here is thread-safe: the kernel calls it under its lock.
"""

from __future__ import annotations

import itertools
import logging
import queue
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

_logger = logging.getLogger("durabletask.aio.engine")

UNLIMITED = 1 << 30

ABANDON_PAUSE = 0.1
"""Seconds until an abandoned item is dispatched again, perhaps to the worker that has abandoned it."""

SECOND_ABANDON_PAUSE = 1.0
MAX_ABANDON_PAUSE = 30.0
"""The same, if no other worker is there for the item: the pause grows fourfold from the one to the other."""

RECONNECT_PERIOD = 30.0
"""Seconds for which a worker that has named itself keeps what it holds after its stream has ended."""

KEEP_LEASE_AFTER = 0.05
"""Seconds after which the lease on an activity is kept in the file: it is its worker's when the engine starts again."""

TURN_LEASE = 300.0
"""Seconds after which a turn or a batch that a worker has not answered goes to another one, over the network."""


WorkKind = Literal["orchestration", "activity", "entity"]
"""The kinds of work items."""

TURN: WorkKind = "orchestration"
ACTIVITY: WorkKind = "activity"
BATCH: WorkKind = "entity"
WORK_KINDS: tuple[WorkKind, ...] = (TURN, ACTIVITY, BATCH)


Names = Mapping[str, frozenset[str]] | None
"""The names that a worker serves, each with its versions, empty for all; `None` for every name."""


@dataclass
class WorkItem:
    """An item that is ready to be dispatched.

    Attributes:
        kind: what it is.
        key: what it is about: an instance, a task's nonce, an entity.
        name: of the orchestrator, activity or entity.
        version: for workers that serve some versions only.
        payload: for the kernel: a task; `None` otherwise.
        affinity: the instance, for the worker that has worked on it last.
        abandoned_by: streams that have abandoned it, such as those of workers that do not serve its version; they get
            it again only if there is no other.
        pause: seconds until it is dispatched again, since it was abandoned last; 0 if it never was.
    """

    kind: WorkKind
    key: str
    name: str
    version: str | None = None
    payload: object = None
    affinity: str = ""
    abandoned_by: weakref.WeakSet[WorkerStream] | None = None
    pause: float = 0.0


@dataclass
class Lease:
    """An item that a worker has been given and has not answered.

    Attributes:
        id: random; the completion token names it.
        item: the item.
        stream: the worker; `None` while a worker that has named itself is away.
        worker_id: the worker's name, empty without one.
        since: when, by the monotonic clock.
        is_kept: whether it is in the file.
        basis: the commit that the item was prepared from; an answer counts only while that is the latest.
    """

    id: str
    item: WorkItem
    stream: WorkerStream | None
    worker_id: str
    since: float
    is_kept: bool = False
    basis: str = ""

    @property
    def worker_name(self) -> str:
        """The worker, for a person."""
        return self.worker_id if self.stream is None else self.stream.name


@dataclass(eq=False)
class WorkerStream:
    """A worker that takes work items.

    Attributes:
        limits: how many items of each kind it holds at most.
        names: which items it takes, by kind.
        worker_id: its own name, empty for none.
        number: of the streams that a worker with a name opens; each has a higher one than those before.
        expires: whether its leases expire; those of a worker in this process do not, since it ends with the engine.
        is_pulled: whether it gets an item only when it asks for one, with `Dispatcher.take`.
        outbox: what is on its way to it; `None` ends the stream.
        held: how many items of each kind it holds.
        is_open: whether it has not ended.
        is_leaving: whether the worker stops: it gets no items, and does not come back once the stream has ended.
        peer: where it connects from.
        connected_at: since when, in the engine's time.
        keeps_sessions: whether the worker keeps instances alive, and asks for a history that it has not got.
    """

    limits: Mapping[WorkKind, int] = field(default_factory=dict[WorkKind, int])
    names: Mapping[WorkKind, Names] = field(default_factory=dict[WorkKind, Names])
    worker_id: str = ""
    number: int = 0
    expires: bool = True
    is_pulled: bool = False
    outbox: queue.SimpleQueue[object] = field(default_factory=queue.SimpleQueue[object])
    held: dict[WorkKind, int] = field(default_factory=lambda: dict.fromkeys(WORK_KINDS, 0))
    is_open: bool = True
    is_leaving: bool = False
    peer: str = ""
    connected_at: int = 0
    keeps_sessions: bool = False

    @property
    def name(self) -> str:
        """Its own name, or where it connects from."""
        return self.worker_id or self.peer

    def accepts(self, kind: WorkKind, name: str, version: str | None) -> bool:
        """Return whether it serves that name and version."""
        names = self.names.get(kind)
        if names is None:
            return True
        versions = names.get(name)
        return versions is not None and (not versions or (version or "") in versions)

    def has_room(self, kind: WorkKind) -> bool:
        """Return whether it may be sent another item of the kind."""
        is_fed = self.is_open and not self.is_leaving and not self.is_pulled
        return is_fed and self.held[kind] < self.limits.get(kind, UNLIMITED)

    def load(self, kind: WorkKind) -> float:
        """Return what part of its limit it holds."""
        return self.held[kind] / self.limits.get(kind, UNLIMITED)


class _Queue:
    """The items of one kind that no worker has, first in, first out."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str | None], OrderedDict[str, tuple[int, WorkItem]]] = {}
        self._places: dict[str, tuple[str, str | None]] = {}
        self._next, self._first = 0, 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> WorkItem | None:
        place = self._places.get(key)
        return None if place is None else self._by_name[place][key][1]

    def append(self, item: WorkItem) -> None:
        self._next += 1
        self._put(item, self._next)

    def put_first(self, item: WorkItem) -> None:
        self._first -= 1
        self._put(item, self._first)
        self._by_name[item.name, item.version].move_to_end(item.key, last=False)

    def _put(self, item: WorkItem, order: int) -> None:
        place = item.name, item.version
        self._places[item.key] = place
        self._by_name.setdefault(place, OrderedDict())[item.key] = order, item

    def discard(self, key: str) -> None:
        place = self._places.pop(key, None)
        if place is not None:
            items = self._by_name[place]
            del items[key]
            if not items:
                del self._by_name[place]

    def discard_if(self, condition: Callable[[WorkItem], bool]) -> None:
        for key in [key for items in self._by_name.values() for key, (_, item) in items.items() if condition(item)]:
            self.discard(key)

    def pop(self, stream: WorkerStream, kind: WorkKind) -> WorkItem | None:
        """Take the first item that a stream accepts."""
        first: tuple[int, WorkItem] | None = None
        for (name, version), items in self._by_name.items():
            if stream.accepts(kind, name, version):
                found = next(iter(items.values()))
                if first is None or found[0] < first[0]:
                    first = found
        if first is None:
            return None
        self.discard(first[1].key)
        return first[1]


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
        self._queues = {kind: _Queue() for kind in WORK_KINDS}
        self._leases: dict[str, Lease] = {}
        self._out: dict[tuple[WorkKind, str], Lease] = {}
        self._away: dict[str, float] = {}
        """When the period of a worker ends that is away, by its name."""
        self._last_number: dict[str, int] = {}
        """The number of the last stream of each worker with a name that is there or away."""
        self._keep_leases = keep_leases
        self._not_kept: dict[str, Lease] = {}
        """Leases on activities that are not in the file, the oldest first."""
        self._kept_in_vain: list[WorkItem] = []
        """Activities of which the file has a lease that is over."""
        self._paused: list[tuple[float, WorkItem]] = []
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
        self._end_long_pauses(stream)
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
        self._paused = [each for each in self._paused if each[1].kind is not kind or each[1].key != key]

    def discard_if(self, kind: WorkKind, condition: Callable[[WorkItem], bool]) -> None:
        """Some things need not be done any more."""
        self._queues[kind].discard_if(condition)
        for lease in [each for each in self._out.values() if each.item.kind is kind and condition(each.item)]:
            del self._out[kind, lease.item.key]
        self._paused = [each for each in self._paused if each[1].kind is not kind or not condition(each[1])]

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
            self._pause(lease.item)
            self._drop_kept(lease)
        self._forget(lease_id)
        if lease.stream is not None:
            self._fill(lease.stream, lease.item.kind)

    def _pause(self, item: WorkItem) -> None:
        """Dispatch an abandoned item after a pause: a long one, if all workers that serve it have abandoned it before.

        Otherwise items that no worker can execute, such as those whose history does not fit the code of a deployment,
        would keep engine and workers busy.
        """
        if not item.pause or any(stream not in (item.abandoned_by or ()) for stream in self._serving(item)):
            item.pause = ABANDON_PAUSE
        else:
            item.pause = max(min(max(item.pause * 4, SECOND_ABANDON_PAUSE), MAX_ABANDON_PAUSE), ABANDON_PAUSE)
        self._paused.append((self._monotonic() + item.pause, item))

    def _end_long_pauses(self, stream: WorkerStream) -> None:
        """Dispatch what all workers have abandoned: the new one may be able to execute it."""
        ready = [
            item
            for _, item in self._paused
            if item.pause > ABANDON_PAUSE and stream.accepts(item.kind, item.name, item.version)
        ]
        released = {id(item) for item in ready}
        self._paused = [each for each in self._paused if id(each[1]) not in released]
        for item in ready:
            self.add(item)

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
        ready = [item for due, item in self._paused if due <= now]
        self._paused = [each for each in self._paused if each[0] > now]
        for item in ready:
            self.add(item)
        for name in [name for name, until in self._away.items() if until <= now]:
            del self._away[name]
            if not any(each.worker_id == name for each in self.streams):
                self._last_number.pop(name, None)
        self._requeue([lease for lease in self._leases.values() if self._is_over(lease, now)])
        expiries = [self._expiry(lease) for lease in self._leases.values()]
        times = [due for due, _ in self._paused] + list(self._away.values())
        times += [each for each in expiries if each is not None]
        if (due := self.keep_due) is not None:
            times.append(due)
        return max(min(times) - now, 0.0) if times else None

    @property
    def keep_due(self) -> float | None:
        """When `leases_to_keep` has something to return next, by the monotonic clock."""
        if self._kept_in_vain:
            return self._monotonic()
        for lease in self._not_kept.values():
            return lease.since + KEEP_LEASE_AFTER
        return None

    def leases_to_keep(self) -> tuple[list[Lease], list[WorkItem]]:
        """Return the leases on activities that have lasted for a while, and the activities whose lease is over.

        Each is returned once, for the caller to write it into the file.
        """
        if not self._not_kept and not self._kept_in_vain:
            return [], []
        until = self._monotonic() - KEEP_LEASE_AFTER
        leases = list(itertools.takewhile(lambda lease: lease.since <= until, self._not_kept.values()))
        for lease in leases:
            lease.is_kept = True
            del self._not_kept[lease.id]
        over, self._kept_in_vain = self._kept_in_vain, []
        return leases, over

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
            self._paused.append((self._monotonic() + ABANDON_PAUSE, item))
            return None
        if prepared is None:
            return None
        self._leases[lease.id] = lease
        self._out[item.kind, item.key] = lease
        stream.held[item.kind] += 1
        if self._keep_leases and item.kind is ACTIVITY and stream.worker_id:
            self._not_kept[lease.id] = lease
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
        self._not_kept.pop(lease_id, None)
        if self._is_current(lease):
            del self._out[lease.item.kind, lease.item.key]
        if lease.stream is not None:
            lease.stream.held[lease.item.kind] -= 1
        return lease

    def _is_current(self, lease: Lease) -> bool:
        """Return whether its item has yet to be done, and no other lease is on it."""
        return self._out.get((lease.item.kind, lease.item.key)) is lease

    def _drop_kept(self, lease: Lease) -> None:
        if lease.is_kept:
            self._kept_in_vain.append(lease.item)

    def _requeue(self, leases: Sequence[Lease]) -> None:
        """Put items first in their queues, in the order in which they were dispatched, or dispatch them again."""
        current = [each for each in leases if self._is_current(each)]
        for lease in leases:
            self._forget(lease.id)
        for lease in reversed(current):
            self._drop_kept(lease)
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


def filters(names: Sequence[tuple[str, Sequence[str]]]) -> Names:
    """Return the filter that a worker has sent for one kind of items."""
    result: dict[str, frozenset[str]] = {}
    for name, versions in names:
        result[name] = result.get(name, frozenset()) | frozenset(versions)
    return result
