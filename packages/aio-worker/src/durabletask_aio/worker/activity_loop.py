"""`ActivityLoop`: the event loop that async activities run on, either the user's or one of the worker's.

It is never upstream's, because upstream blocks its loop while it connects, waits to reconnect, or joins its reader
thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import logging

T = TypeVar("T")

_CANCEL_ROUNDS = 10
"""How often `close` cancels the remaining tasks, for those that catch the cancellation."""


class _ActivityTask(asyncio.Task[T]):
    """A task that records whether it was cancelled because its loop is being closed.

    `asyncio.run` cancels every task, outside of any running loop, once its main function has returned. That is not a
    failure of the activity, and another worker may have it.
    """

    cancelled_by_closing = False
    """Whether `cancel` was called outside of a running loop."""

    def cancel(self, msg: Any = None) -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.cancelled_by_closing = True
        return super().cancel(msg)


class ActivityLoop:
    """Runs coroutines for other threads, and can cancel those that have not finished."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._attached: asyncio.AbstractEventLoop | None = None
        self._own: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cancelling = False

    # -- the loop ------------------------------------------------------------------------------------------------

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run activities on this loop of the user's until `detach`."""
        self._attached = loop

    def detach(self) -> None:
        """Stop using the user's loop."""
        self._attached = None

    def is_current(self) -> bool:
        """Whether the calling thread runs this loop; waiting for activities there would be a deadlock."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return False
        return running is self._attached or running is self._own

    def _loop(self) -> asyncio.AbstractEventLoop:
        attached = self._attached
        if attached is not None:
            return attached
        with self._lock:
            if self._own is None:
                self._own = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._run, args=(self._own,), name="durabletask-aio-activities", daemon=True
                )
                self._thread.start()
            return self._own

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while not loop.is_closed():
            try:
                loop.run_forever()
                break
            except BaseException:
                self._logger.exception("A task of an async activity tried to end the event loop, which continues.")
        try:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()

    # -- running coroutines --------------------------------------------------------------------------------------

    def submit(self, function: Callable[[], Awaitable[T]], *, name: str) -> Future[T]:
        """Run `function` as a task of this name.

        Returns:
            A future that is done when the task is; it is never cancelled.
        """
        result: Future[T] = Future()
        result.set_running_or_notify_cancel()
        loop = self._loop()
        try:
            loop.call_soon_threadsafe(self._start, loop, function, name, result)
        except RuntimeError as error:  # The user has closed the loop inside of `async with worker`.
            result.set_exception(RuntimeError(f"the event loop of this worker's async activities is gone: {error}"))
        return result

    def _start(
        self, loop: asyncio.AbstractEventLoop, function: Callable[[], Awaitable[T]], name: str, result: Future[T]
    ) -> None:
        async def run() -> None:
            try:
                value = await function()
            except asyncio.CancelledError:
                result.set_exception(RuntimeError("the activity's task was cancelled"))
            except Exception as error:
                result.set_exception(error)
            except BaseException as error:
                # Upstream's loop waits for the result: the original exception would end it, and the worker with it.
                result.set_exception(RuntimeError(f"the activity's task raised {type(error).__name__}"))
            else:
                result.set_result(value)

        task = _ActivityTask(run(), loop=loop, name=name)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not result.done():  # Cancelled before its first step.
                result.set_exception(RuntimeError("the activity's task was cancelled before it began"))

        task.add_done_callback(done)
        if self._cancelling:
            task.cancel()

    # -- cancelling ----------------------------------------------------------------------------------------------

    def is_cancelling(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether `task` was cancelled because the worker stops or the loop is closed, and not by user code."""
        return (self._cancelling and task in self._tasks) or getattr(task, "cancelled_by_closing", False)

    @property
    def active(self) -> int:
        """The number of running activities."""
        return len(self._tasks)

    def names(self, limit: int = 10) -> str:
        """Return the names of up to `limit` running activities, and how many more there are, as text."""
        names = sorted(task.get_name() for task in list(self._tasks))
        return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")

    def open(self) -> None:
        """Accept activities (again); called when the worker starts."""
        self._cancelling = False

    def cancel_all(self) -> None:
        """Cancel all activities, those that are submitted later too; does not wait for them."""
        self._cancelling = True
        loop = self._attached or self._own
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._cancel_tasks)

    def _cancel_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def close(self, *, timeout: float | None = None) -> None:
        """End the worker's own loop and its thread, if there is one, and cancel the tasks that are left on it.

        Args:
            timeout: Seconds to wait for the thread; `None` to wait until it has ended.
        """
        with self._lock:
            loop, thread = self._own, self._thread
            self._own = self._thread = None
        if loop is None or thread is None:
            return
        # If the stop was interrupted, an activity can be among them; it has not failed, and another worker may have it.
        self._cancelling = True

        async def cancel_remaining() -> None:
            # Tasks that activities have started and not awaited.
            for _ in range(_CANCEL_ROUNDS):
                left = asyncio.all_tasks() - {asyncio.current_task()}
                if not left:
                    break
                for task in left:
                    task.cancel()
                await asyncio.wait(left, timeout=1)
            loop.stop()

        loop.call_soon_threadsafe(lambda: loop.create_task(cancel_remaining()))
        thread.join(timeout)
