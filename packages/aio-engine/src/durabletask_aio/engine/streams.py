"""The streams of workers, the items that go to them, and the leases on what they hold, as data."""

from __future__ import annotations

import queue
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

UNLIMITED = 1 << 30

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


def filters(names: Sequence[tuple[str, Sequence[str]]]) -> Names:
    """Return the filter that a worker has sent for one kind of items."""
    result: dict[str, frozenset[str]] = {}
    for name, versions in names:
        result[name] = result.get(name, frozenset()) | frozenset(versions)
    return result
