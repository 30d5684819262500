"""Work items that a worker has given back, until they are dispatched again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from durabletask_aio.engine.streams import WorkItem

ABANDON_PAUSE = 0.1
"""Seconds until an abandoned item is dispatched again, perhaps to the worker that has abandoned it."""

SECOND_ABANDON_PAUSE = 1.0
MAX_ABANDON_PAUSE = 30.0
"""The same, if no other worker is there for the item: the pause grows fourfold from the one to the other."""


class PausedItems:
    """Items that are dispatched again after a pause.  Iterating yields them."""

    def __init__(self) -> None:
        """Begin without any."""
        self._items: list[tuple[float, WorkItem]] = []

    def __iter__(self) -> Iterator[WorkItem]:
        return (item for _, item in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: WorkItem, now: float) -> None:
        """Add an item that could not be read; it is tried again soon."""
        self._items.append((now + ABANDON_PAUSE, item))

    def add_abandoned(self, item: WorkItem, now: float, *, by_all: bool) -> None:
        """Add an item that a worker has given back.

        The pause grows if all workers that serve the item have given it back.  Otherwise items that no worker can
        execute, such as those whose history does not fit the code of a deployment, would keep engine and workers busy.

        Args:
            item: the item.
            now: the time, in seconds.
            by_all: whether no other worker is there for it.
        """
        if not item.pause or not by_all:
            item.pause = ABANDON_PAUSE
        else:
            item.pause = max(min(max(item.pause * 4, SECOND_ABANDON_PAUSE), MAX_ABANDON_PAUSE), ABANDON_PAUSE)
        self._items.append((now + item.pause, item))

    def take_due(self, now: float) -> list[WorkItem]:
        """Return the items whose pause is over, which are paused no more."""
        ready = [item for due, item in self._items if due <= now]
        self._items = [each for each in self._items if each[0] > now]
        return ready

    def take_long(self, condition: Callable[[WorkItem], bool]) -> list[WorkItem]:
        """Return the items that all workers have given back, if they fulfil a condition; they are paused no more."""
        ready = [item for item in self if item.pause > ABANDON_PAUSE and condition(item)]
        released = {id(item) for item in ready}
        self._items = [each for each in self._items if id(each[1]) not in released]
        return ready

    def discard_if(self, condition: Callable[[WorkItem], bool]) -> None:
        """Forget some items."""
        self._items = [each for each in self._items if not condition(each[1])]

    @property
    def due(self) -> list[float]:
        """When the pauses end."""
        return [due for due, _ in self._items]
