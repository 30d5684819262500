"""`DaemonThreads`: a thread pool for code that may never return; neither `stop` nor the process has to wait for it.

The threads of `concurrent.futures` are joined when the interpreter ends, those that never end as well.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThreads(Executor):
    """At most `number` daemon threads, each created when all others are busy; calls begin first in, first out."""

    def __init__(self, number: int, name: str) -> None:
        self._number = number
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        """Threads that wait for a call, minus the calls that no thread has taken yet."""
        self._threads: list[threading.Thread] = []
        self._is_shut_down = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call a function on one of the threads.

        Returns:
            The future of its result.

        Raises:
            RuntimeError: After `shutdown`.
        """
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("cannot submit a call after shutdown")
            self._calls.put(call)
            if self._waiting > 0 or len(self._threads) >= self._number:
                self._waiting -= 1
                return future
            thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                self._calls.put(None)  # for the next thread
                return
            call()
            del call  # which may refer to a whole history, until the next one comes
            with self._lock:
                self._waiting += 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, leave: Collection[int] = ()) -> None:
        """End the threads after the calls that have been submitted.

        Args:
            wait: Whether to wait for their end.
            cancel_futures: Not used: all calls are executed.
            leave: The identifiers of threads that are not waited for.
        """
        with self._lock:
            self._is_shut_down = True
            self._calls.put(None)
        if wait:
            for thread in self._threads:
                if thread.ident not in leave:
                    thread.join()
