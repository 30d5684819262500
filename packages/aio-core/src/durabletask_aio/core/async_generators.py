"""`AsyncGenerators`: the asynchronous generators of an instance, which are closed together with it.

A loop that is left before its generator has ended leaves the generator suspended.  Python would close it when it is
freed, at any time and on any thread, so the hooks of the event loop prevent that; not closed at all, it would keep what
its `finally` blocks release.
"""

from __future__ import annotations

import asyncio
from types import AsyncGeneratorType
from typing import Any, NamedTuple


class StartedGenerator(NamedTuple):
    """An asynchronous generator that has been iterated over."""

    generator: AsyncGeneratorType[Any, Any]
    task: asyncio.Task[Any] | None
    """The task that did it first."""

    @property
    def is_suspended(self) -> bool:
        """Whether it has not ended, and could be closed."""
        return self.generator.ag_frame is not None and not self.generator.ag_running


class AsyncGenerators:
    """Keeps the generators of an instance until they have ended."""

    def __init__(self) -> None:
        self._started: list[StartedGenerator] = []
        self._next_removal = 16

    def started(self, generator: AsyncGeneratorType[Any, Any], task: asyncio.Task[Any] | None) -> None:
        """Keep a generator; called when it is first iterated over."""
        if len(self._started) >= self._next_removal:
            self._started = [each for each in self._started if each.generator.ag_frame is not None]
            self._next_removal = max(16, 2 * len(self._started))
        self._started.append(StartedGenerator(generator, task))

    def take_suspended(self) -> list[StartedGenerator]:
        """Return the generators that have not ended, the latest first, and keep none of them any more."""
        started, self._started = self._started, []
        return [each for each in reversed(started) if each.is_suspended]
