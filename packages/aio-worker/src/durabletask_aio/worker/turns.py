"""`Turns`: executes the turns of one worker.

A turn is upstream's, inside of the core's turn scope.  It continues a live session if a full replay would have the same
result, and is a full replay otherwise.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from durabletask_aio.core.hosting import (
    TurnPaused,
    TurnScope,
    describe_failure,
    metadata_from_tags,
    orchestrator_info,
    turn_scope,
)
from durabletask_aio.worker import _upstream
from durabletask_aio.worker._upstream import pb
from durabletask_aio.worker.diverged_turns import DivergedTurns
from durabletask_aio.worker.foreign_engines import Answers, ForeignEngine
from durabletask_aio.worker.leases import lease_of
from durabletask_aio.worker.paused_turns import PausedTurn, PausedTurns
from durabletask_aio.worker.raw_requests import RawRequest, whole_request
from durabletask_aio.worker.session_executor import SessionExecutor
from durabletask_aio.worker.sessions import (
    ContinuedHistory,
    ExtendedSessionStats,
    History,
    PartialProof,
    Proof,
    RawHistory,
    Session,
    SessionCache,
    execution_started,
    kept_start,
    session_miss_reason,
)
from durabletask_aio.worker.shadow import ShadowReplay
from durabletask_aio.worker.spans import workflow_spans

if TYPE_CHECKING:
    from durabletask_aio.worker.instance_threads import InstanceThreads
    from durabletask_aio.worker.options import Settings
    from durabletask_aio.worker.step_threads import StepThreads
    from durabletask_aio.worker.turn_watchdog import RunningTurn, TurnWatchdog

_SIZES_REMEMBERED = 4096


class Delivery:
    """A stub that records whether the engine has accepted the response; upstream swallows the error if it has not."""

    def __init__(self, stub: Any, request: pb.OrchestratorRequest, name: str, turn: _Turn, turns: Turns) -> None:
        self._stub = stub
        self._request = request
        self._name = name
        self._turn = turn
        self._answers = turns.answers
        self._engine = turns.foreign_engine
        self.is_delivered = False

    def CompleteOrchestratorTask(self, response: pb.OrchestratorResponse) -> None:  # noqa: N802 - the engine's name
        """Send the response, and note that the engine has taken it."""
        if self._turn.is_left:
            return
        executor = self._turn.executor
        if executor is not None:
            describe_failure(response.actions, executor.error)
            self._engine.look_at(self._request, response, self._name, executor)
        objection = self._engine.objection(response)
        if objection is not None:
            self._stub.CompleteOrchestratorTask(self._answers.failed_turn(response, objection, self._name))
            return
        self.is_delivered = self._answers.complete_turn(self._stub, response, self._name)

    def AbandonTaskOrchestratorWorkItem(self, request: Any) -> None:  # noqa: N802 - the engine's name
        """Return an instance of a version that this worker rejects to an engine that can take it."""
        if self._turn.divergence is not None or self._turn.is_left:
            return  # `DivergedTurns` or `WorkItems` gives it back.
        if request.completionToken:
            self._stub.AbandonTaskOrchestratorWorkItem(request)
            return
        response = pb.OrchestratorResponse(instanceId=self._request.instanceId)
        failed = self._answers.failed_turn(response, self._engine.rejection, self._name)
        self._stub.CompleteOrchestratorTask(failed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stub, name)


@dataclass
class _Turn:
    """The state of a turn while it runs."""

    delivered: pb.OrchestratorRequest | RawRequest
    """What the engine has sent, for another attempt."""
    function: Callable[..., Any] | None
    is_async: bool
    is_kept: bool = False
    can_be_given_back: bool = False
    may_pause: bool = False
    step_refusal: str | None = None
    """Why the workflow has no steps with this engine."""
    session: Session | None = None
    executor: SessionExecutor | None = None
    running: RunningTurn | None = None

    @property
    def is_left(self) -> bool:
        """Whether the worker has stopped meanwhile, and has given the turn back."""
        return self.running is not None and self.running.is_left

    @property
    def divergence(self) -> Exception | None:
        """How history and code differ, if the turn has no result for that reason."""
        return None if self.executor is None else self.executor.divergence


class Turns:
    """Executes the turns of one worker; called on many threads at a time, upstream's and those of `InstanceThreads`."""

    def __init__(
        self,
        worker: _upstream.Worker,
        settings: Settings,
        watchdog: TurnWatchdog,
        threads: InstanceThreads,
        steps: StepThreads,
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._watchdog = watchdog
        self._threads = threads
        self._steps = steps
        self.paused = PausedTurns(steps)
        self._logger = _upstream.logger_of(worker)
        self.answers = Answers(self._logger)
        self.foreign_engine = ForeignEngine(self._logger)
        self._current = threading.local()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._sizes_lock = threading.Lock()
        self.sessions = SessionCache(
            settings.max_extended_sessions, settings.extended_session_idle_timeout, ExtendedSessionStats()
        )
        self.diverged = DivergedTurns(
            self._logger,
            self.sessions.stats,
            retry=settings.on_divergence == "retry",
            slots=_upstream.turn_slots_of(worker) // 4,
            answer=self._execute_later,
        )
        self._shadow = ShadowReplay(worker, settings.shadow_replay_rate, self.sessions.stats)
        self._upstream_turn: Callable[..., None] = _upstream.orchestrator_turn(self._make_executor)
        # A subclass that overrides the turn keeps its own: it runs in our scope, but without sessions.
        self._overriding_turn = _upstream.own_turn(worker) if _upstream.overrides_turn(worker) else None

    def execute(self, delivered: pb.OrchestratorRequest | RawRequest, stub: Any, completion_token: Any) -> None:
        """Run one turn; takes the place of upstream's `_execute_orchestrator` on a bound worker."""
        paused = self.paused.take(delivered)
        if paused is not None:
            self._run_turn(
                paused.turn, paused.started, paused.past_events, paused.request, stub, completion_token, None, paused
            )
            return
        continued: tuple[Session, PartialProof] | None = None
        if isinstance(delivered, RawRequest) and not self.diverged.has(delivered.instanceId):
            continued = self._checkout_continued(delivered.instanceId, RawHistory(delivered))
        if continued is None:
            request = whole_request(delivered)
            if self.diverged.takes(request, stub, completion_token):
                return
            if ContinuedHistory.is_in(request):
                continued = self._checkout_continued(request.instanceId, ContinuedHistory(request))
                if continued is None:
                    self._request_history(request, stub, completion_token)
                    return
        else:
            request = continued[1].request
        past_events = len(request.pastEvents)
        if continued is not None:
            session = continued[0]
            past_events += session.fingerprint.events
            # What upstream reads of the past; the session has processed it.
            request.pastEvents.insert(0, session.started)
            session.executor.processed = 1
        started = execution_started(request)
        turn = self._turn_of(started.name, delivered)
        self._run_turn(turn, started, past_events, request, stub, completion_token, continued, None)

    def _run_turn(
        self,
        turn: _Turn,
        started: pb.ExecutionStartedEvent,
        past_events: int,
        request: pb.OrchestratorRequest,
        stub: Any,
        completion_token: Any,
        continued: tuple[Session, PartialProof] | None,
        paused: PausedTurn | None,
    ) -> None:
        """Run one turn, or continue one that was paused."""
        started_at = time.perf_counter()
        with (
            self._watchdog.turn(request.instanceId, started.name, self._code_of(started.name)) as turn.running,
            # For what the scope closes at its end: up to Python 3.11, not all of it is closed in a context of its own.
            workflow_spans() if turn.is_async else nullcontext(),
            turn_scope(metadata=metadata_from_tags(started.tags)) as scope,
        ):
            if self._overriding_turn is not None:
                self._overriding_turn(request, stub, completion_token)
                served_by = "full replay"
            else:
                turn.may_pause = self.paused.may_pause(turn.delivered)
                turn.step_refusal = self.foreign_engine.step_refusal(completion_token, self._worker)
                try:
                    served_by = self._execute(
                        turn, started.name, request, stub, completion_token, scope, continued, paused
                    )
                except TurnPaused:
                    assert turn.executor is not None
                    history, reason = self._current.proof
                    runs = scope.runs if turn.session is None else turn.session.runs
                    self.paused.add(
                        PausedTurn(
                            turn.delivered,
                            request,
                            turn,
                            turn.executor,
                            started,
                            past_events,
                            history,
                            reason,
                            list(runs),
                        )
                    )
                    scope.keep()
                    return
        if turn.is_async and not turn.is_kept and turn.executor is not None:
            # Free what the scope has closed now: until the garbage collector runs, it could grow to megabytes.
            turn.executor.close()
        self._note_size(request, past_events, started.name)
        if self._logger.isEnabledFor(logging.DEBUG):
            self._log_turn(request, past_events, started.name, served_by, time.perf_counter() - started_at)

    def _execute(
        self,
        turn: _Turn,
        name: str,
        request: pb.OrchestratorRequest,
        stub: Any,
        completion_token: Any,
        scope: TurnScope,
        continued: tuple[Session, PartialProof] | None,
        paused: PausedTurn | None,
    ) -> str:
        history: Proof | None
        if paused is not None:
            history, reason = paused.history, paused.reason
            if turn.session is None:
                scope.runs.extend(paused.runs)
        elif continued is not None:
            turn.session, history = continued
            reason = ""
        else:
            raw = turn.delivered if isinstance(turn.delivered, RawRequest) else None
            history = History(request, raw) if self._may_keep(turn) else None
            turn.session, reason = self._checkout(request, history, turn.function)
        delivery = Delivery(stub, request, name, turn, self)
        # An engine of the first protocol, whose tokens are empty, takes nothing back.
        turn.can_be_given_back = bool(completion_token)
        self._current.turn = turn
        self._current.proof = (history, reason)
        is_paused = False
        try:
            self._upstream_turn(self._worker, request, delivery, completion_token)
            actions = () if turn.executor is None else turn.executor.actions
        except TurnPaused:
            is_paused = True
            raise
        finally:
            self._current.turn = None
            if not is_paused:
                answer = lease_of(completion_token) if delivery.is_delivered else None
                self._settle(turn, scope, history, request, answer or "", delivered=delivery.is_delivered)
        if turn.divergence is not None:
            self.diverged.add(whole_request(turn.delivered), stub, completion_token, turn.divergence)
            return "given back"
        self.diverged.fits(request.instanceId)
        if turn.session is None:
            return f"full replay ({reason})"
        # After the session has been stored, so that an error here cannot lose it.
        if self._shadow.is_due():
            self._shadow.compare(turn.session.executor, actions, request)
        return "session"

    def _make_executor(self, *args: Any, **keywords: Any) -> SessionExecutor:
        turn: _Turn = self._current.turn
        if turn.session is not None:
            turn.executor = turn.session.executor
        elif turn.executor is None:  # Otherwise the turn was paused.
            turn.executor = SessionExecutor(*args, **keywords)
            turn.executor.is_async = turn.is_async
        turn.executor.may_pause = turn.may_pause
        if turn.step_refusal is None:
            turn.executor.step_runner = self._steps
        else:
            turn.executor.step_refusal = turn.step_refusal
        turn.executor.running_turn = None if self._watchdog.timeout is None else turn.running
        may_be_async = turn.is_async or turn.function is None
        turn.executor.raises_divergence = may_be_async and turn.can_be_given_back and self.diverged.is_retrying
        return turn.executor

    def _execute_later(self, request: pb.OrchestratorRequest, stub: Any, completion_token: Any) -> None:
        with suppress(RuntimeError):  # The worker has stopped; the engine dispatches the turn again.
            self._threads.thread_of(request.instanceId).submit(self.execute, request, stub, completion_token)

    # -- sessions ------------------------------------------------------------------------------------------------

    def may_keep(self, request: pb.OrchestratorRequest | RawRequest) -> bool:
        """Whether the instance may be kept alive after this turn."""
        if isinstance(request, RawRequest):
            started = request.started
        elif ContinuedHistory.is_in(request):
            return True
        else:
            started = execution_started(request)
        return self._overriding_turn is None and self._may_keep(self._turn_of(started.name, request))

    def _turn_of(self, name: str, delivered: pb.OrchestratorRequest | RawRequest) -> _Turn:
        function = _upstream.find_orchestrator(self._worker, name)
        return _Turn(delivered, function, function is not None and orchestrator_info(function) is not None)

    def _may_keep(self, turn: _Turn) -> bool:
        if not self.sessions.is_enabled or turn.function is None:
            return False
        return turn.is_async or self._settings.generator_sessions

    @property
    def needs_new_events_only(self) -> bool:
        """Whether sessions do without the history they have processed.  A shadow replay needs all of it."""
        return self.sessions.is_enabled and self._overriding_turn is None and not self._settings.shadow_replay_rate

    def _checkout_continued(self, instance_id: str, history: PartialProof) -> tuple[Session, PartialProof] | None:
        """Return the session that can process a request without its whole history; `None` if there is none."""
        session = self.sessions.checkout(instance_id)
        if session is None:
            return None
        if history.continues(session.fingerprint):
            function = _upstream.find_orchestrator(self._worker, session.started.executionStarted.name)
            if session_miss_reason(session, history.request, history, function) is None:
                self.sessions.count_hit()
                return session, history
        # Whether it can serve the turn with the whole history, and if not, why, is found then.
        for evicted in self.sessions.store(session):
            self._threads.dispose(evicted)
        return None

    def _request_history(self, request: pb.OrchestratorRequest, stub: Any, completion_token: Any) -> None:
        """Have the engine send this turn again, with the whole history."""
        self._logger.debug("%s: The history of this turn is not in a session: requesting it", request.instanceId)
        try:
            stub.CompleteOrchestratorTask(
                pb.OrchestratorResponse(
                    instanceId=request.instanceId, completionToken=completion_token, requiresHistory=True
                )
            )
        except Exception as error:
            self._logger.exception(
                "Failed to request the history of '%s' from the engine: %s", request.instanceId, error
            )

    def _checkout(
        self, request: pb.OrchestratorRequest, history: Proof | None, function: object
    ) -> tuple[Session | None, str]:
        session = self.sessions.checkout(request.instanceId)
        if history is None:
            reason = "disabled"
        elif session is not None:
            reason = session_miss_reason(session, request, history, function) or ""
            if not reason:
                self.sessions.count_hit()
                return session, ""
            self.sessions.count_miss(reason)
        elif not request.pastEvents:
            reason = "new"
        else:
            reason = "absent"
            self.sessions.count_miss(reason)
        if session is not None:
            session.dispose()
        return None, reason

    def _settle(
        self,
        turn: _Turn,
        scope: TurnScope,
        history: Proof | None,
        request: pb.OrchestratorRequest,
        answer: str,
        *,
        delivered: bool,
    ) -> None:
        """Store the instance for its next turn, or let the scope dispose of it."""
        executor = turn.executor
        if (
            delivered
            and history is not None
            and history.is_provable
            and turn.function is not None
            and executor is not None
            and not executor.is_complete
        ):
            fingerprint = history.fingerprint_after_turn()
            fingerprint.answer = answer
            started = kept_start(request) if turn.session is None else turn.session.started
            executor.detach_request()
            executor.processed = fingerprint.events
            runs = turn.session.runs if turn.session is not None else list(scope.runs)
            scope.keep()
            turn.is_kept = True
            session = Session(request.instanceId, turn.function, executor, runs, fingerprint, started)
            for evicted in self.sessions.store(session):
                self._threads.dispose(evicted)
        elif turn.session is not None:
            turn.session.dispose()

    # -- warnings and log lines ----------------------------------------------------------------------------------

    def _code_of(self, name: str) -> str | None:
        """Return the file of the workflow function, for the line that a slow turn is on."""
        function: Any = _upstream.find_orchestrator(self._worker, name) if name else None
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        code = getattr(function, "__code__", None)
        return code.co_filename if code is not None else None

    def _note_size(self, request: pb.OrchestratorRequest, past_events: int, name: str) -> None:
        """Warn when a history passes the configured size, and again at every doubling."""
        threshold = self._settings.history_size_warning
        size = past_events + len(request.newEvents)
        if not threshold or size < threshold:
            return
        with self._sizes_lock:
            warn_at = self._sizes.pop(request.instanceId, threshold)
            while len(self._sizes) >= _SIZES_REMEMBERED:
                self._sizes.popitem(last=False)
            next_warning = warn_at
            # An instance that has continued as new is small again, and is warned of again when it grows.
            while next_warning > threshold and next_warning // 2 > size:
                next_warning //= 2
            is_due = size >= next_warning
            while size >= next_warning:
                next_warning *= 2
            self._sizes[request.instanceId] = next_warning
        if is_due:
            self._logger.warning(
                "%s: the history of orchestrator %s has %d events, and each full replay processes all of them; end the "
                "instance with continue_as_new() to start over with an empty history",
                request.instanceId,
                name,
                size,
            )

    def _log_turn(
        self, request: pb.OrchestratorRequest, past_events: int, name: str, served_by: str, duration: float
    ) -> None:
        facts = {
            "instance_id": request.instanceId,
            "workflow_name": name,
            "past_events": past_events,
            "new_events": len(request.newEvents),
            "served_by": served_by,
            "duration_ms": round(duration * 1000, 3),
        }
        self._logger.debug(
            "%(instance_id)s: Turn of %(workflow_name)s: %(past_events)d past and %(new_events)d new event(s), "
            "%(served_by)s, %(duration_ms).3f ms",
            facts,
            extra={"durabletask_turn": facts},
        )
