"""The adapter to upstream's executor: the home of its private names.

Other modules take upstream's classes from here, and this one takes them from `_upstream_dialect`, where another
executor of the family can stand in the place of Microsoft's.  Each function below says which private names it uses and
why nothing public would do.  `self_check` runs when the core is imported: a name that is gone becomes one sentence
there, and not an `AttributeError` in the middle of a workflow.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeGuard, cast

from durabletask_aio.core import _upstream_dialect as dialect
from durabletask_aio.core._upstream_dialect import (
    ACTION_KIND,
    CHILD,
    CHILD_CREATED,
    CHILD_FAILED,
    END,
    END_STATUS,
    CompletableTask,
    EntityInstanceId,
    EntityOperationFailedException,
    ExecutionResults,
    ExecutorBase,
    FailureDetails,
    RetryPolicy,
    TaskCancelledError,
    TaskFailedError,
    TaskHubGrpcWorker,
    UnserializableResult,
    activity_output_type,
    new_failure_details,
    new_schedule_task_action,
    pb,
    qualified_name,
    self_check,
    task,
)

__all__ = [
    "ACTION_KIND",
    "CHILD_CREATED",
    "CHILD_FAILED",
    "END",
    "ActivityContext",
    "CompletableTask",
    "EntityInstanceId",
    "EntityOperationFailedException",
    "ExecutionResults",
    "FailureDetails",
    "HistoryExecutor",
    "Listener",
    "NullContext",
    "RetryPolicy",
    "TaskCancelledError",
    "TaskFailedError",
    "TaskHubGrpcWorker",
    "UnserializableResult",
    "WakeTask",
    "activity_output_type",
    "converter_of",
    "new_failure_details",
    "new_schedule_task_action",
    "pb",
    "qualified_name",
    "self_check",
    "task",
]

ActivityContext = task.ActivityContext


# -- being told when a task completes ---------------------------------------------------------------------------------


class Listener(Protocol):
    """What upstream calls when a task completes: the one method of `CompositeTask` that completion goes through."""

    def on_child_completed(self, task: task.Task[Any]) -> None:
        """Called once, when `task` has completed."""
        ...


listeners_by_key: Callable[[task.Task[Any]], dict[int, Listener]] = operator.attrgetter("_parents")
"""The listeners of a task, by the key they were added under.

The public way to be told is a `CompositeTask` per task, an object that does nothing but pass the call on; see
`benchmarks/hot_path.py`, `composite_task`.
"""


def is_task(value: object) -> TypeGuard[task.Task[Any]]:
    """Whether `value` is a task that can be listened to; a class has to call upstream's constructor for that."""
    return isinstance(value, task.Task) and isinstance(getattr(cast("Any", value), "_parents", None), dict)


def add_listener(upstream_task: task.Task[Any], key: int, listener: Listener) -> None:
    """Call `listener` when `upstream_task` completes; `key` is the `id` of what waits for it."""
    listeners_by_key(upstream_task)[key] = listener


def listeners_of_step(context: Any, sequence: int) -> list[Any]:
    """Return the listeners of the pending task with that sequence number."""
    pending = context._pending_tasks.get(sequence)
    return [] if pending is None else list(pending._parents.values())


def details_of(error: task.TaskFailedError) -> pb.TaskFailureDetails:
    """Return the failure details that an error for a failed operation was made of."""
    return error._failure_details


def task_under(context: Any, sequence: int) -> Any:
    """Return the incomplete task with that sequence number, or `None`."""
    return context._pending_tasks.get(sequence)


def kind_of_task(waiting: Any) -> str:
    """Return the kind of the operation that listens to a task, as `Operation.kind`; else `task`."""
    return next(
        (kind for each in waiting._parents.values() if isinstance(kind := getattr(each, "kind", None), str)), "task"
    )


def name_of_task(context: Any, sequence: int) -> str:
    """Return the name of the activity or orchestrator that was called under that number; else `#number`.

    A task does not know its name.  Known are those of async workflows, whose operation listens, of calls with a retry
    policy, and of calls that the engine has not confirmed.
    """
    for listener in listeners_of_step(context, sequence):
        name = getattr(listener, "name", None)
        if isinstance(name, str):
            return name
    action = getattr(context._pending_tasks.get(sequence), "_action", None) or context._pending_actions.get(sequence)
    kind = None if action is None else action.WhichOneof(ACTION_KIND)
    return str(getattr(getattr(action, kind), "name", "")) if kind else f"#{sequence}"


class WakeTask(task.Task[None]):
    """The one upstream task that an async workflow ever yields; complete whenever its loop has something to do.

    Upstream resumes a generator while the task it yielded is complete, so one reusable flag does what a `when_any` over
    everything outstanding would do, without being rebuilt for each wait.  It never fails: upstream would throw into a
    generator that has already returned.
    """

    # Upstream's are properties over private attributes; these plain attributes hide them.
    is_complete: bool = False  # pyright: ignore[reportIncompatibleMethodOverride]
    is_failed: bool = False  # pyright: ignore[reportIncompatibleMethodOverride]

    def get_result(self) -> None:
        """Return `None`; upstream sends it into the generator, which ignores it."""


# -- what is pending --------------------------------------------------------------------------------------------------

sequence_number: Callable[[Any], int] = operator.attrgetter("_sequence_number")
"""The sequence number of the action that was scheduled last, under which the history records the operation."""


def pending_task(context: Any, sequence: int, key: int) -> task.Task[Any] | None:
    """Return the incomplete task with that sequence number that has a listener under `key`.

    A timer that is longer than the worker's interval continues under a new number for each interval, hence the search
    when the number is no longer its own.
    """
    found = context._pending_tasks.get(sequence)
    if found is not None and key in found._parents:
        return cast("task.Task[Any]", found)
    for candidate in context._pending_tasks.values():
        if key in candidate._parents:
            return cast("task.Task[Any]", candidate)
    return None


def pending_event(context: Any, name: str, key: int) -> task.CancellableTask[Any] | None:
    """Return the wait for the external event `name` that has a listener under `key`."""
    for waiting in context._pending_events.get(name.casefold(), ()):
        if key in waiting._parents:
            return cast("task.CancellableTask[Any]", waiting)
    return None


def event_waits(context: Any) -> list[tuple[str, list[Any]]]:
    """Return the waits for external events: the name in lower case, and the listeners of each."""
    return [
        (name, list(waiting._parents.values()))
        for name, several in context._pending_events.items()
        for waiting in several
        if not waiting.is_complete
    ]


def describe_yielded(context: Any) -> tuple[str, str]:
    """Describe the task that a generator has yielded, and return the name of the event if it waits for one."""
    yielded: Any = getattr(context, "_previous_task", None)
    for name, several in context._pending_events.items():
        if yielded in several:
            return "", name
    kind = cast("type[object]", type(yielded))
    if issubclass(kind, task.TimerTask):
        return "timer", ""
    if issubclass(kind, task.CompositeTask):
        name = "when_any" if issubclass(kind, task.WhenAnyTask) else "when_all"
        return f"{name} of {len(yielded.get_tasks())} tasks", ""
    for number, pending in context._pending_tasks.items():
        if pending is yielded:
            return f"{name_of_task(context, number)!r}", ""
    return "a task", ""


def requested_timer(context: Any, sequence: int) -> int | None:
    """Return when a timer fires that the engine has not confirmed, in nanoseconds since the epoch, or `None`."""
    action = context._pending_actions.get(sequence)
    if action is None or not action.HasField("createTimer"):
        return None
    fires_at: int = action.createTimer.fireAt.ToNanoseconds()
    return fires_at


def sends_event_to(context: Any, sequence: int, instance_id: str) -> bool:
    """Whether the action with that number, which is not confirmed, sends an event to that instance."""
    action = context._pending_actions.get(sequence)
    return action is not None and action.sendEvent.instance.instanceId == instance_id


def child_of_step(context: Any, sequence: int) -> str:
    """Return the id of the sub-orchestration that has just been scheduled under that number."""
    child: str = getattr(context._pending_actions[sequence], CHILD).instanceId
    return child


def is_pending_action(context: Any, sequence: int) -> bool:
    """Whether the action with that number has not been confirmed by the engine."""
    return sequence in context._pending_actions


def cancel_timer(context: Any, timer: task.TimerTask, sequence: int) -> None:
    """Cancel `timer`; if the engine already has it, its firing is ignored.

    Upstream forgets a cancelled timer at once; when the engine fires it all the same, its worker logs a warning about
    an unexpected event for what is an everyday case.  A new task under the same number, which nothing waits for,
    prevents that, and changes no action.
    """
    pending = context._pending_tasks
    if pending.get(sequence) is not timer:  # A long timer, by now under the number of a later interval.
        sequence = next((number for number in reversed(pending) if pending[number] is timer), sequence)
    sent = sequence in pending and sequence not in context._pending_actions
    timer.cancel()
    if sent:
        pending[sequence] = task.TimerTask()


# -- actions on their way out -----------------------------------------------------------------------------------------


def action_continues_as_new(action: Any) -> bool:
    """Whether an action ends an execution that has continued as new."""
    return bool(action.HasField(END) and getattr(getattr(action, END), END_STATUS) == _CONTINUED_AS_NEW)


_CONTINUED_AS_NEW = pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW


def tag_actions(context: Any, tags_of: dict[int | None, dict[str, str]]) -> None:
    """Add `tags_of[sequence]` to the sub-orchestrations that `context` is about to send, now and at each retry.

    `tags_of[None]` go to the next execution, if this one continues as new.  Upstream's calls have no parameter for
    tags, and a retry builds the action again; so they are added to the actions of each turn.
    """
    original = context.get_actions

    def get_actions() -> list[pb.OrchestratorAction]:
        actions = cast("list[pb.OrchestratorAction]", original())
        for action in actions:
            if action.HasField(CHILD):
                getattr(action, CHILD).tags.update(tags_of.get(action.id, {}))
            elif action_continues_as_new(action):
                getattr(action, END).tags.update(tags_of.get(None, {}))
        return actions

    context.get_actions = get_actions


def converter_of(owner: Any) -> Any:
    """Return the data converter of upstream's context, or of the state of an instance that a client has returned."""
    return owner._data_converter


def serializer(context: Any) -> Any:
    """Return what `context` serialises inputs and results with; it raises `TypeError` or `ValueError`."""
    return context._data_converter.serialize


# -- entity locks -----------------------------------------------------------------------------------------------------


def exit_critical_section(context: Any) -> None:
    """Release the entity locks of `context`, as leaving upstream's `EntityLock` does."""
    context._exit_critical_section()


class _AvailableLocks(list[Any]):
    """The locked entities without a call outstanding, apart from the list of all that are locked.

    Upstream has one list for both.  This list passes on to the other one what upstream does to it, except for the
    removal of an entity with a call outstanding.
    """

    def __init__(self, locked: list[Any]) -> None:
        super().__init__(locked)
        self._locked = locked
        self._called: list[Any] = []

    def remove(self, entity: Any) -> None:
        super().remove(entity)
        self._called.append(entity)

    def append(self, entity: Any) -> None:
        super().append(entity)
        if entity in self._called:
            self._called.remove(entity)
            self._locked.remove(entity)
        # At the end, because the messages of release are sent in this order.  An entity that was called before the
        # lock, and is not locked, is appended too: it gets a release that it ignores.
        self._locked.append(entity)


def separate_available_locks(lock: Any) -> None:
    """Give the list of unused locks a list of its own.

    Upstream's `complete_acquire` makes it the very list of all locks held, from which an outstanding call is taken
    out: leaving the lock then sends no unlock message for that entity, which stays locked forever.
    """
    entities = lock._context._entity_context
    if entities.available_locks is entities.critical_section_locks:
        entities.available_locks = _AvailableLocks(entities.critical_section_locks)


# -- how an execution ends --------------------------------------------------------------------------------------------


def is_finished(context: Any) -> bool:
    """Whether upstream has recorded an end for this execution: a result, a failure or a termination."""
    return bool(context._is_complete)


def has_continued_as_new(context: Any) -> bool:
    """Whether this execution has continued as new."""
    return bool(context._completion_status == _CONTINUED_AS_NEW)


def generator_of(context: Any) -> Any:
    """Return the generator that upstream drives; `None` before the start and for orchestrators that are none."""
    return context._generator


def has_unsent_end(context: Any) -> bool:
    """Whether upstream takes the execution for complete, and has no action that tells the engine so.

    It is left in that state when the data converter raises what upstream does not expect there, a `RecursionError` for
    example, while it writes the result: no failure is recorded any more, and the instance would stay running forever.
    """
    return (
        context._is_complete
        and context._completion_status == pb.ORCHESTRATION_STATUS_COMPLETED
        and not any(action.HasField(END) for action in context._pending_actions.values())
    )


def reopen_unsent_end(context: Any) -> None:
    """Undo the end of an execution that upstream has not sent, so that a failure can be recorded."""
    if has_unsent_end(context):
        context._is_complete = False


def is_mismatch(error: Any) -> bool:
    """Whether upstream raised `error` because history and code do not fit."""
    if isinstance(error, task.NonDeterminismError):
        return True
    # When the code has ended at this step, upstream fails to name what it did (a `NotImplementedError`).
    action = mismatch_context(error).action if isinstance(error, NotImplementedError) else None
    return action is not None and action.HasField(END)


def is_own_mismatch(error: BaseException) -> bool:
    """Whether `error` is a mismatch that upstream itself has found, and not an exception of the workflow's code."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    raised_in = None if traceback is None else traceback.tb_frame.f_globals.get("__name__")
    return raised_in == dialect.EXECUTOR_MODULE and is_mismatch(error)


def is_unregistered(error: BaseException) -> bool:
    """Whether the worker has no orchestrator of the name that the history has."""
    return isinstance(error, dialect.OrchestratorNotRegisteredError)


class MismatchContext(NamedTuple):
    """What upstream was comparing when it raised a mismatch."""

    context: Any
    event: pb.HistoryEvent | None
    action: pb.OrchestratorAction | None


def mismatch_context(error: BaseException) -> MismatchContext:
    """Return upstream's context, the history event and the action it was comparing when it raised `error`.

    Taken from the frames of the traceback: upstream's message has the facts as prose only, and not all of them.
    """
    context, found, compared = None, None, None
    traceback = error.__traceback__
    while traceback is not None:
        names = traceback.tb_frame.f_locals
        event, action = names.get("event"), names.get("action")
        if isinstance(event, pb.HistoryEvent):
            context, found = names.get("ctx"), event
            compared = action if isinstance(action, pb.OrchestratorAction) else None
        traceback = traceback.tb_next
    return MismatchContext(context, found, compared)


def _reopen(context: Any) -> None:
    """Undo the end of an execution whose history continues.

    Upstream ignores a mismatch that it finds after the code has returned, and has by then lost the completion of which
    it is one: it answers with no action at all, and the instance hangs.
    """
    if context._completion_status == pb.ORCHESTRATION_STATUS_TERMINATED:
        return
    context._is_complete = False
    for sequence, action in list(context._pending_actions.items()):
        if action.HasField(END):
            del context._pending_actions[sequence]


def on_failure(context: Any, translate: Any) -> None:
    """Let `translate(context, error)` say what to record when upstream is about to fail this execution.

    Set on the one context object, for the failures that upstream raises outside of workflow code: a history that does
    not match, and a result that cannot be serialised.
    """
    original = context.set_failed

    def set_failed(error: Any) -> None:
        if is_mismatch(error) or has_unsent_end(context):
            _reopen(context)
        original(translate(context, error))

    context.set_failed = set_failed
    setattr(context, _TRANSLATE, translate)


_TRANSLATE = "_durabletask_aio_translate"


def translated(context: Any, error: Exception) -> Exception:
    """Return what would be recorded for `error`; the error itself if that is not an async workflow."""
    translate = getattr(context, _TRANSLATE, None)
    return error if translate is None else cast("Exception", translate(context, error))


class NullContext:
    """Accepts every call of a context, schedules nothing and completes nothing.

    It stands in upstream's place when code that is being closed keeps calling: an operation that never completes
    suspends that code at its `await`, where `disposal` can leave it.
    """

    is_replaying = True
    parent_instance_id = None
    version = None
    _sequence_number = 0

    def __init__(self, instance_id: str, now: datetime) -> None:
        self.instance_id = instance_id
        self.current_utc_datetime = now
        # Read below when an operation of this context is cancelled.
        self._pending_tasks: dict[int, Any] = {}
        self._pending_events: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return self._schedule

    def _schedule(self, *args: Any, **kwargs: Any) -> Any:
        return task.CompletableTask[Any]()


# -- running turns ----------------------------------------------------------------------------------------------------


class HistoryExecutor(ExecutorBase):
    """Upstream's executor of a history, with names for what its subclass `TurnExecutor` needs.

    `continue_live` is upstream's `execute` written out again, because a turn that continues a live instance must not
    begin with an empty context; `tests/test_upstream.py` compares the two and fails when upstream changes its own.
    """

    recorded: Sequence[pb.HistoryEvent] = ()
    """The whole history, if a recorded one is replayed that continues after this turn."""

    unlisted_event: str | None = None
    """The name of an event, in lower case, that every orchestrator waits for and that is no part of its code."""

    context: Any = None
    """Upstream's `_RuntimeOrchestrationContext` once the first event has been processed."""

    @property
    def logger(self) -> logging.Logger:
        """Where upstream and we log what happens in a turn."""
        return self._logger

    @property
    def exception_properties_provider(self) -> Any:
        """Upstream's provider of properties of exceptions, or `None`."""
        return self._exception_properties_provider

    @property
    def is_suspended(self) -> bool:
        """Whether the instance is suspended."""
        return self._is_suspended

    @is_suspended.setter
    def is_suspended(self, suspended: bool) -> None:
        self._is_suspended = suspended

    @property
    def is_complete(self) -> bool:
        """Whether the instance has reached an end, continue-as-new included; also true if it never began."""
        return self.context is None or bool(self.context._is_complete)

    @property
    def awaited_events(self) -> list[str]:
        """The names of the external events that the orchestrator waits for, in lower case."""
        names: Iterable[str] = () if self.context is None else self.context._pending_events
        return [name for name in names if name != self.unlisted_event]

    @property
    def has_continued_as_new(self) -> bool:
        """Whether the instance has continued as new."""
        return self.context is not None and has_continued_as_new(self.context)

    @property
    def outstanding(self) -> list[str]:
        """The activities and sub-orchestrations that have no result yet, in the order of their calls."""
        pending: dict[int, Any] = {} if self.context is None else self.context._pending_tasks
        return [
            f"{kind_of_task(waiting)} {name_of_task(self.context, number)!r}"
            for number, waiting in sorted(pending.items())
            if not isinstance(waiting, task.TimerTask)
        ]

    @property
    def trace_context(self) -> Any:
        """The trace context of the orchestration's span, or `None` if it is not traced."""
        return None if self.context is None else self.context._orchestration_trace_context

    def open(self, instance_id: str) -> None:
        """Make an empty context, marked as replaying, to which events are fed one by one."""
        self.context = dialect.new_context(self, instance_id)
        self.context._is_replaying = True
        self._orchestration_name = ""

    def set_replaying(self, is_replaying: bool) -> None:
        """Say whether the events that follow are being replayed."""
        self.context._is_replaying = is_replaying

    def fail(self, error: Exception | pb.TaskFailureDetails) -> None:
        """Mark the instance as failed."""
        self.context.set_failed(error)

    def terminate(self, event: pb.HistoryEvent) -> ExecutionResults:
        """End a diverged instance as terminated, without the actions of its code.

        Args:
            event: the event that asks for it.
        """
        self.context._is_complete = False
        self.context._pending_actions.clear()
        # Releases the entity locks that the instance holds.
        super().process_event(self.context, event)
        return self._results(self.context.instance_id, self._orchestration_name)

    def fail_turn(self, error: Exception | pb.TaskFailureDetails) -> ExecutionResults:
        """End the turn as that of an instance that fails, whatever its code has done in it.

        As with any failure, what the code has scheduled is sent, because it may release locks; but not if the code has
        not caught up with its history, since the history may have it.

        Args:
            error: what is recorded.
        """
        ctx = self.context
        if ctx._is_replaying:
            ctx._pending_actions.clear()
        _reopen(ctx)
        ctx.set_failed(error)
        return self._results(ctx.instance_id, self._orchestration_name)

    def keep_actions_in(self, actions: dict[int, pb.OrchestratorAction]) -> None:
        """Collect the actions of the instance in this mapping from now on; called before its first event."""
        self.context._pending_actions = actions

    def take_actions(self) -> list[pb.OrchestratorAction]:
        """Return the actions that are to be sent."""
        actions: list[pb.OrchestratorAction] = self.context.get_actions()
        return actions

    def continue_live(
        self,
        instance_id: str,
        old_events: Sequence[pb.HistoryEvent],
        processed: int,
        new_events: Sequence[pb.HistoryEvent],
    ) -> ExecutionResults:
        """Run a turn with the context of the previous one and only the events it has not processed."""
        ctx = self.context
        name = next((e.executionStarted.name for e in old_events if e.HasField("executionStarted")), "<unknown>")
        self._orchestration_name = name
        try:
            unseen = old_events[processed:]
            self._logger.debug(
                "%s: Continuing live instance of %s with %d history event...", instance_id, name, len(unseen)
            )
            ctx._is_replaying = True
            for event in unseen:
                self.process_event(ctx, event)
            if self._logger.level <= logging.DEBUG:
                summary = dialect.summary("_get_new_event_summary")(new_events)
                self._logger.debug("%s: Processing %d new event(s): %s", instance_id, len(new_events), summary)
            ctx._is_replaying = False
            for event in new_events:
                self.process_event(ctx, event)
        except Exception as error:
            self._logger.debug("%s: Orchestration %s failed", instance_id, name)
            ctx.set_failed(error)
        return self._results(instance_id, name)

    def continue_paused(
        self, instance_id: str, resume: Callable[[], None], new_events: Sequence[pb.HistoryEvent]
    ) -> ExecutionResults:
        """Continue a turn in which the code has waited for a step.

        Args:
            instance_id: the instance.
            resume: continues the code.
            new_events: those of the turn that have not been processed.
        """
        ctx = self.context
        try:
            resume()
            for event in new_events:
                self.process_event(ctx, event)
        except Exception as error:
            self._logger.debug("%s: Orchestration %s failed", instance_id, self._orchestration_name)
            ctx.set_failed(error)
        return self._results(instance_id, self._orchestration_name)

    def _results(self, instance_id: str, name: str) -> ExecutionResults:
        ctx = self.context
        if not ctx._is_complete:
            self._logger.info(
                "%s: Orchestrator %s yielded with %d task(s) and %d event(s) outstanding.",
                instance_id,
                name,
                len(ctx._pending_tasks),
                len(self.awaited_events),
            )
        elif ctx._completion_status and ctx._completion_status is not _CONTINUED_AS_NEW:
            status = dialect.status_name(ctx._completion_status)
            self._logger.info("%s: Orchestration %s completed with status: %s", instance_id, name, status)
        actions = ctx.get_actions()
        if self._logger.level <= logging.DEBUG:
            summary = dialect.summary("_get_action_summary")(actions)
            self._logger.debug("%s: Returning %d action(s): %s", instance_id, len(actions), summary)
        return dialect.new_results(ctx, actions)

    def _build_rewind_result(
        self,
        instance_id: str,
        orchestration_name: str,
        old_events: Sequence[pb.HistoryEvent],
        new_events: Sequence[pb.HistoryEvent],
    ) -> ExecutionResults:
        """Rewrite the history of a failed instance; called by upstream."""
        result: ExecutionResults = super()._build_rewind_result(instance_id, orchestration_name, old_events, new_events)
        removed = self.events_to_remove(old_events, instance_id)
        if removed is not None:
            history = result.actions[0].rewindOrchestration.newHistory
            # Upstream's copy of it, with the ids of the new executions.
            started = [event for event in history if event.HasField("executionStarted")]
            kept = [event for position, event in enumerate(old_events) if position not in removed]
            rewritten = [
                started.pop(0) if event.HasField("executionStarted") and started else event
                for event in (*kept, *new_events)
            ]
            action = pb.OrchestratorAction(id=-1)
            action.rewindOrchestration.newHistory.extend(rewritten)
            return ExecutionResults(actions=[action], encoded_custom_status=None)
        return result

    def events_to_remove(self, history: Sequence[pb.HistoryEvent], instance_id: str) -> set[int] | None:
        """Return the positions of the events that a rewind takes out; `None` for what upstream takes out."""
        return None

    def detach_request(self) -> None:
        """Copy what is kept of the messages of the last turn: one of them would keep the whole history in memory."""
        ctx = self.context
        if ctx._parent_trace_context is not None:
            ctx._parent_trace_context = _copied(ctx._parent_trace_context)
        if self._suspended_events:
            self._suspended_events = [_copied(event) for event in self._suspended_events]
        # Replayed completions are never removed from this table, and only pending tasks are ever looked up in it.
        self._task_scheduled_info = {
            task_id: (*info[:4], _copied(info[4]), info[5])
            for task_id, info in self._task_scheduled_info.items()
            if task_id in ctx._pending_tasks
        }

    def fresh_copy(self, logger: logging.Logger) -> Any:
        """Return a new executor of this class with the same settings, which logs to `logger`."""
        return type(self)(
            self._registry,
            logger,
            self._data_converter,
            persisted_orch_span_id=self._persisted_orch_span_id,
            maximum_timer_interval=self._maximum_timer_interval,
            exception_properties_provider=self._exception_properties_provider,
        )


def _copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def is_executor(candidate: Any) -> bool:
    """Whether an object runs the turns of an instance, as upstream's executor or one of this project."""
    return isinstance(candidate, ExecutorBase)
