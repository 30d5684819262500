"""`DaemonThreads`: the thread pool of the server, which grows with its load and never delays interpreter exit."""

from __future__ import annotations

import queue
import threading
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
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        """Threads that wait for a task which has not been submitted yet."""
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

        with self._lock:
            if self._closed:
                raise RuntimeError("the engine has been stopped")
            self._tasks.put(run)
            if self._idle:
                self._idle -= 1
            else:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._threads.add(thread)
                thread.start()
        return future

    def _work(self) -> None:
        while True:
            try:
                task = self._tasks.get(timeout=_IDLE_TIMEOUT)
            except queue.Empty:
                with self._lock:
                    if not self._idle:
                        continue  # a task for this thread has just been submitted
                    self._idle -= 1
                    self._threads.discard(threading.current_thread())
                    return
            if task is None:
                return
            task()
            with self._lock:
                self._idle += 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end once the queue is empty; `wait` joins them, `cancel_futures` empties the queue first."""
        with self._lock:
            self._closed = True
            while cancel_futures and not self._tasks.empty():
                self._tasks.get_nowait()
            threads = list(self._threads)
            self._threads.clear()
            for _ in threads:
                self._tasks.put(None)
        if wait:
            for thread in threads:
                if thread is not threading.current_thread():
                    thread.join()
