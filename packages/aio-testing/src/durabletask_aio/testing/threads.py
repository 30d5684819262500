"""The threads of the local server: as many as there is work, and none that keeps a program from ending."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")

_IDLE_SECONDS = 10.0


class DaemonThreads(Executor):
    """An executor that always has a thread for one more task.

    ``ThreadPoolExecutor`` has a limit, and behind it waiting clients would starve the worker whose results they wait
    for.  It also makes the interpreter wait for its threads, which would keep a program that forgot to stop its engine
    alive for ever.
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
                raise RuntimeError("the local engine has been stopped")
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
                found = self._changed.wait_for(lambda: self._tasks or self._closed, _IDLE_SECONDS)
                self._idle -= 1
                if not self._tasks:
                    if self._closed or not found:
                        self._threads.discard(threading.current_thread())
                        return
                    continue
                task = self._tasks.popleft()
            task()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end; ``wait`` for them."""
        with self._changed:
            self._closed = True
            if cancel_futures:
                self._tasks.clear()
            self._changed.notify_all()
            left = list(self._threads)
        if wait:
            for thread in left:
                if thread is not threading.current_thread():
                    thread.join()
