"""How messages name operations and other awaitables."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from typing import Any

from durabletask_aio.core.operations import ScheduledOperation

AWAITABLES: tuple[type[Any], ...] = (asyncio.Future, Coroutine)
"""What a forgotten `await` leaves behind, for `isinstance`."""


def describe_awaitable(value: Any) -> str:
    """Describe an awaitable as its author knows it."""
    if isinstance(value, ScheduledOperation):
        return value.description
    if inspect.iscoroutine(value):
        return f"a coroutine, {value.__qualname__}(...),"
    if isinstance(value, asyncio.Task):
        return f"task {value.get_name()!r}"
    return f"a {type(value).__name__}"


def call_of(value: Any) -> str:
    """Return the call that made an awaitable, as its author may have written it."""
    return value.call_text if isinstance(value, ScheduledOperation) else "work()"


def close_if_coroutine(value: Any) -> None:
    """Close `value` if it is a coroutine, or Python warns, in addition to our error, that it was never awaited."""
    if inspect.iscoroutine(value):
        value.close()
