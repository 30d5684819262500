"""`WorkItem`: what the adapter to upstream makes of a message of the engine, for `WorkItems` to take to its thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from durabletask_aio.worker.leases import lease_of

if TYPE_CHECKING:
    from durabletask_aio.worker.work_stream import WorkStream


class WorkItem:
    """One work item: how it is executed and abandoned, and what it came with.

    Args:
        kind: `TURN`, `ACTIVITY` or `ENTITY_BATCH`.
        execute: Executes it; called with the three that follow `cancel`.
        cancel: Returns it to the engine; called with the same.
        request: What the engine asks for.
        stub: Where the outcome goes.
        token: The completion token of the item.
        stream: The stream that it came by, if that is known.
        release: Called when nothing needs the channel of this item any more.
    """

    __slots__ = (
        "cancel",
        "execute",
        "has_ended",
        "is_bound_to_stream",
        "kind",
        "lease",
        "outlives_stream",
        "release",
        "request",
        "stream",
        "stub",
        "token",
    )

    def __init__(
        self,
        kind: str,
        execute: Callable[..., Any],
        cancel: Callable[..., Any],
        request: Any,
        stub: Any,
        token: str,
        *,
        stream: WorkStream | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:
        self.kind = kind
        self.execute = execute
        self.cancel = cancel
        self.request = request
        self.stub = stub
        self.token = token
        self.stream = stream
        self.release = release
        self.lease: str | None = None
        self.outlives_stream = lease_of(token) is not None
        """Whether the engine takes its result after the stream has ended."""
        self.has_ended = False
        self.is_bound_to_stream = False
        """Whether the end of the stream waits for it."""
