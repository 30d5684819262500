"""Who gets what to do: queues of work, the streams of workers, and who holds which item.

The queues are a view of the store, made anew when the engine starts; what is handed out is in memory only.  Nothing
here is thread-safe: the kernel calls it under its lock.
"""

from __future__ import annotations

import queue
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

UNLIMITED = 1 << 30

ABANDON_PAUSE = 0.1
"""Seconds until an item that a worker has given back is handed out again; it may be offered to the same one."""

RECONNECT_PERIOD = 30.0
"""Seconds for which a worker that has named itself keeps what it holds after its stream has ended."""

TURN_LEASE = 300.0
"""Seconds after which a turn or a batch that a worker has not answered goes to another one, over the network."""


class WorkKind(Enum):
    """The kinds of work items."""

    TURN = "orchestration"
    ACTIVITY = "activity"
    BATCH = "entity"


Names = Mapping[str, frozenset[str]] | None
"""The names that a worker serves, each with its versions, empty for all; `None` for every name."""


@dataclass
class WorkItem:
    """An item that is ready to be handed out.

    Attributes:
        kind: what it is.
        key: what it is about: an instance, a task's nonce, an entity.
        name: of the orchestrator, activity or entity.
        version: for workers that serve some versions only.
        payload: for the kernel: a task; `None` otherwise.
        affinity: the instance, for the worker that has worked on it last.
    """

    kind: WorkKind
    key: str
    name: str
    version: str | None = None
    payload: object = None
    affinity: str = ""


@dataclass
class Handout:
    """An item in the hands of a worker.

    Attributes:
        id: random; the completion token names it.
        item: what was handed out.
        stream: to whom; `None` while a worker that has named itself is away.
        worker_id: the worker's name, empty without one.
        since: when, by the monotonic clock.
    """

    id: str
    item: WorkItem
    stream: WorkerStream | None
    worker_id: str
    since: float


@dataclass(eq=False)
class WorkerStream:
    """A worker that takes work items.

    Attributes:
        limits: how many items of each kind it holds at most.
        names: which items it takes, by kind.
        worker_id: its own name, empty for none.
        has_leases: whether what it does not answer goes to others after a while; not in this process, whose end is
            everybody's.
        outbox: what is on its way to it; `None` ends the stream.
        held: how many items of each kind it holds.
    """

    limits: Mapping[WorkKind, int] = field(default_factory=dict[WorkKind, int])
    names: Mapping[WorkKind, Names] = field(default_factory=dict[WorkKind, Names])
    worker_id: str = ""
    has_leases: bool = True
    outbox: queue.SimpleQueue[object] = field(default_factory=queue.SimpleQueue[object])
    held: dict[WorkKind, int] = field(default_factory=lambda: dict.fromkeys(WorkKind, 0))
    is_open: bool = True

    def accepts(self, kind: WorkKind, name: str, version: str | None) -> bool:
        """Return whether it serves that name and version."""
        names = self.names.get(kind)
        if names is None:
            return True
        versions = names.get(name)
        return versions is not None and (not versions or (version or "") in versions)

    def has_room(self, kind: WorkKind) -> bool:
        """Return whether it may get another item of the kind."""
        return self.is_open and self.held[kind] < self.limits.get(kind, UNLIMITED)

    def load(self, kind: WorkKind) -> float:
        """Return what part of its limit it holds."""
        return self.held[kind] / self.limits.get(kind, UNLIMITED)


class _Queue:
    """The items of one kind that nobody holds, first come, first served."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str | None], OrderedDict[str, tuple[int, WorkItem]]] = {}
        self._places: dict[str, tuple[str, str | None]] = {}
        self._next, self._first = 0, 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

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
    """Hands work out to streams, within their limits."""

    def __init__(
        self,
        prepare: Callable[[Handout], object | None],
        new_id: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
        *,
        turn_lease: float = TURN_LEASE,
        activity_lease: float | None = None,
        reconnect_period: float = RECONNECT_PERIOD,
    ) -> None:
        """Make a dispatcher without streams.

        Args:
            prepare: makes what goes into a stream's outbox, `None` if there is nothing to do any more.
            new_id: makes the ids of hand-outs.
            monotonic: the clock of leases, in seconds.
            turn_lease: seconds until an unanswered turn or batch goes to another worker.
            activity_lease: the same for activities; `None` for never.
            reconnect_period: seconds for which a worker with a name keeps what it holds after its stream has ended.
        """
        self._prepare = prepare
        self._new_id = new_id
        self._monotonic = monotonic
        self._leases = {WorkKind.TURN: turn_lease, WorkKind.BATCH: turn_lease, WorkKind.ACTIVITY: activity_lease}
        self._reconnect_period = reconnect_period
        self._queues = {kind: _Queue() for kind in WorkKind}
        self._handouts: dict[str, Handout] = {}
        self._out: dict[tuple[WorkKind, str], Handout] = {}
        self._away: dict[str, float] = {}
        """When the period of a worker ends that is away, by its name."""
        self._paused: list[tuple[float, WorkItem]] = []
        self._last_worker: OrderedDict[str, WorkerStream] = OrderedDict()
        self.streams: list[WorkerStream] = []
        self.is_stopping = False

    # -- streams ---------------------------------------------------------------------------------------------------

    def open(self, stream: WorkerStream, holding: frozenset[str] | None = None) -> None:
        """A worker has come.

        Args:
            stream: its stream.
            holding: the hand-outs that a worker says it still has from a stream before; the others of its name go back
                to the queues.  `None` if it does not say.
        """
        self.streams.append(stream)
        if stream.worker_id and holding is not None:
            self._away.pop(stream.worker_id, None)
            for handout in [each for each in self._handouts.values() if each.worker_id == stream.worker_id]:
                if handout.id not in holding:
                    self._take_back(handout)
                elif handout.stream is not stream:
                    if handout.stream is not None:
                        handout.stream.held[handout.item.kind] -= 1
                    handout.stream = stream
                    handout.since = self._monotonic()
                    stream.held[handout.item.kind] += 1
        for kind in WorkKind:
            self._fill(stream, kind)

    def close(self, stream: WorkerStream) -> None:
        """A worker's stream has ended; what it holds goes to others, at once or after a while."""
        if not stream.is_open:
            return
        stream.is_open = False
        self.streams.remove(stream)
        stream.outbox.put(None)
        held = [each for each in self._handouts.values() if each.stream is stream]
        if stream.worker_id:
            self._away[stream.worker_id] = self._monotonic() + self._reconnect_period
            for handout in held:
                handout.stream = None
        else:
            # The first that was handed out comes first again.
            for handout in reversed(held):
                self._take_back(handout)

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
            self._hand_out(item, stream)

    def discard(self, kind: WorkKind, key: str) -> None:
        """Something need not be done any more."""
        self._queues[kind].discard(key)
        self._paused = [each for each in self._paused if each[1].kind is not kind or each[1].key != key]

    def discard_if(self, kind: WorkKind, condition: Callable[[WorkItem], bool]) -> None:
        """Some things need not be done any more."""
        self._queues[kind].discard_if(condition)

    def is_out(self, kind: WorkKind, key: str) -> bool:
        """Return whether somebody works on it."""
        return (kind, key) in self._out

    def holder(self, kind: WorkKind, key: str) -> Handout | None:
        """Return who works on it."""
        return self._out.get((kind, key))

    def finish(self, handout_id: str) -> WorkItem | None:
        """A worker has answered, and has room for another item; returns what it has answered for."""
        handout = self._forget(handout_id)
        if handout is None:
            return None
        if handout.stream is not None:
            self._fill(handout.stream, handout.item.kind)
        return handout.item

    def abandon(self, handout_id: str) -> None:
        """A worker gives an item back unanswered."""
        handout = self._forget(handout_id)
        if handout is None:
            return
        self._paused.append((self._monotonic() + ABANDON_PAUSE, handout.item))
        if handout.stream is not None:
            self._fill(handout.stream, handout.item.kind)

    def stop(self) -> None:
        """Hand out nothing any more."""
        self.is_stopping = True

    # -- time ------------------------------------------------------------------------------------------------------

    def check(self) -> float | None:
        """Take back what has been held for too long, and offer again what has been given back.

        Returns:
            Seconds until the next call is of use, `None` if none is.
        """
        now = self._monotonic()
        ready = [item for due, item in self._paused if due <= now]
        self._paused = [each for each in self._paused if each[0] > now]
        for item in ready:
            self.add(item)
        gone = {name for name, until in self._away.items() if until <= now}
        for name in gone:
            del self._away[name]
        for handout in list(self._handouts.values()):
            if handout.stream is None:
                if handout.worker_id in gone or handout.worker_id not in self._away:
                    self._take_back(handout)
            elif handout.stream.has_leases:
                lease = self._leases[handout.item.kind]
                if lease is not None and handout.since + lease <= now:
                    self._take_back(handout)
        times = [due for due, _ in self._paused] + list(self._away.values())
        for handout in self._handouts.values():
            lease = self._leases[handout.item.kind]
            if handout.stream is not None and handout.stream.has_leases and lease is not None:
                times.append(handout.since + lease)
        return max(min(times) - now, 0.0) if times else None

    # -- looking ---------------------------------------------------------------------------------------------------

    def queued(self, kind: WorkKind) -> int:
        """Return how many items wait for a worker."""
        return len(self._queues[kind])

    def out(self, kind: WorkKind) -> int:
        """Return how many items workers hold."""
        return sum(1 for handout in self._handouts.values() if handout.item.kind is kind)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _choose(self, item: WorkItem) -> WorkerStream | None:
        """The worker that had the instance last if it has room, else the one that has the most room."""
        if self.is_stopping:
            return None
        last = self._last_worker.get(item.affinity)
        if last is not None and last.has_room(item.kind) and last.accepts(item.kind, item.name, item.version):
            return last
        best: WorkerStream | None = None
        for stream in self.streams:
            if stream.has_room(item.kind) and stream.accepts(item.kind, item.name, item.version):
                if best is None or stream.load(item.kind) < best.load(item.kind):
                    best = stream
        return best

    def _fill(self, stream: WorkerStream, kind: WorkKind) -> None:
        waiting = self._queues[kind]
        while len(waiting) and stream.has_room(kind) and not self.is_stopping:
            item = waiting.pop(stream, kind)
            if item is None:
                return
            self._hand_out(item, stream)

    def _hand_out(self, item: WorkItem, stream: WorkerStream) -> None:
        handout = Handout(self._new_id(), item, stream, stream.worker_id, self._monotonic())
        prepared = self._prepare(handout)
        if prepared is None:
            return  # there is nothing to do any more
        self._handouts[handout.id] = handout
        self._out[item.kind, item.key] = handout
        stream.held[item.kind] += 1
        if item.kind is WorkKind.TURN:
            self._remember(item.key, stream)
        stream.outbox.put(prepared)

    def _remember(self, instance_id: str, stream: WorkerStream) -> None:
        if len(self.streams) > 1:
            self._last_worker[instance_id] = stream
            self._last_worker.move_to_end(instance_id)
            if len(self._last_worker) > 10_000:
                self._last_worker.popitem(last=False)

    def _forget(self, handout_id: str) -> Handout | None:
        handout = self._handouts.pop(handout_id, None)
        if handout is None:
            return None
        if self._out.get((handout.item.kind, handout.item.key)) is handout:
            del self._out[handout.item.kind, handout.item.key]
        if handout.stream is not None:
            handout.stream.held[handout.item.kind] -= 1
        return handout

    def _take_back(self, handout: Handout) -> None:
        """Put an item first in its queue, or give it to somebody who has room."""
        self._forget(handout.id)
        stream = self._choose(handout.item)
        if stream is None:
            self._queues[handout.item.kind].put_first(handout.item)
        else:
            self._hand_out(handout.item, stream)


def filters(names: Sequence[tuple[str, Sequence[str]]]) -> Names:
    """Return the filter that a worker has sent for one kind of items."""
    result: dict[str, frozenset[str]] = {}
    for name, versions in names:
        result[name] = result.get(name, frozenset()) | frozenset(versions)
    return result
