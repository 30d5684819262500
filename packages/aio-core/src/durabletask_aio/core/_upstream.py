"""Every private name of ``durabletask`` that the core touches, and why nothing public would do.

:func:`self_check` runs when the core is imported by the facade: a name that is gone becomes one plain sentence there,
instead of an ``AttributeError`` in the middle of somebody's workflow.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import functools
import math
import operator
import zlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol, cast

from durabletask import task
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal import type_discovery
from durabletask.internal.json_encode_output_exception import JsonEncodeOutputException

__all__ = ["Listener", "UnserializableResult", "Wake", "self_check", "subscribe"]

UnserializableResult = JsonEncodeOutputException


class Listener(Protocol):
    """What upstream calls when a task completes: the one method of ``CompositeTask`` that completion goes through."""

    def on_child_completed(self, task: task.Task[Any]) -> None: ...


subscribers: Callable[[task.Task[Any]], dict[int, Listener]] = operator.attrgetter("_parents")
"""Whom a task tells when it completes, by ``id``.

The public way to be told is a ``CompositeTask`` per task; measured, it costs 0.1 of a replayed step, for an object that
does nothing but pass the call on.  (An ``attrgetter`` is C: this one is asked at each step.)
"""


def subscribe(upstream_task: task.Task[Any], listener: Listener) -> None:
    """Tell ``listener`` when ``upstream_task`` completes."""
    subscribers(upstream_task)[id(listener)] = listener


class Wake(task.Task[None]):
    """The one upstream task that an async workflow ever yields; complete whenever its loop has something to do.

    Upstream resumes a generator while the task it yielded is complete, so one reusable flag does what a ``when_any``
    over everything outstanding would do, without being rebuilt for each wait.  It never fails: upstream would throw
    into a generator that has already returned.
    """

    # Upstream's are properties over private attributes; these shadow them, and are read far more often than written.
    is_complete: bool = False  # pyright: ignore[reportIncompatibleMethodOverride]
    is_failed: bool = False  # pyright: ignore[reportIncompatibleMethodOverride]

    # Returns False, which nobody looks at; a function in C costs a fifth of one in Python.
    get_result: Callable[[], Any] = bool  # pyright: ignore[reportIncompatibleMethodOverride]


_new: Any = object.__new__


def _activity_task(expected_type: type | None) -> task.CompletableTask[Any]:
    """Upstream's task, filled in by hand: its three constructors cost a twentieth of a replayed step."""
    made: task.CompletableTask[Any] = _new(task.CompletableTask)
    made._is_complete = False
    made._exception = None
    made._parents = {}
    made._retryable_parent = None
    made._expected_type = expected_type
    return made


_CALL_ACTIVITY = {
    "call_activity": 3798312299,
    "next_sequence_number": 3215559156,
    "call_activity_function_helper": 3739713078,
}
"""The methods of upstream's context that our ``call_activity`` stands in for, or calls, by the names they use."""

_known: Any = None
"""The latest class of context found to have these; at each step the cache of :func:`_is_known` would cost more."""


def _fingerprint(method: Any) -> int | None:
    code = getattr(method, "__code__", None)
    return None if code is None else zlib.crc32(repr((code.co_names, code.co_varnames)).encode())


@functools.lru_cache(maxsize=8)  # for those that are not, or each of their calls would be looked through again
def _is_known(kind: Any) -> bool:
    global _known
    if any(_fingerprint(getattr(kind, name, None)) != known for name, known in _CALL_ACTIVITY.items()):
        return False
    theirs: task.CompletableTask[Any] = task.CompletableTask(None)
    if vars(_activity_task(None)) != vars(theirs):
        return False
    _known = kind
    return True


def call_activity(
    context: Any,
    activity: Any,
    input: Any,  # noqa: A002 - upstream's name for it
    retry_policy: task.RetryPolicy | None,
    tags: dict[str, str] | None,
    return_type: type | None,
) -> task.Task[Any]:
    """``context.call_activity(...)``, an eighth of a replayed step cheaper.

    Upstream makes two tasks for an activity, of which it throws one away (it is the default in
    ``_pending_tasks.get(id, CompletableTask())``), and both through the ``[...]`` of ``typing``, which takes longer
    than all that the task does.  Given a task and an encoded input, as for a retry, the same method makes none.  A
    context whose methods are not the ones known here, another host's or version's, is asked in the ordinary way.
    """
    kind: Any = type(context)  # pyright: ignore[reportUnknownVariableType]
    if kind is not _known and not _is_known(kind):
        scheduled: task.Task[Any] = context.call_activity(
            activity, input=input, retry_policy=retry_policy, tags=tags, return_type=return_type
        )
        return scheduled
    number = context._sequence_number = context._sequence_number + 1
    if return_type is None and not isinstance(activity, str):
        return_type = type_discovery.activity_output_type(activity, context._data_converter)
    encoded = None if retry_policy is not None else context._data_converter.serialize(input)
    if encoded is None:  # a retry policy wants a task of another class; and no input would be sent as the text "None"
        context.call_activity_function_helper(
            number, activity, input=input, retry_policy=retry_policy, tags=tags, return_type=return_type
        )
        made: task.Task[Any] = context._pending_tasks[number]
    else:
        made = _activity_task(return_type)
        context.call_activity_function_helper(number, activity, input=encoded, tags=tags, fn_task=made)
    return made


class Nowhere:
    """Takes the calls of a context, schedules nothing and completes nothing."""

    is_replaying = True
    parent_instance_id = None
    version = None
    _sequence_number = 0

    def __init__(self, instance_id: str, now: datetime) -> None:
        self.instance_id = instance_id
        self.current_utc_datetime = now
        self._pending_tasks: dict[int, Any] = {}
        self._pending_events: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return self._schedule

    def _schedule(self, *args: Any, **kwargs: Any) -> Any:
        return task.CompletableTask[Any]()


sequence_number: Callable[[Any], int] = operator.attrgetter("_sequence_number")
"""The sequence number of the action that was scheduled last: what the history will call this operation."""


def pending_task(context: Any, sequence: int, listener: Listener) -> task.Task[Any] | None:
    """The incomplete upstream task with that sequence number that ``listener`` subscribed to.

    A timer longer than the worker's chunk goes on under a new number for each chunk, hence the search when the number
    is no longer its own.
    """
    found = context._pending_tasks.get(sequence)
    if found is not None and id(listener) in found._parents:
        return cast("task.Task[Any]", found)
    for candidate in context._pending_tasks.values():
        if id(listener) in candidate._parents:
            return cast("task.Task[Any]", candidate)
    return None


def retryable_task(context: Any, sequence: int | None, listener: Listener) -> task.Task[Any] | None:
    """The incomplete task with a retry policy that ``listener`` subscribed to, running or waiting to be retried."""
    key = id(listener)
    found = context._pending_tasks.get(sequence)
    if found is not None and key in found._parents:
        return cast("task.Task[Any]", found)
    number = _retry_timer(context, key)
    return None if number is None else cast("task.Task[Any]", context._pending_tasks[number]._retryable_parent)


def _retry_timer(context: Any, key: int) -> int | None:
    """The number of the timer after which the task that the listener ``key`` waits for is tried again.

    From an index, made when it does not have the answer: when thousands are cancelled together, as by the end of a
    group, one search through all that is pending then serves them all.
    """
    pending = context._pending_tasks
    number: int | None = vars(cast(object, context)).get(_RETRY_TIMERS, _NOT_INDEXED).get(key)
    if number is None or not _retries(pending.get(number), key):
        found: dict[int, int] = {}
        for its_number, timer in pending.items():
            if timer._retryable_parent is not None:
                found.update(dict.fromkeys(timer._retryable_parent._parents, its_number))
        setattr(context, _RETRY_TIMERS, found)
        number = found.get(key)
    return number


_RETRY_TIMERS = "_durabletask_aio_retry_timers"
_NOT_INDEXED: dict[int, int] = {}


def _retries(timer: Any, key: int) -> bool:
    return timer is not None and timer._retryable_parent is not None and key in timer._retryable_parent._parents


def pending_event(context: Any, name: str, listener: Listener) -> task.CancellableTask[Any] | None:
    """The wait for an external event that ``listener`` subscribed to."""
    for waiting in context._pending_events.get(name.casefold(), ()):
        if id(listener) in waiting._parents:
            return cast("task.CancellableTask[Any]", waiting)
    return None


def cancel_timer(context: Any, timer: task.TimerTask, sequence: int) -> None:
    """Cancel ``timer``, and let it fire into the void if the engine already has it.

    Upstream forgets a cancelled timer at once; when the engine fires it all the same, its worker logs a warning
    about an unexpected event for what is an everyday case.  A completed placeholder under the same number keeps it
    quiet, and changes no action.
    """
    pending = context._pending_tasks
    if pending.get(sequence) is not timer:  # a long timer, by now under the number of a later chunk
        sequence = next((number for number in reversed(pending) if pending[number] is timer), sequence)
    sent = sequence in pending and sequence not in context._pending_actions
    timer.cancel()
    if sent:
        pending[sequence] = task.TimerTask()


def stop_retrying(context: Any, retryable: task.Task[Any], sequence: int | None, listener: Listener) -> None:
    """See to it that a cancelled activity or sub-orchestration with a retry policy is not tried again."""
    pending = context._pending_tasks
    if pending.get(sequence) is not retryable:  # not running, and so waiting to be
        number = _retry_timer(context, id(listener))
        if number is not None:
            cancel_timer(context, pending[number], number)
    if isinstance(retryable, task.RetryableTask):
        setattr(retryable, "compute_next_delay", lambda: None)  # noqa: B010


def retry_on_workflow_time(context: Any, retryable: task.Task[Any]) -> None:
    """Have ``RetryPolicy.retry_timeout`` measured on the workflow's clock.

    Upstream compares with ``datetime.now()`` while it processes the failure, on replay too: a history that is
    replayed after the timeout takes another branch than it took live, returns no actions, and the instance hangs.
    The delay itself is upstream's formula, without its overflow: a policy that retries for ever, a minute at most
    between two attempts, would fail its instance with ``math range error`` after a thousand of them.
    """
    if not isinstance(retryable, task.RetryableTask):
        return
    pending: task.RetryableTask[Any] = retryable
    policy = pending._retry_policy
    timeout, coefficient = policy.retry_timeout, policy.backoff_coefficient
    if timeout is None and coefficient in (None, 1):
        return  # then upstream's computation looks at the clock in no way that matters, and cannot overflow
    try:
        expires_at = datetime.max if timeout is None else pending._start_time + timeout  # noqa: DTZ901 - naive, too
    except OverflowError:
        expires_at = datetime.max  # noqa: DTZ901 - the clock it is compared with is naive too

    def compute_next_delay() -> timedelta | None:
        attempt = pending._attempt_count
        now = context.current_utc_datetime
        if attempt >= policy.max_number_of_attempts or now >= expires_at:
            return None
        first = policy.first_retry_interval.total_seconds()
        try:
            seconds = math.pow(1.0 if coefficient is None else coefficient, attempt - 1) * first
        except OverflowError:  # after a thousand attempts; upstream lets this fail the instance
            seconds = math.inf if first else 0.0
        if policy.max_retry_interval is not None:
            seconds = min(seconds, policy.max_retry_interval.total_seconds())
        try:
            delay = timedelta(seconds=seconds)
            _ = now + delay
        except OverflowError:  # no time is left in the calendar
            return None
        return delay

    setattr(pending, "compute_next_delay", compute_next_delay)  # noqa: B010


def tag_actions(context: Any, tags_of: dict[int | None, dict[str, str]]) -> None:
    """Add ``tags_of[sequence]`` to the sub-orchestrations that ``context`` is about to send, now and at each retry.

    ``tags_of[None]`` go to the next execution, if this one continues as new.  Upstream's calls have no parameter for
    tags, and a retry builds the action anew; so they are added on the way out.
    """
    original = context.get_actions

    def get_actions() -> list[pb.OrchestratorAction]:
        actions = cast("list[pb.OrchestratorAction]", original())
        for action in actions:
            if action.HasField("createSubOrchestration"):
                action.createSubOrchestration.tags.update(tags_of.get(action.id, {}))
            elif action.HasField("completeOrchestration"):
                end = action.completeOrchestration
                if end.orchestrationStatus == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
                    end.tags.update(tags_of.get(None, {}))
        return actions

    context.get_actions = get_actions


def exit_critical_section(context: Any) -> None:
    """Release the entity locks of ``context``: what upstream's ``EntityLock`` does when it is left."""
    context._exit_critical_section()


class _AvailableLocks(list[Any]):
    """The locked entities without a call outstanding, beside the list of all that are locked.

    Upstream has one list for both.  The other list gets here what that one would get, but for the entities with a
    call outstanding, which it keeps.
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
        # At the end, since in this order the messages of release go out; and an entity that was called before the
        # lock, and not locked, too: it gets a message that it ignores.
        self._locked.append(entity)


def own_available_locks(lock: Any) -> None:
    """Give the set of unused locks a list of its own.

    Upstream's ``complete_acquire`` makes it the very list of all locks held, from which an outstanding call is taken
    out: leaving the lock then sends no unlock message for that entity, which stays locked for ever.
    """
    entities = lock._context._entity_context
    if entities.available_locks is entities.critical_section_locks:
        entities.available_locks = _AvailableLocks(entities.critical_section_locks)


def return_event(context: Any, name: str, payload: Any) -> None:
    """Put an event that was delivered but not consumed back to the front of the buffer.

    ``continue_as_new(save_events=True)`` carries over what is in the buffer, and nothing else.
    """
    buffered = context._received_events.setdefault(name.casefold(), [])
    index = buffered[0][0] - 1 if buffered else -1
    encoded = None if payload is None else context._data_converter.serialize(payload)
    buffered.insert(0, (index, encoded))


def is_mismatch(error: Any) -> bool:
    """Whether upstream raised ``error`` because history and code do not go together."""
    if isinstance(error, task.NonDeterminismError):
        return True
    # When the code has ended at this step, upstream fails to name what it did (a ``NotImplementedError``).
    action = scene_of(error)[2] if isinstance(error, NotImplementedError) else None
    return action is not None and action.HasField("completeOrchestration")


def _reopen(context: Any) -> None:
    """Take back the end of an execution whose history goes on.

    Upstream ignores a mismatch that it finds after the code has returned, and has by then lost the completion of which
    it is one: it answers with no action at all, and the instance hangs.
    """
    if context._completion_status == pb.ORCHESTRATION_STATUS_TERMINATED:
        return
    context._is_complete = False
    for sequence, action in list(context._pending_actions.items()):
        if action.HasField("completeOrchestration"):
            del context._pending_actions[sequence]


def has_ended_unsaid(context: Any) -> bool:
    """Whether upstream takes the execution for complete, and has nothing to tell the engine about it.

    So it is left when the data converter raises what upstream does not expect there, a ``RecursionError`` say, while it
    writes the result: no failure is recorded any more, and the instance would stay running for ever.
    """
    return (
        context._is_complete
        and context._completion_status == pb.ORCHESTRATION_STATUS_COMPLETED
        and not any(action.HasField("completeOrchestration") for action in context._pending_actions.values())
    )


def on_failure(context: Any, translate: Any) -> None:
    """Let ``translate(context, error)`` say what to record when upstream is about to fail this execution.

    Set on the one context object, for the failures that upstream raises outside of workflow code: a history that does
    not match, and a result that cannot be serialised.
    """
    original = context.set_failed

    def set_failed(error: Any) -> None:
        if is_mismatch(error) or has_ended_unsaid(context):
            _reopen(context)
        original(translate(context, error))

    context.set_failed = set_failed


def serializer(context: Any) -> Any:
    """What ``context`` serialises inputs and results with; raises ``TypeError`` or ``ValueError``."""
    return context._data_converter.serialize


def scene_of(error: BaseException) -> tuple[Any, pb.HistoryEvent | None, pb.OrchestratorAction | None]:
    """Upstream's context, the history event and the action it was comparing when it raised ``error``.

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
    return context, found, compared


def describe_action(action: pb.OrchestratorAction | None) -> str:
    """What the code did at a step, where no operation can tell."""
    if action is None:
        return "scheduled nothing by that number"
    if action.HasField("createTimer"):
        return "started a timer, with asyncio.sleep or a timeout"
    if action.HasField("sendEvent"):
        return f"sent event {action.sendEvent.name!r} to {action.sendEvent.instance.instanceId!r}"
    if action.HasField("completeOrchestration"):
        return "had ended by then"
    if action.sendEntityMessage.HasField("entityOperationSignaled"):
        return f"signalled entity operation {action.sendEntityMessage.entityOperationSignaled.operation!r}"
    return f"scheduled an action of type {action.WhichOneof('orchestratorActionType')!r}"


def describe_event(event: pb.HistoryEvent) -> str:
    """A scheduling event of the history, in the words of the context's methods."""
    kind = event.WhichOneof("eventType")
    if kind == "taskScheduled":
        return f"activity {event.taskScheduled.name!r}"
    if kind == "subOrchestrationInstanceCreated":
        return f"sub-orchestration {event.subOrchestrationInstanceCreated.name!r}"
    if kind == "timerCreated":
        return f"a timer for {event.timerCreated.fireAt.ToDatetime().isoformat()}Z"
    if kind == "entityOperationCalled":
        return f"call of entity operation {event.entityOperationCalled.operation!r}"
    if kind == "entityOperationSignaled":
        return f"signal of entity operation {event.entityOperationSignaled.operation!r}"
    if kind == "entityLockRequested":
        return f"entity lock of {', '.join(event.entityLockRequested.lockSet)}"
    if kind == "eventSent":
        return f"event {event.eventSent.name!r} sent to {event.eventSent.instanceId!r}"
    return f"an event of type {kind!r}"


def listeners_of(context: Any, sequence: int) -> list[Any]:
    """Whoever subscribed to the pending task with that sequence number."""
    pending = context._pending_tasks.get(sequence)
    return [] if pending is None else list(pending._parents.values())


def is_finished(context: Any) -> bool:
    """Whether upstream has recorded an end for this execution (a termination, say)."""
    return bool(context._is_complete)


def self_check() -> str | None:
    """``None``, or the sentence that says what of ``durabletask`` is not as this version of the core expects."""
    retryable = vars(task.RetryableTask)
    timer = vars(task.TimerTask())
    gone = [
        name
        for name, found in {
            "Task._parents": "_parents" in timer,
            "TimerTask._retryable_parent": "_retryable_parent" in timer,
            "RetryableTask.compute_next_delay": "compute_next_delay" in retryable,
            "CancellableTask.cancel": hasattr(task.CancellableTask, "cancel"),
            "OrchestrationContext._exit_critical_section": hasattr(task.OrchestrationContext, "_exit_critical_section"),
        }.items()
        if not found
    ]
    if not gone:
        return None
    return (
        f"durabletask has changed under durabletask-aio-core: {', '.join(gone)} is gone; install a version of "
        "durabletask that this durabletask-aio-core supports, or a newer durabletask-aio-core"
    )
