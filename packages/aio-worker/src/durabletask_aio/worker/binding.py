"""`Binding`: the async side of one worker instance, its turns, its activities, and the threads that serve them.

Everything is stored on the instance.  For upstream's own class these are instance attributes, so another worker in the
same process that has only generator orchestrators keeps all methods of upstream's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, cast

from durabletask_aio.core.hosting import REPLY_WORKFLOW, reply
from durabletask_aio.worker import _upstream
from durabletask_aio.worker.activities import Activities
from durabletask_aio.worker.activity_loop import ActivityLoop
from durabletask_aio.worker.entities import check_entity, entity_execution
from durabletask_aio.worker.instance_threads import InstanceThreads
from durabletask_aio.worker.leases import Leases
from durabletask_aio.worker.log_filter import UpstreamLogFilter
from durabletask_aio.worker.options import Settings
from durabletask_aio.worker.sessions import ExtendedSessionStats, Session
from durabletask_aio.worker.step_threads import StepThreads
from durabletask_aio.worker.turn_watchdog import TurnWatchdog
from durabletask_aio.worker.turns import Turns
from durabletask_aio.worker.work_items import WorkItems

_ATTRIBUTE = "_durabletask_aio"
_MAX_EVICTION_INTERVAL = 30.0
"""Seconds between two checks for idle sessions, at most."""

TURN_GRACE_PERIOD = 2.0
"""Seconds that running turns have to finish when the worker stops, at least."""

INTERRUPTED_STOP_PERIOD = 2.0
"""Seconds that cancelled async activities have to end when the stop of the worker was interrupted."""

CANCELLATION_WARNING_DELAY = 5.0
"""Seconds from the cancellation of the async activities to the warning that names those that are still running."""


class Binding:
    """The async side of one worker."""

    def __init__(self, worker: _upstream.Worker, settings: Settings) -> None:
        self.worker = worker
        self.settings = settings
        self.logger = _upstream.logger_of(worker)
        if settings.reword_upstream_log:
            self.logger.addFilter(UpstreamLogFilter(lambda: _upstream.is_stopping(worker)))
        interval = min(_MAX_EVICTION_INTERVAL, max(settings.extended_session_idle_timeout / 2, 0.05))
        self._watchdog = TurnWatchdog(self.logger, settings.slow_turn_warning, settings.turn_timeout, interval)
        self.loop = ActivityLoop(self.logger)
        self.threads = InstanceThreads(_upstream.pool_size_of(worker))
        self.steps = StepThreads(self.loop)
        self.turns = Turns(worker, settings, self._watchdog, self.threads, self.steps)
        self.leases = Leases(self.logger)
        self.activities = Activities(worker, self.loop, self.leases)
        self.leases.on_refusal = self._refused
        self.refusal: Future[None] = Future()
        """Has the error once the worker has found that it cannot work with what is at its address."""
        leases = self.leases if _upstream.owns_channel(worker) else None
        self.work_items = WorkItems(worker, self.turns, self.activities, self.threads, leases)
        # Reentrant, because the handler of a second signal can run in the middle of the stop for the first one.
        self._stop_lock = threading.RLock()
        self._end_of_grace = threading.Event()

    @property
    def stats(self) -> ExtendedSessionStats:
        """The counters of this worker's sessions."""
        return self.turns.sessions.stats

    # -- lifecycle -----------------------------------------------------------------------------------------------

    def start(self, upstream_start: Callable[[], None]) -> None:
        """Start the worker, and open all that its async code needs.

        Args:
            upstream_start: Upstream's method.
        """
        if _upstream.is_running(self.worker):
            upstream_start()  # raises
            return
        self.activities.is_stopping = False
        self.refusal = Future()
        self.loop.open()
        self.threads.open()
        self.leases.open()
        self.turns.sessions.open()
        self.turns.diverged.open()
        self._watchdog.start(self._evict_idle)
        try:
            upstream_start()
        except BaseException:
            self._watchdog.stop()
            self.turns.diverged.close()
            raise

    def _refused(self, error: RuntimeError) -> None:
        """End the loop of upstream's worker, which would try again and again."""
        _upstream.end_loop(self.worker)
        if not self.refusal.done():
            self.refusal.set_exception(error)

    def stop(self, upstream_stop: Callable[[], None]) -> None:
        """Stop the worker, with a grace period for async activities, and close all that `start` has opened.

        Args:
            upstream_stop: Upstream's method.

        Raises:
            RuntimeError: On the event loop that runs the async activities.
        """
        if not _upstream.is_running(self.worker):
            upstream_stop()
            return
        if self.loop.is_current():
            raise RuntimeError(
                "stop() would wait for async activities on the very event loop that runs them\n"
                "  wrong: worker.stop()                           # on that loop\n"
                "  right: async with worker: ...                  # stops when the block ends\n"
                "  right: await asyncio.to_thread(worker.stop)"
            )
        with self._stop_lock:
            if not _upstream.is_running(self.worker):
                return
            stopped = threading.Event()
            self._end_of_grace.clear()
            grace = threading.Thread(
                target=self._end_grace, args=(stopped,), name="durabletask-aio-grace-period", daemon=True
            )
            has_stopped = False
            # Ctrl-C can raise an exception at any point of this.
            try:
                self.activities.is_stopping = True
                self.leases.stop()
                self.turns.diverged.close()
                grace.start()
                self.work_items.drain()
                upstream_stop()
                has_stopped = True
            finally:
                stopped.set()
                self._end_of_grace.set()
                if grace.ident is not None:
                    grace.join()
                if not has_stopped:  # The process is about to end.
                    self._leave_turns()
                    _upstream.end_stream(self.worker)
                self.leases.close()
                self._watchdog.stop()
                self._dispose(self.turns.sessions.close())
                self.threads.close(wait=has_stopped)
                self.turns.paused.close()
                self.steps.close()
                self.loop.close(timeout=None if has_stopped else INTERRUPTED_STOP_PERIOD)
                if not has_stopped:
                    self.work_items.leave()
                self.activities.close()

    def _end_grace(self, stopped: threading.Event) -> None:
        """Cancel the async activities that are running when the grace period ends, and leave turns behind."""
        since = time.monotonic()
        self._end_of_grace.wait(min(self.settings.stop_grace_period, threading.TIMEOUT_MAX))
        if stopped.is_set():
            return
        now = time.monotonic()
        count = self.loop.active
        if count:
            self.logger.info(
                "The grace period of %.1f s is over: cancelling %d async activities, which the engine will deliver "
                "again",
                now - since,
                count,
            )
        self.loop.cancel_all()
        steps = [
            (max(now, since + TURN_GRACE_PERIOD), self._leave_turns),
            (now + CANCELLATION_WARNING_DELAY, self._warn_of_cancelled),
        ]
        for due, step in sorted(steps, key=lambda each: each[0]):
            if stopped.wait(max(due - time.monotonic(), 0)):
                return
            step()

    def _warn_of_cancelled(self) -> None:
        left = self.loop.names()
        if left:
            self.logger.warning("Waiting for async activities that continue although they were cancelled: %s", left)

    def _leave_turns(self) -> None:
        """Wait no longer for turns that are running."""
        self.threads.leave(self._watchdog.leave())
        self.work_items.leave_turns()

    def cancel_now(self) -> None:
        """End the grace period of a stop that is in progress."""
        self.loop.cancel_all()
        self._end_of_grace.set()

    def _evict_idle(self) -> None:
        self._dispose(self.turns.sessions.expire())

    def _dispose(self, sessions: list[Session]) -> None:
        for session in sessions:
            self.threads.dispose(session)


def binding_of(worker: _upstream.Worker) -> Binding | None:
    """Return the binding of `worker`, or `None` if no async code was registered with it."""
    return cast("Binding | None", vars(worker).get(_ATTRIBUTE))


def bind(worker: _upstream.Worker, settings: Settings | None = None, *, lifecycle: bool = True) -> Binding:
    """Set the methods of this one worker instance that run async code.

    Args:
        worker: The worker; one that is bound already is left as it is.
        settings: Its settings; by default those without any option.
        lifecycle: Whether to set `start`, `stop` and `add_entity` too; false for classes that define them.

    Returns:
        The binding of the worker.
    """
    existing = binding_of(worker)
    if existing is not None:
        return existing
    if settings is None:
        # Of upstream's class, which does not have our options.
        settings = Settings.checked({"on_divergence": "fail"}, generator_sessions=False)
    binding = Binding(worker, settings)
    setattr(worker, _ATTRIBUTE, binding)
    _upstream.register_orchestrator(worker, REPLY_WORKFLOW, reply)
    _upstream.set_turn(worker, binding.turns.execute)
    _upstream.set_activity(worker, binding.activities.execute)
    if _upstream.owns_channel(worker):
        _upstream.reconnect_quickly(worker)
        _upstream.add_interceptor(worker, binding.leases.interceptor)
    _upstream.set_work_items(worker, binding.work_items)
    if not _upstream.overrides_entities(worker):
        _upstream.set_entities(worker, entity_execution(binding.turns.answers))
    if lifecycle:
        _bind_lifecycle(worker, binding)
    return binding


def _bind_lifecycle(worker: _upstream.Worker, binding: Binding) -> None:
    """Set `start`, `stop` and `add_entity` of an instance of upstream's class."""
    # They look the method up on the class at each call, so that wrappers of the class's methods are still called.
    kind: Any = type(worker)
    instance: Any = worker

    def add_entity(fn: Any, name: str | None = None) -> str:
        check_entity(fn)
        return cast(str, kind.add_entity(worker, fn, name))

    instance.start = lambda: binding.start(lambda: kind.start(worker))
    instance.stop = lambda: binding.stop(lambda: kind.stop(worker))
    instance.add_entity = add_entity
    instance.extended_session_stats = binding.stats
