"""Cleanups registered with ``ctx.add_cleanup``, and the blocks of ``async with ctx:`` at whose end they run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from durabletask_aio.core.errors import add_note


class Cleanups:
    """A stack of blocks, each a stack of callables; the bottom one is the workflow function itself."""

    __slots__ = ("_blocks",)

    def __init__(self) -> None:
        self._blocks: list[list[Callable[[], Any]]] = [[]]

    def add(self, cleanup: Callable[[], Any]) -> None:
        """Register ``cleanup`` with the innermost open block."""
        self._blocks[-1].append(cleanup)

    def open(self) -> None:
        """A block begins."""
        self._blocks.append([])

    async def close(self, error: BaseException | None) -> None:
        """A block ends, with ``error`` or without: run its cleanups, the latest first, each one in any case.

        The first cleanup that fails makes a block fail that would not have failed; it does not replace ``error``, of
        which it becomes a note.
        """
        block = self._blocks[-1]
        if len(self._blocks) > 1:
            self._blocks.pop()
        failed: BaseException | None = None
        while block:
            cleanup = block.pop()
            try:
                result = cleanup()
                if inspect.isawaitable(result):
                    await result
            except (GeneratorExit, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as problem:
                if error is not None or failed is not None:
                    add_note(error or failed, f"a cleanup failed too, with {type(problem).__name__}: {problem}")
                else:
                    failed = problem
        if failed is not None:
            raise failed

    def as_data(self) -> int:
        """How many cleanups are waiting to be run."""
        return sum(map(len, self._blocks))
