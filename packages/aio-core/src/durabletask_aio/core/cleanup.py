"""Cleanups registered with `ctx.add_cleanup`, and the `async with ctx:` blocks at whose end they run."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from durabletask_aio.core.errors import add_note, message_of


class _Block:
    """The cleanups of one `async with ctx:`, and the block around it."""

    __slots__ = ("around", "cleanups", "is_open")

    def __init__(self, around: _Block | None) -> None:
        self.around = around
        self.cleanups: list[Callable[[], Any]] = []
        self.is_open = True


_innermost: ContextVar[_Block | None] = ContextVar("durabletask_aio_cleanups", default=None)
"""The block that the running code is in.

A context variable, and not a stack of the instance, because concurrent tasks open and close blocks in any order, and
each runs the cleanups of its own.  A task that is started inside a block is in that block, as long as it is open.
"""


def _note(first: BaseException, problem: BaseException) -> None:
    """Add a failure of a cleanup as a note to the exception before it; errors of odd exception types are ignored."""
    with contextlib.suppress(Exception):
        add_note(first, f"a cleanup failed too, with {type(problem).__name__}: {message_of(problem)}")


class Cleanups:
    """The blocks of one execution; the outermost one is the workflow function itself."""

    __slots__ = ("_blocks", "_function")

    def __init__(self) -> None:
        self._function = _Block(None)
        self._blocks = {self._function: None}
        """The open blocks, in the order they were opened."""

    def _current(self) -> _Block:
        block = _innermost.get()
        while block is not None and not (block.is_open and block in self._blocks):
            block = block.around
        return self._function if block is None else block

    def add(self, cleanup: Callable[[], Any]) -> None:
        """Register `cleanup` with the innermost open block."""
        self._current().cleanups.append(cleanup)

    def open(self) -> None:
        """Open a block."""
        block = _Block(self._current())
        self._blocks[block] = None
        _innermost.set(block)

    async def close(self, error: BaseException | None) -> None:
        """Close the current block and run all its cleanups, the latest first.

        Args:
            error: the exception with which the block ends, or `None`.

        Raises:
            BaseException: the first failure of a cleanup, if the block ends without an error; otherwise a failure is
                added to `error` as a note.
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

    def pending_count(self) -> int:
        """Return how many cleanups have not been run yet."""
        return sum(len(block.cleanups) for block in self._blocks)
