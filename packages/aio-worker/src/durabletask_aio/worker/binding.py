"""The async side of one worker instance: turns, activities, and the threads that serve them.

It is stored on the instance.  On upstream's own class these are instance attributes, so another worker in the same
process that only runs generator orchestrators keeps every method of upstream's.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any, cast

from durabletask.entities import DurableEntity

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.core.hosting import function_name
from durabletask_aio.worker import _upstream
from durabletask_aio.worker.activities import Activities
from durabletask_aio.worker.activity_functions import is_async
from durabletask_aio.worker.activity_loop import ActivityLoop
from durabletask_aio.worker.instance_threads import InstanceThreads
from durabletask_aio.worker.options import Settings
from durabletask_aio.worker.sessions import ExtendedSessionStats, Session
from durabletask_aio.worker.turn_watchdog import TurnWatchdog
from durabletask_aio.worker.turns import Turns

_ATTRIBUTE = "_durabletask_aio"
_MAX_INTERVAL = 30.0
"""Seconds between two checks for idle sessions, at most."""

_NAMED_AFTER = 5.0
"""Seconds after which activities that ignore their cancellation are named in the log: `stop` waits for them."""


class Binding:
    """The async side of one worker."""

    def __init__(self, worker: _upstream.Worker, settings: Settings) -> None:
        self.worker = worker
        self.settings = settings
        self.logger = _upstream.logger_of(worker)
        interval = min(_MAX_INTERVAL, max(settings.extended_session_idle_timeout / 2, 0.05))
        self._watchdog = TurnWatchdog(self.logger, settings.slow_turn_warning, interval)
        self.loop = ActivityLoop(self.logger)
        self.threads = InstanceThreads(_upstream.pool_size_of(worker))
        self.turns = Turns(worker, settings, self._watchdog, self.threads)
        self.activities = Activities(worker, self.loop)
        # Reentrant, for signal handlers: a second signal can arrive during the stop that the first one has started.
        self._stop_lock = threading.RLock()

    @property
    def stats(self) -> ExtendedSessionStats:
        return self.turns.sessions.stats

    # -- lifecycle ------------------------------------------------------------------------------------------------

    def start(self, start: Callable[[], None]) -> None:
        """Start the worker; `start` is upstream's method."""
        if _upstream.is_running(self.worker):
            start()  # raises
            return
        self.activities.is_stopping = False
        self.loop.open()
        self.threads.open()
        self.turns.sessions.open()
        self._watchdog.start(self._evict_idle)
        try:
            start()
        except BaseException:
            self._watchdog.stop()
            raise

    def stop(self, stop: Callable[[], None]) -> None:
        """Stop the worker; `stop` is upstream's method.

        Async activities get the grace period; all threads and sessions of ours have ended when this returns.

        Raises:
            RuntimeError: on the event loop that runs the async activities, for which it would wait.
        """
        if not _upstream.is_running(self.worker):
            stop()
            return
        if self.loop.blocks():
            raise RuntimeError(
                "stop() would wait for async activities on the very event loop that runs them\n"
                "  wrong: worker.stop()                           # on that loop\n"
                "  right: async with worker: ...                  # stops when the block ends\n"
                "  right: await asyncio.to_thread(worker.stop)"
            )
        with self._stop_lock:
            if not _upstream.is_running(self.worker):
                return
            self.activities.is_stopping = True
            stopped = threading.Event()
            grace = threading.Thread(
                target=self._end_grace, args=(stopped,), name="durabletask-aio-grace-period", daemon=True
            )
            grace.start()
            has_stopped = False
            try:
                stop()
                has_stopped = True
            finally:
                stopped.set()
                grace.join()
                self._watchdog.stop()
                self._dispose(self.turns.sessions.close())
                self.threads.close(wait=has_stopped)
                self.activities.close()
                self.loop.close()

    def _end_grace(self, stopped: threading.Event) -> None:
        """Cancel the activities that still run when the grace period is over, and name those that do not end."""
        if stopped.wait(min(self.settings.stop_grace_period, threading.TIMEOUT_MAX)):
            return
        count = self.loop.active
        if count:
            self.logger.info(
                "The grace period of %.1f s is over: cancelling %d async activities, which the engine will hand out "
                "again",
                self.settings.stop_grace_period,
                count,
            )
        self.loop.cancel_all()
        if not stopped.wait(_NAMED_AFTER) and (left := self.loop.names()):
            self.logger.warning("Waiting for async activities that go on although they were cancelled: %s", left)

    def cancel_now(self) -> None:
        """End the grace period of a stop that is in progress."""
        self.loop.cancel_all()

    def _evict_idle(self) -> None:
        self._dispose(self.turns.sessions.expire())

    def _dispose(self, sessions: list[Session]) -> None:
        for session in sessions:
            self.threads.dispose(session)


def binding_of(worker: _upstream.Worker) -> Binding | None:
    """Return the binding of `worker`, or `None` if it has been given no async code."""
    return cast("Binding | None", vars(worker).get(_ATTRIBUTE))


def bind(worker: _upstream.Worker, settings: Settings | None = None, *, lifecycle: bool = True) -> Binding:
    """Give this one worker our execution of turns, async activities and extended sessions.

    Binding a worker twice changes nothing.

    Args:
        worker: the worker.
        settings: its options; by default those of a worker without options.
        lifecycle: whether to replace `start`, `stop` and `add_entity` too; not for classes that define them themselves.

    Returns:
        The binding.
    """
    existing = binding_of(worker)
    if existing is not None:
        return existing
    binding = Binding(worker, settings or Settings.checked({}, generator_sessions=False))
    setattr(worker, _ATTRIBUTE, binding)
    _upstream.set_turn(worker, binding.turns.execute)
    _upstream.set_activity(worker, binding.activities.execute)
    _upstream.set_activity_submission(worker, binding.activities.submission)
    _upstream.set_turn_submission(worker, lambda submit: binding.threads.submission(submit, binding.turns.may_live_on))
    if not _upstream.overrides_entities(worker):
        _upstream.set_entities(worker, _upstream.entity_execution())
    if lifecycle:
        # Looked up on the class at each call, so that later replacements of the class's methods are called too.
        own: Any = worker
        kind: Any = type(worker)

        def add_entity(fn: Any, name: str | None = None) -> str:
            return cast(str, kind.add_entity(worker, checked_entity(fn), name))

        own.start = lambda: binding.start(lambda: kind.start(worker))
        own.stop = lambda: binding.stop(lambda: kind.stop(worker))
        own.add_entity = add_entity
        own.extended_session_stats = binding.stats
    return binding


def checked_entity(function: Any) -> Any:
    """Return the entity function or class.

    Raises:
        WorkflowValidationError: if it is async, or has an async operation: upstream could not await it.
    """
    offender = None
    if inspect.isclass(function) and issubclass(function, DurableEntity):
        offender = next(
            (
                f"{function.__name__}.{name}"
                for name, member in inspect.getmembers(function)
                if not name.startswith("_") and is_async(member)
            ),
            None,
        )
    elif is_async(function):
        offender = function_name(function)
    if offender is not None:
        name = offender.rpartition(".")[2]
        raise WorkflowValidationError(
            f"entity operations cannot be async: {offender} is a coroutine function, and an entity holds its lock "
            f"while it runs\n"
            f"  wrong: async def {name}(...): ...\n"
            f"  right: def {name}(...): ...    # await in an activity, and signal the entity after"
        )
    return function
