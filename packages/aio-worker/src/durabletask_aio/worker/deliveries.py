"""`Deliveries`: the calls to the engine that no thread of turns or activities waits for.

The result of an async activity leaves as a future, so that a thousand activities that end at the same time do not wait
for each other's calls.  What can block, such as returning a work item, runs on a few threads: upstream's pool may be
full of sync activities, and the event loop of the async ones may be the user's.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

_THREADS = 4

MAX_CALLS = 256
"""How many calls are in flight at most; the others wait, so that an engine that is slow is not given all at once."""


class Deliveries:
    """The calls to the engine of one worker.  Thread-safe."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._in_flight = 0
        self._waiting: deque[tuple[Callable[[], Any], Callable[[Exception | None], None]]] = deque()

    def run_in_thread(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function that may block, on another thread."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="durabletask-aio-delivery")
            self._executor.submit(function, *arguments)

    def send(self, start: Callable[[], Any], done: Callable[[Exception | None], None]) -> None:
        """Make a call to the engine without waiting for its outcome.

        Args:
            start: Starts the call and returns its gRPC future; called now, or when another call has ended.
            done: Called with the error of the call, or with `None`, on another thread, where it may block.
        """
        with self._lock:
            if self._in_flight >= MAX_CALLS:
                self._waiting.append((start, done))
                return
            self._in_flight += 1
        self._start(start, done)

    def _start(self, start: Callable[[], Any], done: Callable[[Exception | None], None]) -> None:
        def ended(call: Any) -> None:
            # gRPC calls back on the thread that serves its channel, where the channel must not be closed.
            self.run_in_thread(self._ended, call, done)

        try:
            start().add_done_callback(ended)
        except Exception as error:  # The channel is closed.
            self.run_in_thread(self._has_ended, error, done)

    def _ended(self, call: Any, done: Callable[[Exception | None], None]) -> None:
        try:
            error = call.exception()
        except grpc.FutureCancelledError as cancelled:
            error = cancelled
        self._has_ended(error, done)

    def _has_ended(self, error: Exception | None, done: Callable[[Exception | None], None]) -> None:
        with self._lock:
            following = self._waiting.popleft() if self._waiting else None
            if following is None:
                self._in_flight -= 1
        if following is not None:
            self._start(*following)
        done(error)

    def close(self) -> None:
        """End the threads, after what they were given; called when the worker has stopped."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True)
