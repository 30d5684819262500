"""`StepThreads`: runs the functions of steps, apart from the threads of turns and of activities.

In the threads of turns, or in upstream's pool, turns that wait for steps would take the threads that the steps need.
Async functions run on the event loop of the async activities, which the user may have given.  All threads are daemon
threads, because a step whose time is over continues in its thread.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from typing import TYPE_CHECKING, Any

from durabletask_aio.worker.daemon_threads import DaemonThreads

if TYPE_CHECKING:
    from durabletask_aio.worker.activity_loop import ActivityLoop

MAX_THREADS = 64
"""How many functions that are not async run at a time; others wait, and their time runs."""


class _AsyncStep(Future[Any]):
    """The future of an async step; cancelling it cancels the task."""

    task: asyncio.Task[Any] | None = None

    def cancel(self) -> bool:
        if super().cancel():
            return True
        task = self.task
        if task is not None and not self.done():
            task.get_loop().call_soon_threadsafe(task.cancel)
        return False


class StepThreads:
    """The threads of the steps of one worker; implements the core's `StepRunner`.  Thread-safe."""

    def __init__(self, loop: ActivityLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._threads: DaemonThreads | None = None
        self._deadlines = _Deadlines()

    def submit(self, function: Callable[[], Any], *, is_async: bool, name: str) -> Future[Any]:
        """Run a function, in a thread or on the event loop of the async activities.

        Returns:
            The future of its result.
        """
        if is_async:
            return self._await(function, name)
        with self._lock:
            if self._threads is None:
                self._threads = DaemonThreads(MAX_THREADS, "durabletask-aio-steps")
            return self._threads.submit(self._call, function, name)

    def _call(self, function: Callable[[], Any], name: str) -> Any:
        result = function()
        if inspect.isawaitable(result):  # as from a lambda
            return self._await(lambda: result, name).result()
        return result

    def _await(self, function: Callable[[], Any], name: str) -> Future[Any]:
        step = _AsyncStep()

        async def run() -> None:
            if not step.set_running_or_notify_cancel():
                return
            step.task = task = asyncio.current_task()
            try:
                result = await function()
            except BaseException as error:
                if self._loop.is_cancelling(task):
                    return  # The worker stops.  The turn is given back, and this step has no end.
                step.set_exception(error)
            else:
                step.set_result(result)

        def check_begun(begun: Future[None]) -> None:
            error = begun.exception()
            if error is not None and not step.running() and step.set_running_or_notify_cancel():
                step.set_exception(error)

        self._loop.submit(run, name=f"step {name}").add_done_callback(check_begun)
        return step

    def call_at(self, when: float, function: Callable[[], None]) -> None:
        """Call a short function at a time of `time.monotonic`, in a thread of these."""
        self._deadlines.add(when, function)

    def close(self) -> None:
        """End the threads, without waiting for functions that still run."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)
        self._deadlines.close()


class _Deadlines:
    """Calls functions at given times, in one daemon thread, which is started when it is needed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None

    def add(self, when: float, function: Callable[[], None]) -> None:
        """Call `function` at that time of `time.monotonic`."""
        with self._changed:
            heapq.heappush(self._due, (when, next(self._numbers), function))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="durabletask-aio-step-deadlines", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._thread is threading.current_thread() and (
                    not self._due or self._due[0][0] > time.monotonic()
                ):
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._thread is not threading.current_thread():
                    return
                function = heapq.heappop(self._due)[2]
            function()

    def close(self) -> None:
        """Forget what is due, and end the thread."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._due.clear()
            self._changed.notify_all()
        if thread is not None:
            thread.join()
