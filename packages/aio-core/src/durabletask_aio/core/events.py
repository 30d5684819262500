"""A named external event as an async iterator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from durabletask_aio.core import _upstream_events
from durabletask_aio.core._upstream import task
from durabletask_aio.core.operations import Operation

T = TypeVar("T")


class EventStream(AsyncIterator[T]):
    """`async for payload in ctx.events("name")`: each event of that name, in the order in which they were raised.

    No event is lost: an iteration that is cancelled after its event has arrived, for example by a timeout, keeps the
    event for the next iteration; and `continue_as_new(save_events=True)` carries over what was not consumed.  It never
    ends by itself.
    """

    def __init__(self, name: str, wait: Callable[[], Operation[T]]) -> None:
        self._name = name
        self._wait = wait
        self._next: Operation[T] | None = None

    def __aiter__(self) -> EventStream[T]:
        return self

    async def __anext__(self) -> T:
        if self._next is None or self._next.cancelled():
            self._next = self._wait()
        payload = await self._next
        self._next = None
        return payload

    def _return_unconsumed(self, upstream: task.OrchestrationContext) -> None:
        """Return an event that arrived here but was not consumed to upstream's buffer."""
        waiting = self._next
        self._next = None
        if waiting is not None and waiting.done() and not waiting.cancelled() and waiting.exception() is None:
            payload: Any = waiting.result()
            _upstream_events.return_event(upstream, self._name, payload)
