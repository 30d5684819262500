"""`DaemonThreads`: the thread pool of the server, which grows with its load and never delays interpreter exit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")

_IDLE_TIMEOUT = 10.0
"""Seconds after which a thread without work ends."""


class DaemonThreads(Executor):
    """An executor without an upper limit of threads, all of them daemon threads.

    `ThreadPoolExecutor` has a limit: clients that wait for results would occupy every thread, and the worker that
    produces these results could not be served.  It also joins its threads at interpreter exit, so a program that forgot
    to stop its engine would never end.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._tasks: deque[Callable[[], None]] = deque()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._closed = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._changed:
            if self._closed:
                raise RuntimeError("the engine has been stopped")
            self._tasks.append(run)
            if self._idle >= len(self._tasks):
                self._changed.notify()
            else:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._threads.add(thread)
                thread.start()
        return future

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                woken = self._changed.wait_for(lambda: self._tasks or self._closed, _IDLE_TIMEOUT)
                self._idle -= 1
                if not self._tasks:
                    if self._closed or not woken:
                        self._threads.discard(threading.current_thread())
                        return
                    continue
                task = self._tasks.popleft()
            task()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end once the queue is empty; `wait` joins them, `cancel_futures` empties the queue first."""
        with self._changed:
            self._closed = True
            if cancel_futures:
                self._tasks.clear()
            self._changed.notify_all()
            threads = list(self._threads)
        if wait:
            for thread in threads:
                if thread is not threading.current_thread():
                    thread.join()
