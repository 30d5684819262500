"""Work items on their way to a worker, not yet put together: `encoding` makes messages or bytes of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from durabletask_aio.engine import events
from durabletask_aio.engine.state import Entity, InboxEvent, Instance, Operation, Task
from durabletask_aio.engine.streams import ACTIVITY, WorkItem
from durabletask_aio.engine.tokens import BatchToken, TaskToken, TurnToken


@dataclass
class TurnWork:
    """A turn on its way to a worker, not yet put together.

    Attributes:
        token: the completion token.
        instance: whose turn it is.
        chunks: its history: the first `chunk_count` of these.
        events: the new events.
        time: of the turn.
        continues: the lease on the turn before, if `chunks` is only what has been committed since its worker had it;
            empty for a whole history.
    """

    token: TurnToken
    instance: Instance
    chunks: list[bytes]
    chunk_count: int
    events: list[InboxEvent]
    time: int
    continues: str = ""

    def past(self) -> bytes:
        """The history, as fields of a request."""
        return b"".join(itertools.islice(self.chunks, self.chunk_count))

    def new(self) -> list[bytes]:
        """The new events, encoded."""
        return [events.orchestrator_started(self.time), *(each.event for each in self.events if each.event)]


@dataclass
class TaskWork:
    """An activity on its way to a worker."""

    token: TaskToken
    task: Task


@dataclass
class BatchWork:
    """A batch of operations on its way to a worker."""

    token: BatchToken
    entity: Entity
    operations: list[Operation]


def activity_item(task: Task) -> WorkItem:
    """Return an activity as an item of the queue."""
    return WorkItem(ACTIVITY, task.nonce, task.name, task.version, task, affinity=task.instance_id)


def task_of(item: WorkItem) -> Task:
    """Return the activity that an item of the queue is about."""
    assert isinstance(item.payload, Task)
    return item.payload


def is_of(executions: frozenset[str], item: WorkItem) -> bool:
    """Return whether an activity was called by one of some executions."""
    return task_of(item).execution_id in executions
