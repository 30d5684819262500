"""Stand-ins for upstream's context while the code of a workflow is not running."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from durabletask_aio.core._upstream import CompletableTask


class DetachedContext:
    """Raises, on any access, the exception that `make_error` returns for the accessed name."""

    __slots__ = ("_make_error",)

    def __init__(self, make_error: Callable[[str], BaseException]) -> None:
        self._make_error = make_error

    def __getattr__(self, name: str) -> NoReturn:
        raise self._make_error(name)


class NullContext:
    """Accepts every call of a context, schedules nothing and completes nothing.

    It replaces a `DetachedContext` when code that is being closed keeps calling: an operation that never completes
    suspends that code at its `await`, where `disposal` can leave it.
    """

    is_replaying = True
    parent_instance_id = None
    version = None
    _sequence_number = 0

    def __init__(self, instance_id: str, now: datetime) -> None:
        self.instance_id = instance_id
        self.current_utc_datetime = now
        # Looked at by the adapter when an operation on this context is cancelled.
        self._pending_tasks: dict[int, Any] = {}
        self._pending_events: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return self._schedule

    def _schedule(self, *args: Any, **kwargs: Any) -> Any:
        return CompletableTask[Any]()
