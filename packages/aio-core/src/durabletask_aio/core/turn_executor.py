"""`TurnExecutor`: runs the turns of one instance, and can continue an instance that is still alive.

Every host of the family uses it: the worker, the test environment, the replay of recorded histories and the engine's
tests.  It is upstream's executor, with three differences: an instance can be continued with the events it has not
processed yet; what upstream would not survive (`SystemExit`, `CancelledError`, an exception that cannot be described)
fails the one instance; and confirmations that arrive while an instance is suspended are processed at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from durabletask_aio.core import _upstream, _upstream_journal, _upstream_retries, failures, rewinding
from durabletask_aio.core._upstream import pb
from durabletask_aio.core._upstream_registry import registered_names
from durabletask_aio.core.cancellation import CANCEL_EVENT
from durabletask_aio.core.divergence import raised_on_replay
from durabletask_aio.core.driver import WorkflowRun
from durabletask_aio.core.errors import message_of
from durabletask_aio.core.failed_attempts import log_failed_attempt
from durabletask_aio.core.journal import NO_HOST, WAKE_UP, Journal, RecordedSteps, StepRunner, is_deprecated_patch
from durabletask_aio.core.recorded_types import record_bases
from durabletask_aio.core.retries import stop_if_final
from durabletask_aio.core.unregistered import describe_unregistered

_VERSION_FAILURE = "VersionFailureException"
"""What upstream raises if the worker's versioning options exclude the version of an instance."""

_TIMER_TOLERANCE = 10_000_000
"""Nanoseconds by which an engine may round the time of a timer."""


def _as_raised(event: pb.HistoryEvent) -> pb.HistoryEvent:
    """Return the event that a sender has sent as the one that a client would have raised."""
    raised = pb.HistoryEvent(eventId=-1, timestamp=event.timestamp)
    raised.eventRaised.name = event.eventSent.name
    if event.eventSent.HasField("input"):
        raised.eventRaised.input.CopyFrom(event.eventSent.input)
    return raised


class TurnAborted(Exception):
    """The instance has been marked as failed; the rest of the batch must not reach its code."""


class TurnDiverged(BaseException):
    """History and code do not fit, and the turn has no result; see `TurnExecutor.raises_divergence`.

    No `Exception`, because upstream catches those in order to fail the instance.

    Attributes:
        error: what the history would record.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class TurnPaused(BaseException):
    """The code of a turn waits for a step, and the host wants its thread back; see `TurnExecutor.wait_for_step`.

    No `Exception`, because upstream catches those in order to fail the instance.
    """


class TurnExecutor(_upstream.HistoryExecutor):
    """Runs the turns of one instance.

    The whole executor is kept between turns, and not only upstream's context, because suspension, buffered events and
    the times of timers are stored in the executor.
    """

    unlisted_event = CANCEL_EVENT

    is_async = False
    """Whether the orchestrator is an async workflow."""

    raises_divergence = False
    """Whether a history that does not fit the code raises `TurnDiverged`; otherwise it fails the instance.

    With it, a history also does not fit if the code raises an exception on replay, or if there is no code of that name.
    """

    processed: int | None = None
    """How many events of the history this instance has processed; `None` before its first turn."""

    actions: Sequence[pb.OrchestratorAction] = ()
    """The actions of the last turn, before large payloads were moved out of them."""

    error: BaseException | None = None
    """The exception that failed the instance, as it was raised."""

    step_runner: StepRunner | None = None
    """Runs the functions of steps; without one, workflows have neither steps nor patches."""

    step_refusal = NO_HOST
    """Why there is no `step_runner`."""

    journal: Journal | None = None
    """The records of steps and patches of the execution; `None` before its first event."""

    paused_after: pb.HistoryEvent | None = None
    """The new event after which the turn was paused; `execute` continues after it, given the same events."""

    _journal_context: Any = None
    _turn_events: tuple[Sequence[Any], ...] = ((), (), ())
    """The past events, the new events and the recorded actions of the present turn."""

    _is_resuming = False
    """Whether the events are processed that came while the instance was suspended."""

    _events: tuple[Sequence[pb.HistoryEvent], ...] = ()
    """The history and the new events of the present turn, with `raises_divergence`."""

    _timers: dict[int, int] | None = None
    """When each timer fires that the engine has confirmed: nanoseconds since the epoch by number."""

    _confirmed: frozenset[tuple[str, int]] = frozenset()
    """What was confirmed during the present suspension."""

    def turn_context(self) -> AbstractContextManager[None]:
        """Return a context manager that is entered around each turn; for subclasses."""
        return nullcontext()

    # -- turns ----------------------------------------------------------------------------------------------------

    def execute(
        self, instance_id: str, old_events: Sequence[pb.HistoryEvent], new_events: Sequence[pb.HistoryEvent]
    ) -> _upstream.ExecutionResults:
        """Run one turn.

        Args:
            instance_id: the instance.
            old_events: its whole committed history.
            new_events: the events of this turn; never empty.

        Returns:
            The actions and the custom status, as upstream's worker sends them.

        Raises:
            RuntimeError: for an exception outside of workflow code that upstream could not report, such as one of a
                data converter; upstream turns it into a failure of the instance.
            TurnDiverged: if history and code do not fit, with `raises_divergence`, unless this turn terminates the
                instance.
            TurnPaused: if `wait_for_step` has paused the turn; calling this again continues it.
        """
        if self.raises_divergence:
            self._events = (old_events, new_events)
        if self.paused_after is None:
            self.remember(old_events if self.processed is None else (), new_events)
        try:
            with self.turn_context():
                if self.paused_after is not None:
                    result = self._continue_paused(instance_id, new_events)
                elif self.processed is None:
                    result = super().execute(instance_id, old_events, new_events)
                else:
                    # A rewind never comes here, and neither does an empty batch: hosts replay those in full.
                    result = self.continue_live(instance_id, old_events, self.processed, new_events)
            self.actions = result.actions
            if not self.is_complete and not self._drives_async(self.context):
                self._warn_of_ignored_requests(new_events)
            return result
        except TurnDiverged:
            termination = next((event for event in new_events if event.HasField("executionTerminated")), None)
            if termination is None:
                raise
            return self.terminate(termination)
        except TurnPaused:
            raise
        except BaseException as error:
            if isinstance(error, Exception) and failures.is_recordable(error):
                raise
            failure = f"{type(error).__name__} while a turn of '{instance_id}' was finished: {message_of(error)}"
        finally:
            self._events = ()  # which may be large
            self._forget_events()
        # Outside of the except block, so that the exception is not recorded as the cause.
        raise RuntimeError(failure)

    def remember(
        self,
        old_events: Sequence[pb.HistoryEvent],
        new_events: Sequence[pb.HistoryEvent],
        actions: Sequence[pb.OrchestratorAction] = (),
    ) -> None:
        """Hand over the events of a turn before the first is processed: a step finds its record by looking ahead.

        Args:
            old_events: the committed history; empty for an instance that has processed it.
            new_events: the events of the turn.
            actions: the actions of the turn, if it is run once more.
        """
        self._turn_events = (self.recorded or old_events, new_events, actions)
        if self.journal is not None:
            self.journal.begin_turn(*self._turn_events)

    def _forget_events(self) -> None:
        if self.paused_after is None:
            self._turn_events = ((), (), ())
            if self.journal is not None:
                self.journal.end_turn()

    def _continue_paused(self, instance_id: str, new_events: Sequence[pb.HistoryEvent]) -> _upstream.ExecutionResults:
        paused_after, self.paused_after = self.paused_after, None
        assert paused_after is not None
        position = next(at for at, event in enumerate(new_events) if event is paused_after)
        return self.continue_paused(
            instance_id, lambda: self._resume_after(self.context, paused_after), new_events[position + 1 :]
        )

    def _resume_after(self, ctx: Any, event: pb.HistoryEvent) -> None:
        try:
            self._finish_steps(ctx, event)
        except TurnPaused:
            raise
        except BaseException as error:
            self._check_failure(ctx, error, error)
            raise

    def _warn_of_ignored_requests(self, new_events: Sequence[pb.HistoryEvent]) -> None:
        """Log the requests to cancel a generator orchestrator, which does not get them."""
        for event in new_events:
            if event.HasField("eventRaised") and event.eventRaised.name.casefold() == CANCEL_EVENT:
                self.logger.warning(
                    "%s: the request to cancel this instance is ignored: %r is a generator orchestrator, and only "
                    "async workflows can be cancelled; terminate it instead",
                    self.context.instance_id,
                    getattr(_upstream.generator_of(self.context), "__name__", "it"),
                )

    def feed(self, event: pb.HistoryEvent) -> None:
        """Process one event after `open`; an error fails the instance, as it does in `execute`."""
        if self.is_complete and event.WhichOneof("eventType") != "executionRewound":
            return
        try:
            self.process_event(self.context, event)
        except Exception as error:
            self.fail(error)

    # -- events ---------------------------------------------------------------------------------------------------

    def process_event(self, ctx: Any, event: pb.HistoryEvent) -> None:
        """Process one event; called by upstream for each event of a turn."""
        self.context = ctx
        if self._journal_context is not ctx:
            self._open_journal(ctx)
        if event.HasField("eventSent"):
            if self._has_arrived(ctx, event.eventSent, event.eventId):
                event = _as_raised(event)
            elif self._is_recorded(ctx, event.eventSent, event.eventId):
                return
        if self.is_suspended:
            kind = event.WhichOneof("eventType")
            if kind == "executionSuspended":
                # Upstream buffers a second suspension like any event.  On resuming it suspends again in the middle of
                # the loop over the buffer, and from there on appends to the list it iterates over, without end.
                return
            if kind in rewinding.REQUESTS and self._drives_async(ctx):
                self._confirm(ctx, event, kind)
                return
            if kind == "executionResumed":
                self._confirmed = frozenset()
        self._process(ctx, event)

    def _open_journal(self, ctx: Any) -> None:
        """Give the execution that begins its journal."""
        self._journal_context = ctx
        is_recorded = bool(self.recorded)
        runner = RecordedSteps() if is_recorded else self.step_runner
        self.journal = Journal(runner, self.step_refusal, is_recorded=is_recorded)
        self.journal.begin_turn(*self._turn_events)
        _upstream_journal.set_journal(ctx, self.journal)

    def _is_recorded(self, ctx: Any, sent: pb.EventSentEvent, number: int) -> bool:
        """Note that the engine has recorded a sent event; whether that is all there is to do.

        It is for a patch whose code has been taken out of the workflow.
        """
        assert self.journal is not None
        self.journal.confirmed(number)
        return is_deprecated_patch(sent) and not _upstream.is_pending_action(ctx, number)

    def _has_arrived(self, ctx: Any, sent: pb.EventSentEvent, number: int) -> bool:
        """Whether an `eventSent` is an event for this instance, and not the confirmation of one that it has sent.

        durabletask-go delivers the sender's own event.  Upstream would take it for a step of the receiver that its code
        does not have.
        """
        instance_id: str = ctx.instance_id
        return (
            sent.instanceId == instance_id
            and self._drives_async(ctx)
            and not _upstream.sends_event_to(ctx, number, instance_id)
        )

    def _is_stale(self, ctx: Any, event: pb.HistoryEvent) -> bool:
        """Whether `event` is the firing of a timer of the previous execution, before `continue_as_new`.

        Some engines deliver it to the next execution, whose timers have the same numbers.  A timer never fires before
        its time, so one that was to fire earlier than the one of that number is another one.
        """
        if event.HasField("timerCreated"):
            if self._timers is None:
                self._timers = {}
            self._timers[event.eventId] = event.timerCreated.fireAt.ToNanoseconds()
            return False
        if not event.HasField("timerFired") or not event.timerFired.HasField("fireAt") or not self._drives_async(ctx):
            return False
        number = event.timerFired.timerId
        timers = {} if self._timers is None else self._timers
        due = timers.get(number) or _upstream.requested_timer(ctx, number)
        if not due or event.timerFired.fireAt.ToNanoseconds() + _TIMER_TOLERANCE >= due:
            timers.pop(number, None)
            return False
        if not ctx.is_replaying:
            self.logger.info(
                "%s: Ignoring a timer of the execution before continue_as_new, which has number %d too",
                ctx.instance_id,
                number,
            )
        return True

    @staticmethod
    def _drives_async(ctx: Any) -> bool:
        """Whether the instance is an async workflow; generators keep upstream's behaviour, its defects included."""
        return getattr(_upstream.generator_of(ctx), "gi_code", None) is WorkflowRun.drive.__code__

    def _confirm(self, ctx: Any, event: pb.HistoryEvent, kind: str) -> None:
        """Process a confirmation while the instance is suspended.

        Upstream buffers these events too.  What they confirm then counts as not sent, and every turn until the resume
        sends it again: an activity whose completion makes the next turn runs for as long as the instance is suspended.
        A confirmation runs no workflow code, so it need not wait for the resume.
        """
        confirmed = (kind, event.eventId)
        if confirmed in self._confirmed and not _upstream.is_pending_action(ctx, event.eventId):
            return  # A history that a generator of this name has left, on a worker that sent actions twice.
        self.is_suspended = False
        try:
            self._process(ctx, event)
        finally:
            self.is_suspended = True
        self._confirmed |= {confirmed}

    def _process(self, ctx: Any, event: pb.HistoryEvent) -> None:
        was_suspended = self.is_suspended
        if not was_suspended and self._is_stale(ctx, event):
            return
        if _upstream_retries.is_failure(event):
            if not was_suspended:
                stop_if_final(ctx, event)
                if not ctx.is_replaying:
                    log_failed_attempt(ctx, event, self.logger)
            _upstream_retries.note_failure(ctx, event)  # of generators too
        journal: Any = self.journal
        try:
            if was_suspended:
                self._is_resuming = True
                try:
                    super().process_event(ctx, event)
                finally:
                    self._is_resuming = False
            elif journal.is_used and journal.awaits_wake_up and self._is_wake_up(event):
                journal.wake_up(event.eventRaised.name)
                _upstream_journal.resume(ctx)
            else:
                super().process_event(ctx, event)
            if journal.is_used and journal.is_busy:
                self._finish_steps(ctx, event)
        except TurnPaused:
            raise
        except BaseException as raised:
            error = self._named(raised, event)
            if not was_suspended and event.HasField("executionResumed") and self._drives_async(ctx):
                # The instance is not suspended: a resume without a suspension, or one whose suspension ended with an
                # execution that has continued as new.  Upstream does not handle the event, and would fail the instance.
                return
            self._check_failure(ctx, raised, error)
            raise

    def _check_failure(self, ctx: Any, raised: BaseException, error: BaseException) -> None:
        """Raise what ends the turn in place of what was raised; return if upstream is to fail the instance with that.

        Args:
            ctx: upstream's context.
            raised: what was raised.
            error: what is recorded for it.
        """
        self.error = error
        if self.raises_divergence and isinstance(error, Exception):
            divergence = self._divergence(ctx, error)
            if divergence is not None:
                raise TurnDiverged(divergence) from None
        if _upstream.has_unsent_end(ctx):
            _upstream.reopen_unsent_end(ctx)
        if error is raised and isinstance(error, Exception) and failures.is_recordable(error):
            return
        # Upstream catches Exception only: SystemExit would end the worker's run loop and with it every other
        # instance, CancelledError would leave this one hanging.  And for an exception that it cannot describe it
        # sends no answer: the engine would deliver this turn again without end.  And of a name that is not
        # registered its lines would be recorded.
        self.fail(failure_details(error, self.exception_properties_provider, self.logger))
        raise TurnAborted from None

    # -- steps ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _is_wake_up(event: pb.HistoryEvent) -> bool:
        return event.HasField("eventRaised") and event.eventRaised.name.startswith(WAKE_UP)

    def _finish_steps(self, ctx: Any, event: pb.HistoryEvent) -> None:
        """Wait for the steps that the code waits for, one after the other, and let the code continue after each."""
        journal = self.journal
        assert journal is not None
        while not _upstream.is_finished(ctx):
            if journal.divergence is not None:
                raise journal.divergence
            if not journal.pass_on_recorded(ctx):
                if not journal.has_live_steps:
                    return
                self.wait_for_step(ctx, event)
            _upstream_journal.resume(ctx)

    def wait_for_step(self, ctx: Any, event: pb.HistoryEvent) -> None:
        """Wait for the end of a step, and pass it on; for subclasses, which may pause the turn.

        Args:
            ctx: upstream's context.
            event: the event after which the code waits.
        """
        assert self.journal is not None
        self.journal.pass_on_ended(ctx, None)

    def can_pause(self, ctx: Any) -> bool:
        """Whether the turn can be continued after the event that is being processed."""
        return not ctx.is_replaying and not self._is_resuming

    def _named(self, error: BaseException, event: pb.HistoryEvent) -> BaseException:
        """Return `error`; for a workflow that is not registered, one that says which are."""
        if not _upstream.is_unregistered(error) or not event.HasField("executionStarted"):
            return error
        name, registry = event.executionStarted.name, registered_names(self)
        return type(error)(describe_unregistered("orchestrator", name, registry.pop("orchestrator"), registry))

    def _divergence(self, ctx: Any, error: Exception) -> Exception | None:
        """Return how history and code differ, if that is what `error` shows; otherwise it fails the instance.

        What is replayed was processed before, by code that did not raise: a failure would have been the last turn.
        Only a rewind continues a history after one.
        """
        if self.journal is not None and error is self.journal.divergence:
            return error
        if _upstream.is_own_mismatch(error):
            return _upstream.translated(ctx, error)
        if not ctx.is_replaying or type(error).__name__ == _VERSION_FAILURE:
            return None
        if any(event.WhichOneof("eventType") == "executionRewound" for events in self._events for event in events):
            return None
        if _upstream.is_unregistered(error):
            return error
        return raised_on_replay(error, ctx.instance_id, self._orchestration_name)

    # -- rewinding ------------------------------------------------------------------------------------------------

    def events_to_remove(self, history: Sequence[pb.HistoryEvent], instance_id: str) -> set[int] | None:
        """Return the positions of the events that a rewind takes out: what failed the instance, and no more."""
        return rewinding.events_to_remove(history, instance_id)

    # -- disposal -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the generator of an instance that will not be continued, in this thread and marked as replaying.

        Of an async workflow only the generator of the driver is left by then; closing it takes the instance out of
        its reference cycle.
        """
        generator = None if self.context is None else _upstream.generator_of(self.context)
        if generator is None:
            return
        self.set_replaying(True)
        try:
            generator.close()
        except BaseException:
            self.logger.debug("An evicted orchestrator raised while it was closed.", exc_info=True)


def failure_details(error: BaseException, provider: Any, logger: logging.Logger) -> pb.TaskFailureDetails:
    """Describe an exception of a workflow in upstream's failure details.

    An empty message of an exception that is no `Exception` becomes `repr(error)`, because upstream's in-memory engine
    takes a failed activity without a message for a successful one, and `SystemExit()` has none.

    Args:
        error: any exception; one that cannot be described is replaced by one of the same type name.
        provider: upstream's provider of exception properties, or `None`.
        logger: where upstream logs that the provider failed.

    Returns:
        The details: type, message, stack trace and the chain of causes.
    """
    details = _upstream.new_failure_details(cast(Exception, failures.recordable(error)), provider, logger)
    if not details.errorMessage and not isinstance(error, Exception):
        details.errorMessage = repr(error)
    return details


def activity_failure_details(error: BaseException, provider: Any, logger: logging.Logger) -> pb.TaskFailureDetails:
    """Describe an exception of an activity or an entity operation, as `failure_details` does for workflows.

    The message of an exception group lists what is in the group; a workflow's has been rewritten by the driver.  The
    names of the bases of its type are added, for `raises=` and `non_retryable=` of the caller.
    """
    details = failure_details(failures.of_activity(error), provider, logger)
    record_bases(details, type(error))
    return details
