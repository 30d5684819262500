"""What one worker instance has once it has seen async code: turns, activities, and the threads that serve them.

Everything hangs on the instance.  On upstream's own class these are instance attributes, so another worker in the same
process, one that only ever sees generator orchestrators, keeps every method of upstream's.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any, cast

from durabletask.entities import DurableEntity

from durabletask_aio.core.errors import WorkflowValidationError
from durabletask_aio.core.functions import function_name as callable_name
from durabletask_aio.core.functions import is_coroutine_callable
from durabletask_aio.worker import _upstream
from durabletask_aio.worker.activities import Activities
from durabletask_aio.worker.activity_loop import ActivityLoop
from durabletask_aio.worker.instance_threads import InstanceThreads
from durabletask_aio.worker.options import Settings
from durabletask_aio.worker.sessions import ExtendedSessionStats, Session
from durabletask_aio.worker.turn_watchdog import TurnWatchdog
from durabletask_aio.worker.turns import Turns

_ATTRIBUTE = "_durabletask_aio"
_LONGEST_TICK = 30.0

_PATIENCE = 5.0
"""Seconds after which activities that ignore their cancellation are named: it is they that a stop waits for."""


class Binding:
    """The async side of one worker."""

    def __init__(self, worker: _upstream.Worker, settings: Settings) -> None:
        self.worker = worker
        self.settings = settings
        self.logger = _upstream.logger_of(worker)
        tick = min(_LONGEST_TICK, max(settings.extended_session_idle_timeout / 2, 0.05))
        self._watchdog = TurnWatchdog(self.logger, settings.slow_turn_warning, tick)
        self.loop = ActivityLoop(self.logger)
        self.threads = InstanceThreads(_upstream.pool_size_of(worker))
        self.turns = Turns(worker, settings, self._watchdog, self.threads)
        self.activities = Activities(worker, self.loop)
        # Reentrant, for signal handlers: a second signal arrives in the middle of the stop that the first asked for.
        self._stop_lock = threading.RLock()

    @property
    def stats(self) -> ExtendedSessionStats:
        return self.turns.sessions.stats

    # Lifecycle ----------------------------------------------------------------------------------------------

    def start(self, start: Callable[[], None]) -> None:
        """Around upstream's ``start``."""
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
        """Around upstream's ``stop``: a grace period for async activities, and nothing of ours left behind after it."""
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
        """Cancel what still runs when the grace period is over, and name what goes on in spite of it."""
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
        if not stopped.wait(_PATIENCE) and (left := self.loop.names()):
            self.logger.warning("Waiting for async activities that go on although they were cancelled: %s", left)

    def cancel_now(self) -> None:
        """End the grace period of a stop that is under way."""
        self.loop.cancel_all()

    def _evict_idle(self) -> None:
        self._dispose(self.turns.sessions.expire())

    def _dispose(self, sessions: list[Session]) -> None:
        for session in sessions:
            self.threads.dispose(session)


def binding_of(worker: _upstream.Worker) -> Binding | None:
    """The binding of ``worker``, or ``None`` if it has not seen async code."""
    return cast("Binding | None", vars(worker).get(_ATTRIBUTE))


def bind(worker: _upstream.Worker, settings: Settings | None = None, *, lifecycle: bool = True) -> Binding:
    """Give this one worker our turn, disposal, edge conversion, async activities and extended sessions.

    ``lifecycle=False`` leaves ``start``, ``stop`` and ``add_entity`` alone, for classes that define them themselves.
    Binding twice changes nothing.
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
        # Looked up on the class at each call, so that whoever wraps the class's methods, as tests do, is still called.
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
    """``function`` itself; raises :class:`WorkflowValidationError` if it is async, which upstream could not await."""
    offender = None
    if inspect.isclass(function) and issubclass(function, DurableEntity):
        offender = next(
            (
                f"{function.__name__}.{name}"
                for name, member in inspect.getmembers(function)
                if not name.startswith("_") and is_coroutine_callable(member)
            ),
            None,
        )
    elif is_coroutine_callable(function):
        offender = callable_name(function)
    if offender is not None:
        name = offender.rpartition(".")[2]
        raise WorkflowValidationError(
            f"entity operations cannot be async: {offender} is a coroutine function, and an entity holds its lock "
            f"while it runs\n"
            f"  wrong: async def {name}(...): ...\n"
            f"  right: def {name}(...): ...    # await in an activity, and signal the entity after"
        )
    return function
