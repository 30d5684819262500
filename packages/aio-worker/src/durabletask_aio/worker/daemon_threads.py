"""`DaemonThreads`: a thread pool for code that may never return; neither `stop` nor the process has to wait for it.

The threads of `concurrent.futures` are joined when the interpreter ends, those that never end as well.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_logger = logging.getLogger("durabletask.aio.worker")

_current = threading.local()


@contextmanager
def waiting() -> Iterator[None]:
    """Have the pool of this thread use one thread more inside of the block, in which this one waits for something.

    A pool of one thread stays as it is: its calls are to run on that thread.
    """
    pool: DaemonThreads | None = getattr(_current, "pool", None)
    if pool is None or pool.is_single:
        yield
        return
    pool.change_number(1)
    try:
        yield
    finally:
        pool.change_number(-1)


class DaemonThreads(Executor):
    """At most `number` daemon threads, each created when all others are busy; calls begin first in, first out."""

    def __init__(self, number: int, name: str) -> None:
        self._number = number
        self.is_single = number == 1
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

        self._submit(call)
        return future

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function on one of the threads, without a future; what it raises is logged.

        Raises:
            RuntimeError: After `shutdown`.
        """

        def call() -> None:
            try:
                function(*arguments)
            except BaseException:
                _logger.exception("A call in a thread of the worker has raised")

        self._submit(call)

    def _submit(self, call: Callable[[], None]) -> None:
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("cannot submit a call after shutdown")
            self._calls.put(call)
            if self._waiting > 0 or len(self._threads) >= self._number:
                self._waiting -= 1
                return
            self._start_thread()

    def change_number(self, difference: int) -> None:
        """Allow so many threads more, or less.  Calls that wait begin in a new thread; threads do not end."""
        with self._lock:
            self._number += difference
            if self._waiting < 0 and len(self._threads) < self._number and not self._is_shut_down:
                self._waiting += 1
                self._start_thread()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        _current.pool = self
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
