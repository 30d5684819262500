"""A queue of work items, by their names and versions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from durabletask_aio.engine.streams import WorkerStream, WorkItem, WorkKind


class WorkQueue:
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
        """Return the item of that key, `None` if there is none."""
        place = self._places.get(key)
        return None if place is None else self._by_name[place][key][1]

    def append(self, item: WorkItem) -> None:
        """Put an item last."""
        self._next += 1
        self._put(item, self._next)

    def put_first(self, item: WorkItem) -> None:
        """Put an item before all others."""
        self._first -= 1
        self._put(item, self._first)
        self._by_name[item.name, item.version].move_to_end(item.key, last=False)

    def _put(self, item: WorkItem, order: int) -> None:
        place = item.name, item.version
        self._places[item.key] = place
        self._by_name.setdefault(place, OrderedDict())[item.key] = order, item

    def discard(self, key: str) -> None:
        """Take an item out, if it is there."""
        place = self._places.pop(key, None)
        if place is not None:
            items = self._by_name[place]
            del items[key]
            if not items:
                del self._by_name[place]

    def discard_if(self, condition: Callable[[WorkItem], bool]) -> None:
        """Take some items out."""
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
