"""A command that waits for its transaction."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from durabletask_aio.engine.commands import Transaction


class PendingCommand:
    """A command that waits for its transaction.

    Attributes:
        command: the command.
        future: for a caller that does not wait on its own thread.
        is_done: whether `result` or `error` says what has come of it.
    """

    __slots__ = ("command", "error", "future", "is_done", "result")

    def __init__(self, command: Callable[[Transaction], Any], future: Future[Any] | None = None) -> None:
        self.command = command
        self.future = future
        self.is_done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def finish(self, result: Any, error: BaseException | None = None) -> None:
        """Say what has come of it."""
        self.result, self.error = result, error
        self.is_done = True
        if self.future is None:
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)
