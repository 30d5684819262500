"""Cleanups registered with ``ctx.add_cleanup``, and the blocks of ``async with ctx:`` at whose end they run."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from durabletask_aio.core.errors import add_note, message_of


class _Block:
    """The cleanups of one ``async with ctx:``, and the block around it."""

    __slots__ = ("around", "cleanups", "is_open")

    def __init__(self, around: _Block | None) -> None:
        self.around = around
        self.cleanups: list[Callable[[], Any]] = []
        self.is_open = True


_innermost: ContextVar[_Block | None] = ContextVar("durabletask_aio_cleanups", default=None)
"""The block that the running code is in.

A context variable, not a stack of the instance: tasks that run side by side open and close blocks in any order, and
each is to clean up after itself.  A task that is started inside a block is in that block, as long as it is open.
"""


def _note(first: BaseException, problem: BaseException) -> None:
    """Note a ``problem`` of a cleanup on the failure that comes first, as far as the two let themselves be handled."""
    with contextlib.suppress(Exception):
        add_note(first, f"a cleanup failed too, with {type(problem).__name__}: {message_of(problem)}")


class Cleanups:
    """The blocks of one execution; the outermost one is the workflow function itself."""

    __slots__ = ("_blocks", "_function")

    def __init__(self) -> None:
        self._function = _Block(None)
        self._blocks = {self._function: None}
        """Those that are open, in the order they were opened."""

    def _current(self) -> _Block:
        block = _innermost.get()
        while block is not None and not (block.is_open and block in self._blocks):
            block = block.around
        return self._function if block is None else block

    def add(self, cleanup: Callable[[], Any]) -> None:
        """Register ``cleanup`` with the innermost open block."""
        self._current().cleanups.append(cleanup)

    def open(self) -> None:
        """A block begins."""
        block = _Block(self._current())
        self._blocks[block] = None
        _innermost.set(block)

    async def close(self, error: BaseException | None) -> None:
        """A block ends, with ``error`` or without: run its cleanups, the latest first, each one in any case.

        The first cleanup that fails makes a block fail that would not have failed; it does not replace ``error``, of
        which it becomes a note.
        """
        block = self._current()
        if block is not self._function:
            block.is_open = False
            del self._blocks[block]
            _innermost.set(block.around)
        failed: BaseException | None = None
        while block.cleanups:
            cleanup = block.cleanups.pop()
            try:
                result = cleanup()
                if inspect.isawaitable(result):
                    await result
            except (GeneratorExit, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as problem:
                first = failed if error is None else error
                if first is None:
                    failed = problem
                else:
                    _note(first, problem)
        if failed is not None:
            raise failed

    def as_data(self) -> int:
        """How many cleanups are waiting to be run."""
        return sum(len(block.cleanups) for block in self._blocks)
