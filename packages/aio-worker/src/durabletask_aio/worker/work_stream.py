"""`WorkStream`: one stream of work items, which passes the items on from the thread that reads it.

Upstream's worker opens a stream, reads it on a thread, watches for its end, and connects again; all of that stays as it
is.  This object is what it reads.  Only what is no work item gets through to upstream, and a health ping from time to
time in place of the work items, since upstream takes a stream without any message for dead.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Container, Iterator
from typing import Any

from durabletask_aio.worker._upstream import pb

PINGS_PER_TIMEOUT = 4
"""How often upstream is told within its timeout that a stream is alive."""


class WorkStream:
    """A stream of work items in place of the gRPC call; upstream's worker reads and cancels it.

    Args:
        call: The call, an iterator of work items that can be cancelled.
        submit: Passes on a work item; called with this stream, the item, and the name of its request.
        requests: The names of the requests of work items.
        drop: Called with this stream when it has ended while the worker runs.
        ended: Called with this stream when it has ended, in any case.
        is_stopping: Whether the worker stops.
        timeout: Seconds without a message after which upstream takes the stream for dead; `0` for no limit.
        logger: The worker's.
    """

    def __init__(
        self,
        call: Any,
        submit: Callable[[WorkStream, Any, str], None],
        requests: Container[str],
        drop: Callable[[WorkStream], None],
        ended: Callable[[WorkStream], None],
        is_stopping: Callable[[], bool],
        timeout: float,
        logger: logging.Logger,
    ) -> None:
        self._call = call
        self._submit = submit
        self._requests = requests
        self._drop = drop
        self._ended = ended
        self._is_stopping = is_stopping
        self._interval = timeout / PINGS_PER_TIMEOUT if timeout else math.inf
        self._logger = logger
        self.has_ended = False
        self.is_stale = False
        """Whether the stream has ended while the worker runs: the engine gives to others what it has sent by it."""

    def __iter__(self) -> Iterator[Any]:
        """Iterate over what is no work item, and pass on the work items meanwhile."""
        told = -math.inf
        try:
            for message in self._call:
                request: str = message.WhichOneof("request")
                if request not in self._requests:
                    yield message
                    continue
                if self._is_stopping():
                    continue  # Upstream, too, submits nothing after that.
                self._logger.debug('Received "%s" work item', request)
                self._submit(self, message, request)
                now = time.monotonic()
                if now - told >= self._interval:
                    told = now
                    yield pb.WorkItem(healthPing=pb.HealthPing())
        finally:
            self._end()
            self.has_ended = True
            self._ended(self)

    def cancel(self) -> Any:
        """Cancel the call, and abandon what has not begun unless the worker stops."""
        self._end()
        return self._call.cancel()

    def _end(self) -> None:
        if not self.is_stale and not self._is_stopping():
            self.is_stale = True
            self._drop(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)
