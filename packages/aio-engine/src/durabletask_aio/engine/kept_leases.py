"""The leases on activities that are in the file, so that they outlive the engine's process.

A lease is written only once it has lasted for a while: most activities are over by then.
"""

from __future__ import annotations

import itertools

from durabletask_aio.engine.streams import Lease, WorkItem

KEEP_LEASE_AFTER = 0.05
"""Seconds after which the lease on an activity is kept in the file: it is its worker's when the engine starts again."""


class KeptLeases:
    """Which leases have to be written, and which of those that were are over."""

    def __init__(self) -> None:
        """Begin without any."""
        self._new: dict[str, Lease] = {}
        """Leases that are not in the file, the oldest first."""
        self._over: list[WorkItem] = []
        """Activities of which the file has a lease that is over."""

    def add(self, lease: Lease) -> None:
        """A worker has been given an activity."""
        self._new[lease.id] = lease

    def forget(self, lease_id: str) -> None:
        """A lease is over, whether it is in the file or not: its activity is done, or `end` has been called."""
        self._new.pop(lease_id, None)

    def end(self, lease: Lease) -> None:
        """A lease is over, and its activity is not done: what the file has of it must not stay."""
        if lease.is_kept:
            self._over.append(lease.item)

    def due(self, now: float) -> float | None:
        """Return when `take` has something to return next, `None` if that is not known."""
        if self._over:
            return now
        for lease in self._new.values():
            return lease.since + KEEP_LEASE_AFTER
        return None

    def take(self, now: float) -> tuple[list[Lease], list[WorkItem]]:
        """Return the leases that have lasted for a while, and the activities whose lease is over, each once."""
        if not self._new and not self._over:
            return [], []
        until = now - KEEP_LEASE_AFTER
        leases = list(itertools.takewhile(lambda lease: lease.since <= until, self._new.values()))
        for lease in leases:
            lease.is_kept = True
            del self._new[lease.id]
        over, self._over = self._over, []
        return leases, over
