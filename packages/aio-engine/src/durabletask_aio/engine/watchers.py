"""Who is told when an instance changes: clients that wait for it.  Called under the kernel's lock."""

from __future__ import annotations

from collections.abc import Callable

from durabletask_aio.engine.state import Instance

Watcher = Callable[["Instance | None"], bool]
"""Is told an instance after each of its commits, `None` once it is deleted; returns whether it has seen enough."""


class Watchers:
    """Functions that are called with an instance after each of its commits, until they return `True`."""

    def __init__(self) -> None:
        self._by_instance: dict[str, list[Watcher]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_instance.values()))

    def add(self, instance_id: str, watcher: Watcher) -> None:
        """Call a function from now on."""
        self._by_instance.setdefault(instance_id, []).append(watcher)

    def remove(self, instance_id: str, watcher: Watcher) -> None:
        """Do not call it any more, if it still is."""
        watchers = self._by_instance.get(instance_id, [])
        if watcher in watchers:
            watchers.remove(watcher)
            if not watchers:
                del self._by_instance[instance_id]

    def notify(self, instance_id: str, instance: Instance | None) -> None:
        """Call those of an instance."""
        watchers = self._by_instance.get(instance_id)
        if watchers is None:
            return
        left = [watcher for watcher in watchers if not watcher(instance)]
        if left:
            self._by_instance[instance_id] = left
        else:
            del self._by_instance[instance_id]

    def clear(self) -> list[Watcher]:
        """Remove all, and return them."""
        watchers = [watcher for group in self._by_instance.values() for watcher in group]
        self._by_instance.clear()
        return watchers
