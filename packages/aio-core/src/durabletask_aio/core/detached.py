"""`DetachedContext`: stands in for upstream's context while the code of a workflow is not running."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn


class DetachedContext:
    """Raises, on any access, the exception that `make_error` returns for the accessed name."""

    __slots__ = ("_make_error",)

    def __init__(self, make_error: Callable[[str], BaseException]) -> None:
        self._make_error = make_error

    def __getattr__(self, name: str) -> NoReturn:
        raise self._make_error(name)
