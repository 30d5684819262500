"""`DivergedTurns`: turns whose history does not fit the code are given back to the engine, after a pause.

A deployment with code that does not fit would otherwise fail every instance that has a turn, forever: parents act on
the failure, locks are released, and no other deployment brings the instances back.  A turn that is not answered loses
nothing, because the engine keeps the instance as it is and dispatches the turn again, to this worker or to another one.

* **Pause.**  It doubles from 1 to 60 seconds with each attempt of an instance.  It is held by one timer for all turns,
  and not in the thread of the turn.
* **Slots.**  An engine counts a turn that is held back among those that the worker works on.  So at most a quarter of
  the worker's slots is used for pauses, or healthy instances would have none.  All others are given back at once; if
  the engine dispatches them again, they are not replayed until their pause is over and a slot is free.
* **Connections.**  A turn that is held back is not listed when the worker reconnects: the engine dispatches it again.
* **Engines without abandonment.**  They answer that the call is not implemented.  From then on, such turns fail.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from durabletask_aio.worker._upstream import pb
from durabletask_aio.worker.sessions import execution_started

if TYPE_CHECKING:
    import logging

    from durabletask_aio.worker.sessions import ExtendedSessionStats

FIRST_PAUSE = 1.0
MAX_PAUSE = 60.0
"""Seconds until a turn is given back, which double from the first to the maximum."""

SUMMARY_INTERVAL = 60.0
"""Seconds between two log records of the turns that are given back without a pause, at least."""

_CALL_TIMEOUT = 10.0
"""Seconds for the call that gives a turn back; the engine of a broken connection dispatches it again anyway."""

_REMEMBERED = 10_000
"""Instances whose attempts are counted."""


@dataclass
class _Turn:
    """A turn that the engine waits for."""

    request: pb.OrchestratorRequest | None
    """Kept until it is known that the engine takes turns back: a history can have megabytes."""
    stub: Any
    token: Any
    due: float = 0.0


@dataclass
class _Instance:
    """An instance whose last turn did not fit."""

    execution_id: str
    workflow_name: str
    message: str = ""
    attempts: int = 0
    pause: float = 0.0
    due: float = 0.0
    """When the next attempt is made, by the monotonic clock."""
    next_logged: int = 1
    """The attempt that is logged next."""


class DivergedTurns:
    """Gives the turns of one worker back whose history does not fit the code.  Thread-safe."""

    def __init__(
        self,
        logger: logging.Logger,
        stats: ExtendedSessionStats,
        *,
        retry: bool,
        slots: int,
        answer: Callable[[pb.OrchestratorRequest, Any, Any], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it closed.

        Args:
            logger: The worker's logger.
            stats: The worker's counters.
            retry: Whether such turns are given back at all.
            slots: How many turns are held back at a time, at most.
            answer: Executes a turn again, in a thread of its own, after `is_retrying` has become false.
            clock: Seconds, monotonic.
        """
        self._logger = logger
        self._stats = stats
        self._retry = retry
        self._slots = slots
        self._answer = answer
        self._clock = clock
        self.is_retrying = retry
        """Whether turns are given back; otherwise their instances fail."""
        self._changed = threading.Condition()
        self._is_open = False
        self._engine_takes_back = False
        self._instances: OrderedDict[str, _Instance] = OrderedDict()
        self._paused: dict[str, _Turn] = {}
        self._timer: threading.Thread | None = None
        self._given_back_at_once = 0
        self._next_summary = 0.0

    # -- lifecycle -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Hold turns back from now on; called when the worker starts."""
        with self._changed:
            self._is_open = True
            self._engine_takes_back = False
            self._next_summary = 0.0
            self.is_retrying = self._retry

    def close(self) -> None:
        """Give everything back at once, now and from now on; called when the worker begins to stop."""
        with self._changed:
            self._is_open = False
            turns = list(self._paused.values())
            self._paused.clear()
            self._instances.clear()
            self._count_paused()
            timer, self._timer = self._timer, None
            self._changed.notify_all()
        for turn in turns:
            if not self._give_back(turn):
                break  # What is left comes back to the engine with the end of the stream.
        if timer is not None:
            timer.join()

    # -- turns ---------------------------------------------------------------------------------------------------

    def has(self, instance_id: str) -> bool:
        """Whether the last turn of the instance did not fit, as far as is known."""
        return instance_id in self._instances

    def takes(self, request: pb.OrchestratorRequest, stub: Any, token: Any) -> bool:
        """Take a turn that the engine has dispatched again too early, or for whose next pause there is no slot.

        Returns:
            Whether it was taken; otherwise the caller executes it.
        """
        if not self._instances:
            return False
        with self._changed:
            instance = self._instances.get(request.instanceId)
            if (
                instance is None
                or not self.is_retrying
                or (self._clock() >= instance.due and (len(self._paused) < self._slots or not self._slots))
                or instance.execution_id != _execution_id(request)
                or any(event.HasField("executionTerminated") for event in request.newEvents)
            ):
                return False
        self._hold(instance, request, stub, token)
        return True

    def add(self, request: pb.OrchestratorRequest, stub: Any, token: Any, error: Exception) -> None:
        """Take a turn that does not fit the history, as `error` says."""
        with self._changed:
            instance = self._instances.pop(request.instanceId, None)
            execution_id = _execution_id(request)
            if instance is None or instance.execution_id != execution_id:
                instance = _Instance(execution_id, execution_started(request).name)
            if self._is_open:
                while len(self._instances) >= _REMEMBERED:
                    self._instances.popitem(last=False)
                self._instances[request.instanceId] = instance
            instance.message = str(error)
            instance.attempts += 1
            instance.pause = min(instance.pause * 2 or FIRST_PAUSE, MAX_PAUSE)
            instance.due = self._clock() + instance.pause
        with self._stats.lock:
            self._stats.diverged_turns += 1
        self._hold(instance, request, stub, token)

    def fits(self, instance_id: str) -> None:
        """Note that a turn of the instance fits its history."""
        if not self._instances:
            return
        with self._changed:
            instance = self._instances.pop(instance_id, None)
        if instance is not None:
            self._logger.info(
                "%s: history and code of orchestrator %s fit again, after %d attempt(s)",
                instance_id,
                instance.workflow_name,
                instance.attempts,
            )

    def _hold(self, instance: _Instance, request: pb.OrchestratorRequest, stub: Any, token: Any) -> None:
        """Hold a turn back until its instance is due, or give it back at once if no slot is free."""
        instance_id = request.instanceId
        with self._changed:
            turn = _Turn(None if self._engine_takes_back else request, stub, token, instance.due)
            earlier = self._paused.pop(instance_id, None)
            is_held = self._is_open and len(self._paused) < self._slots
            if is_held:
                self._paused[instance_id] = turn
                if self._timer is None:
                    self._timer = threading.Thread(target=self._run, name="durabletask-aio-diverged", daemon=True)
                    self._timer.start()
                self._changed.notify_all()
            self._count_paused()
            # Logged even if the worker is about to stop, or a short-lived worker would never name the reason.
            is_logged = (is_held or not self._is_open) and instance.attempts >= instance.next_logged
            if is_logged:
                at_maximum = instance.pause >= MAX_PAUSE
                instance.next_logged = instance.attempts * 2 if at_maximum else instance.attempts + 1
        if is_logged:
            self._logger.error(
                "%s: a turn of orchestrator %s has no result, because its history does not fit the code: %s\n"
                "  Attempt %d; the turn is given back to the engine after %.0f s and tried again, so nothing is lost. "
                "Deploy code that fits, or terminate the instance.",
                instance_id,
                instance.workflow_name,
                instance.message,
                instance.attempts,
                instance.pause,
            )
        if earlier is not None:
            # Of a connection that is broken, or of an engine that dispatches a turn again without asking.
            self._give_back(earlier)
        if not is_held:
            self._summarize(instance_id, instance)
            self._give_back(turn)

    def _summarize(self, instance_id: str, instance: _Instance) -> None:
        """Log, once in a while, how many turns are given back without a pause."""
        with self._changed:
            if not self._is_open:
                return
            self._given_back_at_once += 1
            now = self._clock()
            if now < self._next_summary:
                return
            self._next_summary = now + SUMMARY_INTERVAL
            count, self._given_back_at_once = self._given_back_at_once, 0
            number = len(self._instances)
        self._logger.error(
            "The histories of %d instances do not fit the code: %d turn(s) are held back, a quarter of the worker's "
            "slots; since the last message of this kind, %d turn(s) were given back to the engine at once. For "
            "example %s: %s",
            number,
            self._slots,
            count,
            instance_id,
            instance.message,
        )

    # -- the timer -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._is_open:
                    return
                now = self._clock()
                due = [each for each, turn in self._paused.items() if turn.due <= now]
                if not due:
                    next_due = min((turn.due for turn in self._paused.values()), default=None)
                    self._changed.wait(None if next_due is None else next_due - now)
                    continue
                turns = [self._paused.pop(each) for each in due]
                self._count_paused()
            for turn in turns:
                self._give_back(turn)

    def _count_paused(self) -> None:
        with self._stats.lock:
            self._stats.paused_turns = len(self._paused)

    # -- the engine ----------------------------------------------------------------------------------------------

    def _give_back(self, turn: _Turn) -> bool:
        """Give a turn back, and return whether the engine has it.

        If it does not, the connection is broken: the engine dispatches the turn again.
        """
        abandonment = pb.AbandonOrchestrationTaskRequest(completionToken=turn.token)
        try:
            turn.stub.AbandonTaskOrchestratorWorkItem(abandonment, timeout=_CALL_TIMEOUT)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                self._stop_retrying(turn)
            else:
                self._logger.debug("A turn could not be given back: %s", error)
            return False
        except ValueError as error:  # gRPC's for a channel that upstream has closed
            self._logger.debug("A turn could not be given back: %s", error)
            return False
        self._engine_takes_back = True
        return True

    def _stop_retrying(self, turn: _Turn) -> None:
        with self._changed:
            if not self._is_open:
                return  # The turn comes back to the engine with the end of the stream.
            was_retrying, self.is_retrying = self.is_retrying, False
            turns = [turn, *self._paused.values()]
            self._paused.clear()
            self._instances.clear()
            self._count_paused()
        if was_retrying:
            self._logger.error(
                "The engine cannot take turns back (UNIMPLEMENTED): from now on, an instance whose history does not "
                "fit the code fails, as with on_divergence='fail'"
            )
        for each in turns:
            if each.request is not None:
                self._answer(each.request, each.stub, each.token)


def _execution_id(request: pb.OrchestratorRequest) -> str:
    # The request of a turn that continues a session may lack the event with which the execution has started.
    return request.executionId.value or execution_started(request).orchestrationInstance.executionId.value
