"""Every private name of ``durabletask`` that this package touches, and what it relies on.

Nothing of upstream is patched here.  Two kinds of seam are used: attributes of one worker *instance*, and twins of
upstream's own functions (:mod:`.twins`), which run the same code but find another class under one global name.  A twin
is why our turn and our activities cannot drift from upstream's: they are upstream's.

The one piece of upstream that is written out again is the end of ``_OrchestrationExecutor.execute`` (see
:meth:`OrchestrationExecutor.execute`), because a turn that continues a live instance must not begin with an empty one.
``tests/test_upstream.py`` says so in a sentence when upstream changes it.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import durabletask.internal.orchestrator_service_pb2 as pb
import durabletask.worker as upstream
from durabletask import task
from durabletask.internal import helpers, tracing, type_discovery
from durabletask.payload import helpers as payload_helpers

from durabletask_aio.core import failures
from durabletask_aio.core._upstream import has_unsent_end
from durabletask_aio.core.driver import WorkflowRun
from durabletask_aio.core.errors import message_of
from durabletask_aio.worker.spans import orchestration_spans
from durabletask_aio.worker.twins import twin

if TYPE_CHECKING:
    from durabletask.payload.store import PayloadStore
    from durabletask.serialization import DataConverter

__all__ = [
    "SERVER",
    "OrchestrationExecutor",
    "helpers",
    "payload_helpers",
    "pb",
    "task",
    "tracing",
    "type_discovery",
]

# Chosen at run time by upstream, which may have to do without OpenTelemetry.
SERVER: Any = cast(Any, tracing).SpanKind.SERVER

Worker: TypeAlias = upstream.TaskHubGrpcWorker
SubmitWorkItem: TypeAlias = Callable[..., None]

_NEEDED: dict[str, tuple[str, ...]] = {
    "TaskHubGrpcWorker": ("_execute_orchestrator", "_execute_activity", "_execute_entity_batch", "start", "stop"),
    "_OrchestrationExecutor": ("execute", "process_event"),
    "_ActivityExecutor": ("execute",),
    "_EntityExecutor": ("execute",),
    "_RuntimeOrchestrationContext": ("set_failed", "get_actions"),
    "_AsyncWorkerManager": ("submit_activity", "submit_orchestration", "_run_func"),
    "_Registry": ("add_named_orchestrator", "add_named_activity", "get_orchestrator", "get_activity"),
    "ExecutionResults": (),
    "_get_new_event_summary": (),
    "_get_action_summary": (),
}


def missing_names(module: Any = upstream) -> list[str]:
    """What this package needs of ``durabletask.worker`` and does not find there."""
    missing: list[str] = []
    for name, attributes in _NEEDED.items():
        owner = getattr(module, name, None)
        if owner is None:
            missing.append(name)
        else:
            missing.extend(f"{name}.{attribute}" for attribute in attributes if not hasattr(owner, attribute))
    return missing


def self_check(module: Any = upstream) -> None:
    """Raise :class:`ImportError`, naming what is missing, if this ``durabletask`` is one we do not know."""
    missing = missing_names(module)
    if missing:
        try:
            installed = version("durabletask")
        except PackageNotFoundError:
            installed = "of unknown version"
        raise ImportError(
            f"durabletask {installed} lacks {', '.join(missing)}, which durabletask-aio-worker builds on; install a "
            "release of durabletask that the README of durabletask-aio-worker names, or upgrade durabletask-aio-worker"
        )


self_check()


# Twins ----------------------------------------------------------------------------------------------------------


def orchestrator_turn(make_executor: Callable[..., Any]) -> Callable[..., None]:
    """``TaskHubGrpcWorker._execute_orchestrator``, asking ``make_executor`` for the executor of the turn."""
    return twin(upstream.TaskHubGrpcWorker._execute_orchestrator, _OrchestrationExecutor=make_executor)


def activity_execution(make_context: Callable[[str, int], task.ActivityContext]) -> Callable[..., None]:
    """``TaskHubGrpcWorker._execute_activity``, asking ``make_context`` for the activity's context."""

    class Executor(upstream._ActivityExecutor):
        # Assigned below: a function in the class body would add a frame to every traceback an activity reports.
        pass

    cast(Any, Executor).execute = twin(
        upstream._ActivityExecutor.execute, task=SimpleNamespace(ActivityContext=make_context)
    )
    return twin(
        upstream.TaskHubGrpcWorker._execute_activity,
        _ActivityExecutor=Executor,
        ph=SimpleNamespace(get_string_value=helpers.get_string_value, new_failure_details=activity_failure_details),
    )


class _EntityFailure(Exception):
    """An error that upstream would not survive, on its way to becoming the failure of one entity operation."""

    def __init__(self, original: BaseException) -> None:
        super().__init__(f"{type(original).__name__}: {message_of(original)}")
        self.original = original


class _EntityExecutor(upstream._EntityExecutor):
    def execute(self, *args: Any, **keywords: Any) -> str | None:
        try:
            return super().execute(*args, **keywords)
        except BaseException as error:
            if isinstance(error, Exception) and failures.is_recordable(error):
                raise
            raise _EntityFailure(error) from error


def entity_execution() -> Callable[..., Any]:
    """``TaskHubGrpcWorker._execute_entity_batch``, where ``SystemExit`` fails one operation and not the worker."""

    def details(error: Exception, provider: Any, logger: logging.Logger) -> pb.TaskFailureDetails:
        original = error.original if isinstance(error, _EntityFailure) else error
        return activity_failure_details(original, provider, logger)

    return twin(
        upstream.TaskHubGrpcWorker._execute_entity_batch,
        _EntityExecutor=_EntityExecutor,
        ph=SimpleNamespace(get_string_value_or_empty=helpers.get_string_value_or_empty, new_failure_details=details),
    )


def overrides_entities(worker: Worker) -> bool:
    """Whether a subclass of upstream's worker has a way of its own to execute entities."""
    return type(worker)._execute_entity_batch is not upstream.TaskHubGrpcWorker._execute_entity_batch


def overrides_turn(worker: Worker) -> bool:
    """Whether a subclass of upstream's worker has a turn of its own, which a twin of upstream's would bypass."""
    return type(worker)._execute_orchestrator is not upstream.TaskHubGrpcWorker._execute_orchestrator


def overrides_activity(worker: Worker) -> bool:
    """The same for activities."""
    return type(worker)._execute_activity is not upstream.TaskHubGrpcWorker._execute_activity


def own_turn(worker: Worker) -> Callable[..., None]:
    """The turn as the worker's class defines it."""
    return cast("Callable[..., None]", type(worker)._execute_orchestrator.__get__(worker))


def own_activity(worker: Worker) -> Callable[..., None]:
    """The execution of an activity as the worker's class defines it."""
    return cast("Callable[..., None]", type(worker)._execute_activity.__get__(worker))


def set_turn(worker: Worker, function: Callable[..., None]) -> None:
    """Bind the turn of this one worker."""
    cast(Any, worker)._execute_orchestrator = function


def set_activity(worker: Worker, function: Callable[..., None]) -> None:
    """Bind the execution of activities of this one worker."""
    cast(Any, worker)._execute_activity = function


def set_entities(worker: Worker, function: Callable[..., Any]) -> None:
    """Bind the execution of entities of this one worker."""
    cast(Any, worker)._execute_entity_batch = function.__get__(worker)


def set_activity_submission(worker: Worker, wrap: Callable[[SubmitWorkItem], SubmitWorkItem]) -> None:
    """Put ``wrap`` around the way activity work items reach this worker's queue.

    Why there: upstream's manager awaits coroutine functions, but upstream's stream reader hides the handler behind a
    plain function that releases the channel, so a coroutine function in place of ``_execute_activity`` would never be
    awaited.
    """
    manager: Any = worker._async_worker_manager
    manager.submit_activity = wrap(manager.submit_activity)


def set_turn_submission(worker: Worker, wrap: Callable[[SubmitWorkItem], SubmitWorkItem]) -> None:
    """The same for the turns of orchestrators."""
    manager: Any = worker._async_worker_manager
    manager.submit_orchestration = wrap(manager.submit_orchestration)


def upstream_methods(worker: Worker) -> bool:
    """Whether this worker still has every method of upstream's class: the promise to workers without async code."""
    names = ("_execute_orchestrator", "_execute_activity", "_execute_entity_batch", "start", "stop", "add_entity")
    own: dict[str, Any] = vars(worker)
    manager: dict[str, Any] = vars(worker._async_worker_manager)
    return not any(name in own for name in names) and not {"submit_activity", "submit_orchestration"} & manager.keys()


# The worker -----------------------------------------------------------------------------------------------------


def is_running(worker: Worker) -> bool:
    return worker._is_running


def logger_of(worker: Worker) -> logging.Logger:
    return worker._logger


def data_converter_of(worker: Worker) -> DataConverter:
    return worker._data_converter


def payload_store_of(worker: Worker) -> PayloadStore | None:
    return worker._payload_store


def exception_properties_of(worker: Worker) -> Any:
    return worker._exception_properties_provider


def thread_pool_of(worker: Worker) -> ThreadPoolExecutor:
    return worker._async_worker_manager.thread_pool


def pool_size_of(worker: Worker) -> int:
    """How many threads upstream's pool has."""
    return worker.concurrency_options.maximum_thread_pool_workers


def emits_trace_spans(worker: Worker) -> bool:
    return worker._emit_trace_spans


def activity_started(worker: Worker, request: pb.ActivityRequest) -> None:
    worker._on_activity_execution_started(request)


def activity_completed(worker: Worker, request: pb.ActivityRequest) -> None:
    worker._on_activity_execution_completed(request)


def run_loop_thread(worker: Worker) -> Any:
    """The thread of upstream's run loop, or ``None`` if the worker was never started."""
    return worker._runLoop


# The registry ---------------------------------------------------------------------------------------------------


def find_orchestrator(worker: Worker, name: str) -> Callable[..., Any] | None:
    return worker._registry.get_orchestrator(name)


def find_activity(worker: Worker, name: str) -> Callable[..., Any] | None:
    return worker._registry.get_activity(name)


def register_orchestrator(worker: Worker, name: str, function: Callable[..., Any]) -> None:
    """Raises upstream's :class:`ValueError` if the name is empty or taken."""
    worker._registry.add_named_orchestrator(name, function)


def replace_orchestrator(worker: Worker, name: str, function: Callable[..., Any]) -> None:
    worker._registry.orchestrators[name] = function


def register_activity(worker: Worker, name: str, function: Callable[..., Any]) -> None:
    """Raises upstream's :class:`ValueError` if the name is empty or taken."""
    worker._registry.add_named_activity(name, function)


# One instance between its turns ---------------------------------------------------------------------------------


# What an engine writes into the history when it has taken an action; no workflow code runs at any of them.
_CONFIRMATIONS = frozenset(
    {
        "entityLockRequested",
        "entityOperationCalled",
        "entityOperationSignaled",
        "entityUnlockSent",
        "eventSent",
        "subOrchestrationInstanceCreated",
        "taskScheduled",
        "timerCreated",
    }
)


class TurnAborted(Exception):
    """The instance has already been marked as failed; the rest of the batch must not reach its user code."""


class OrchestrationExecutor(upstream._OrchestrationExecutor):
    """Upstream's executor, which also survives ``BaseException`` and can go on with an instance that is still alive.

    The whole executor is kept between turns and not only its context: suspension, buffered events and the times of
    timers live here.
    """

    context: Any = None
    """Upstream's ``_RuntimeOrchestrationContext`` once the first event has been processed."""

    seen: int | None = None
    """How many events of the history this instance has already processed; ``None`` before its first turn."""

    actions: Sequence[pb.OrchestratorAction] = ()
    """What the instance wanted in its last turn, before large payloads were moved out of it."""

    is_async = False
    """Whether the spans that user code starts are to be kept from repeating, as they are not for generators."""

    _confirmed: frozenset[tuple[str, int]] = frozenset()
    """What was confirmed during the present suspension."""

    def process_event(self, ctx: Any, event: pb.HistoryEvent) -> None:
        self.context = ctx
        if self._is_suspended:
            kind = event.WhichOneof("eventType")
            if kind == "executionSuspended":
                # Upstream buffers a second suspension like any event.  On resuming it suspends again in the middle of
                # the loop over the buffer, which from there on appends to the list it iterates over, for ever.
                return
            if kind in _CONFIRMATIONS and self._is_async(ctx):
                self._confirm(ctx, event, kind)
                return
            if kind == "executionResumed":
                self._confirmed = frozenset()
        self._process(ctx, event)

    @staticmethod
    def _is_async(ctx: Any) -> bool:
        """Whether the instance is an async workflow; generators keep upstream's behaviour, its defects included."""
        return getattr(ctx._generator, "gi_code", None) is WorkflowRun.drive.__code__

    def _confirm(self, ctx: Any, event: pb.HistoryEvent, kind: str) -> None:
        """Take note, while suspended, that the engine has what the instance asked for before.

        Upstream buffers these events too.  What they confirm then counts as not sent, and every turn until the resume
        sends it again: an activity whose completion makes the next turn runs for as long as the instance is suspended.
        They are no business of the suspension, since they run no workflow code.
        """
        confirmed = (kind, event.eventId)
        if confirmed in self._confirmed and event.eventId not in ctx._pending_actions:
            return  # A history that a generator of this name has left behind, on a worker that sent things twice.
        self._is_suspended = False
        try:
            self._process(ctx, event)
        finally:
            self._is_suspended = True
        self._confirmed |= {confirmed}

    def _process(self, ctx: Any, event: pb.HistoryEvent) -> None:
        was_suspended = self._is_suspended
        try:
            super().process_event(ctx, event)
        except BaseException as error:
            if not was_suspended and event.HasField("executionResumed") and self._is_async(ctx):
                # Somebody has resumed what runs, or the suspension ended with an execution that has continued as new
                # meanwhile.  Upstream does not know how to handle the event, and would fail the instance for it.
                return
            if has_unsent_end(ctx):
                ctx._is_complete = False
            if isinstance(error, Exception) and failures.is_recordable(error):
                raise
            # Upstream catches Exception only: SystemExit would end the worker's run loop and with it every other
            # instance, CancelledError would leave this one hanging for ever.  And what it cannot describe it cannot
            # answer: the engine would send this turn again, and again.
            ctx.set_failed(failure_details(error, self._exception_properties_provider, self._logger))
            raise TurnAborted from None

    def execute(
        self, instance_id: str, old_events: Sequence[pb.HistoryEvent], new_events: Sequence[pb.HistoryEvent]
    ) -> upstream.ExecutionResults:
        try:
            with orchestration_spans(self._orchestration_span) if self.is_async else nullcontext():
                if self.seen is None:
                    result = super().execute(instance_id, old_events, new_events)
                else:
                    result = self._continue(instance_id, old_events, new_events)
            self.actions = result.actions
            return result
        except BaseException as error:
            if isinstance(error, Exception) and failures.is_recordable(error):
                raise
            failure = f"{type(error).__name__} while a turn of '{instance_id}' was finished: {message_of(error)}"
        # A data converter, say, while the actions are written.  Upstream turns this into a failure.  Out here, or what
        # it must not see would be recorded as the cause.
        raise RuntimeError(failure)

    def _continue(
        self, instance_id: str, old_events: Sequence[pb.HistoryEvent], new_events: Sequence[pb.HistoryEvent]
    ) -> upstream.ExecutionResults:
        """What upstream's ``execute`` does, with the context of the previous turn and only what it has not seen.

        A rewind never comes here, and neither does an empty batch (see ``sessions``).
        """
        ctx = self.context
        name = next((e.executionStarted.name for e in old_events if e.HasField("executionStarted")), "<unknown>")
        self._orchestration_name = name
        try:
            unseen = old_events[self.seen :]
            self._logger.debug(f"{instance_id}: Continuing live instance of {name} with {len(unseen)} history event...")  # noqa: G004
            ctx._is_replaying = True
            for event in unseen:
                self.process_event(ctx, event)
            if self._logger.level <= logging.DEBUG:
                summary = upstream._get_new_event_summary(new_events)
                self._logger.debug(f"{instance_id}: Processing {len(new_events)} new event(s): {summary}")  # noqa: G004
            ctx._is_replaying = False
            for event in new_events:
                self.process_event(ctx, event)
        except Exception as error:
            self._logger.debug(f"{instance_id}: Orchestration {name} failed")  # noqa: G004
            ctx.set_failed(error)

        if not ctx._is_complete:
            self._logger.info(
                f"{instance_id}: Orchestrator {name} yielded with {len(ctx._pending_tasks)} task(s) "  # noqa: G004
                f"and {len(ctx._pending_events)} event(s) outstanding."
            )
        elif ctx._completion_status and ctx._completion_status is not pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
            status = helpers.get_orchestration_status_str(ctx._completion_status)
            self._logger.info(f"{instance_id}: Orchestration {name} completed with status: {status}")  # noqa: G004

        actions = ctx.get_actions()
        if self._logger.level <= logging.DEBUG:
            self._logger.debug(
                f"{instance_id}: Returning {len(actions)} action(s): {upstream._get_action_summary(actions)}"  # noqa: G004
            )
        return upstream.ExecutionResults(
            actions=actions,
            encoded_custom_status=ctx._encoded_custom_status,
            orchestration_trace_context=ctx._orchestration_trace_context,
        )

    # What sessions ask --------------------------------------------------------------------------------------

    @property
    def is_complete(self) -> bool:
        """Whether this instance has reached any end, including continue-as-new; true as well if it never began."""
        return self.context is None or self.context._is_complete

    @property
    def span_id(self) -> str | None:
        """The span under which the spans of this instance are grouped, or ``None`` if it is not traced."""
        trace_context = None if self.context is None else self.context._orchestration_trace_context
        return trace_context.spanID if trace_context is not None else None

    def _orchestration_span(self) -> Any:
        trace_context = None if self.context is None else self.context._orchestration_trace_context
        return tracing.extract_trace_context(trace_context)

    def detach(self) -> None:
        """Let go of the request: a message of the history kept here would keep the whole history in memory."""
        ctx = self.context
        self.actions = ()
        if ctx._parent_trace_context is not None:
            ctx._parent_trace_context = _copied(ctx._parent_trace_context)
        if self._suspended_events:
            self._suspended_events = [_copied(event) for event in self._suspended_events]
        # Replayed completions never leave this table, and only pending tasks are ever looked up in it.
        self._task_scheduled_info = {
            task_id: (*info[:4], _copied(info[4]), info[5])
            for task_id, info in self._task_scheduled_info.items()
            if task_id in ctx._pending_tasks
        }

    def close(self) -> None:
        """End the generator of an instance that will not be continued, in this thread and as quietly as replay.

        Of an async workflow only the shell is left by then; closing it takes the instance out of its reference cycle.
        """
        generator = None if self.context is None else self.context._generator
        if generator is None:
            return
        cast(Any, self.context)._is_replaying = True
        try:
            generator.close()
        except BaseException:
            self._logger.debug("An evicted orchestrator raised while it was closed.", exc_info=True)


def _copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def failure_details(error: BaseException, provider: Any, logger: logging.Logger) -> pb.TaskFailureDetails:
    """Upstream's failure details of any exception.

    An empty message becomes ``repr(error)``, because upstream's in-memory engine takes a failed activity without a
    message for a successful one, and ``SystemExit()`` has none.
    """
    details = helpers.new_failure_details(cast(Exception, failures.recordable(error)), provider, logger)
    if not details.errorMessage and not isinstance(error, Exception):
        details.errorMessage = repr(error)
    return details


def activity_failure_details(error: BaseException, provider: Any, logger: logging.Logger) -> pb.TaskFailureDetails:
    """The same of what an activity or an entity raised, which the core has not seen: a group says what is in it."""
    return failure_details(failures.of_activity(error), provider, logger)


def replay_silently(live: OrchestrationExecutor, request: pb.OrchestratorRequest) -> list[pb.OrchestratorAction]:
    """The actions of this turn after a full replay in a fresh executor; ``is_replaying`` is true from start to end."""
    executor = OrchestrationExecutor(
        live._registry,
        _SILENT,
        live._data_converter,
        persisted_orch_span_id=live._persisted_orch_span_id,
        maximum_timer_interval=live._maximum_timer_interval,
        exception_properties_provider=live._exception_properties_provider,
    )
    context: Any = upstream._RuntimeOrchestrationContext(
        request.instanceId,
        live._registry,
        live._data_converter,
        maximum_timer_interval=live._maximum_timer_interval,
        exception_properties_provider=live._exception_properties_provider,
        logger=_SILENT,
    )
    executor.context, executor.seen, executor.is_async = context, 0, live.is_async
    context._is_replaying = True
    spans = orchestration_spans(executor._orchestration_span) if live.is_async else nullcontext()
    with spans, tracing.suppress_span_emission():
        try:
            for event in (*request.pastEvents, *request.newEvents):
                executor.process_event(context, event)
        except Exception as error:
            context.set_failed(error)
        actions: list[pb.OrchestratorAction] = context.get_actions()
        return actions


_SILENT = logging.Logger(  # noqa: LOG001 - nobody should be able to configure it
    "durabletask-aio-shadow", level=logging.CRITICAL + 1
)
