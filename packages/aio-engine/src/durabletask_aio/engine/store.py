"""What the engine asks of a store: one writer, whose transactions are all or nothing, and readers of what is committed.

`sqlite` has the store of an engine, `memory` the one of a test.  Nothing here says that a store belongs to one process:
a command loads and changes the instance that it is for and appends to the inboxes of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from durabletask_aio.engine.state import (
    Changes,
    Entity,
    InboxEvent,
    Instance,
    LockRequest,
    Operation,
    Task,
    Timer,
)

_PAGE = 1000
"""Rows that are read at once."""


class StoreError(Exception):
    """The store cannot be used: damaged, locked, too new, or the disk has failed; the message says what to do."""


class FileInUseError(StoreError):
    """Another engine uses the file."""


class RolledBackError(Exception):
    """The transaction is gone, with everything in it; the disk may be full.  It may be tried again."""


@dataclass(frozen=True)
class InstanceFilter:
    """Which instances a query is for.  Times are microseconds since 1970; from is inclusive, to is exclusive.

    Attributes:
        statuses: upstream's `OrchestrationStatus`; empty for all.
        names: names of orchestrators; empty for all.
        id_prefix: how the id begins.
        id_contains: what the id contains.
        tags: tags that an instance has, with these values.
        text: what the id or the name contains, in upper or lower case.
        parent_id: the children of this instance.
        only_roots: leave out what has a parent.
    """

    statuses: frozenset[int] = frozenset()
    names: frozenset[str] = frozenset()
    id_prefix: str = ""
    id_contains: str = ""
    text: str = ""
    created_from: int | None = None
    created_to: int | None = None
    updated_from: int | None = None
    updated_to: int | None = None
    completed_from: int | None = None
    completed_to: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    parent_id: str | None = None
    only_roots: bool = False


@dataclass(frozen=True)
class Page:
    """A part of a query's result.

    Attributes:
        instances: in the order asked for.
        after: what to ask for to get the next part, `None` if this is the last.
    """

    instances: Sequence[Instance]
    after: tuple[int, int] | None


class Reader(Protocol):
    """Reads what is committed."""

    def instance(self, instance_id: str) -> Instance | None:
        """Return an instance."""
        ...

    def history(self, instance: Instance) -> Sequence[bytes]:
        """Return the chunks of its history."""
        ...

    def payloads(self, instance: Instance) -> Mapping[str, str | bytes]:
        """Return its input, output and failure, those that it has."""
        ...

    def query(
        self, wanted: InstanceFilter, limit: int, after: tuple[int, int] | None = None, *, newest_first: bool = False
    ) -> Page:
        """Return instances by when they were created."""
        ...

    def completed(self, wanted: InstanceFilter, limit: int, after: tuple[int, str] | None = None) -> Sequence[Instance]:
        """Return instances that have ended, by when they did."""
        ...

    def entity(self, entity_id: str) -> Entity | None:
        """Return an entity."""
        ...

    def entities(
        self,
        prefix: str,
        modified_from: int | None,
        modified_to: int | None,
        include_transient: bool,
        limit: int,
        after: str = "",
    ) -> Sequence[tuple[Entity, int]]:
        """Return entities by id, each with the number of its pending operations."""
        ...

    def operations(self, entity_id: str) -> Sequence[Operation]:
        """Return the operations that an entity has not executed."""
        ...

    def count(self, wanted: InstanceFilter) -> int:
        """Return how many instances a query is for."""
        ...

    def children(self, instance_id: str, limit: int = -1) -> Sequence[Instance]:
        """Return the instances that an instance is the parent of; no limit if it is negative."""
        ...

    def tasks(self, execution_id: str | None = None) -> Iterable[Task]:
        """Return the activities of an execution, or all, in the order of their creation."""
        ...

    def lock_requests(self) -> Sequence[LockRequest]:
        """Return all that wait, in the order of arrival."""
        ...

    def meta(self, name: str) -> Any:
        """Return a value that was kept with `set_meta`, `None` if there is none."""
        ...


def all_instances(reader: Reader) -> Iterator[Instance]:
    """Yield all instances, in the order of their creation."""
    page = reader.query(InstanceFilter(), _PAGE)
    yield from page.instances
    while page.after is not None:
        page = reader.query(InstanceFilter(), _PAGE, page.after)
        yield from page.instances


class ClosableReader(Reader, Protocol):
    """A reader with a connection of its own."""

    def close(self) -> None:
        """Close the connection."""


class Store(Reader, Protocol):
    """Reads and writes within a transaction.  Used by one thread at a time.

    Attributes:
        path: its file, `None` in memory.
        durability: what a commit survives: `"fsync"`, `"os"`, or `"none"`.
    """

    path: Path | None
    durability: str

    def reader(self) -> ClosableReader | None:
        """Open a reader that others may use meanwhile; `None` if only the store itself can be read."""
        ...

    def close(self) -> None:
        """Close it; nothing is lost of what is durable."""

    def sizes(self) -> Mapping[str, int]:
        """Return the size of the file in bytes, and how many bytes of it are free."""
        ...

    def vacuum(self) -> None:
        """Give free space back to the file system."""

    def set_meta(self, name: str, value: Any) -> None:
        """Keep a value."""

    def crashes(self) -> Mapping[str, tuple[str, int]]:
        """Return the turn and the number of crashes of each instance that has any."""
        ...

    def set_crashes(self, crashes: Mapping[str, tuple[str, int]]) -> None:
        """Replace what `crashes` returns."""

    def begin(self) -> None:
        """Begin a transaction."""

    def commit(self) -> None:
        """Make it durable.  `RolledBackError` or `StoreError` if that has failed."""

    def rollback(self) -> None:
        """Undo it."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; after an error it may be gone."""
        ...

    def inbox(self, instance: Instance) -> Sequence[InboxEvent]:
        """Return the events that wait for an instance's next turn."""
        ...

    def apply(self, changes: Changes) -> Instance:
        """Write the changes of an instance, but for their messages; returns it as stored."""
        ...

    def delete(self, instance: Instance) -> None:
        """Delete an instance with its history, inbox and payloads."""

    def clear(self) -> None:
        """Delete all instances, activities, timers and entities."""

    def add_task(self, new: Task) -> Task:
        """Keep an activity; returns it with its number."""
        ...

    def task(self, seq: int) -> Task | None:
        """Return an activity that has not been completed."""
        ...

    def drop_task(self, task: Task) -> None:
        """Remove one."""

    def keep_lease(self, task: Task, lease_id: str, worker_id: str) -> None:
        """Keep which worker has an activity, if it is not done yet."""

    def drop_lease(self, task: Task) -> None:
        """Remove that."""

    def leases(self) -> Sequence[tuple[int, str, str]]:
        """Return those that are kept: the activity's number, the id of the lease, and the worker's name."""
        ...

    def add_timer(self, timer: Timer) -> None:
        """Keep a timer."""

    def due_timers(self, now: int, limit: int) -> Sequence[Timer]:
        """Return the first timers that are due, by due time."""
        ...

    def drop_timer(self, timer: Timer) -> None:
        """Remove one."""

    def next_due(self) -> int | None:
        """Return when the first timer is due."""
        ...

    def put_entity(self, entity: Entity) -> Entity:
        """Write an entity."""
        ...

    def delete_entity(self, entity_id: str) -> None:
        """Delete one."""

    def add_operation(self, entity_id: str, event: bytes, execution_id: str | None) -> None:
        """Append an operation to an entity's."""

    def drop_operations(self, entity_id: str, seqs: Iterable[int]) -> None:
        """Remove operations that an entity has executed."""

    def first_operation(self, entity_id: str) -> int | None:
        """Return the number of the first operation that an entity has not executed."""
        ...

    def add_lock_request(self, request: LockRequest) -> None:
        """Keep a lock request."""

    def drop_lock_request(self, seq: int) -> None:
        """Remove one."""

    def locked_entities(self, execution_id: str | None = None) -> Sequence[Entity]:
        """Return the entities that an execution holds, or all that are held."""
        ...

    def end_execution(self, execution_id: str, drop_tasks: bool) -> bool:
        """Remove the timers and lock requests of an execution; returns whether it had asked for locks."""
        ...

    def waiting_instances(self) -> Iterable[Instance]:
        """Return the instances that have something in their inbox, oldest event first."""
        ...

    def waiting_entities(self) -> Iterable[str]:
        """Return the entities that have operations, oldest operation first."""
        ...
