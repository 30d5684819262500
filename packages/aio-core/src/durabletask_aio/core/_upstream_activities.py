"""The adapter to upstream's `call_activity`: the same task and action, of fewer objects; see `_upstream`."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import functools
import zlib
from typing import Any

from durabletask_aio.core._upstream import RetryPolicy, activity_output_type, new_schedule_task_action, pb, task

_new: Any = object.__new__


def _activity_task(expected_type: type | None) -> task.CompletableTask[Any]:
    """Make upstream's task without its three constructors; see `benchmarks/hot_path.py`, `call_activity`."""
    made: task.CompletableTask[Any] = _new(task.CompletableTask)
    made._is_complete = False
    made._exception = None
    made._parents = {}
    made._retryable_parent = None
    made._expected_type = expected_type
    return made


def _activity_action(
    number: int, name: str, encoded: str, tags: dict[str, str] | None, parent_trace: pb.TraceContext | None
) -> pb.OrchestratorAction:
    """Make upstream's action in place: a message given to the constructor of another one is copied."""
    action = pb.OrchestratorAction(id=number)
    scheduled = action.scheduleTask
    scheduled.name = name
    scheduled.input.value = encoded
    if tags:
        scheduled.tags.update(tags)
    if parent_trace is not None:
        scheduled.parentTraceContext.CopyFrom(parent_trace)
    return action


_CALL_ACTIVITY = {
    "call_activity": 3798312299,
    "next_sequence_number": 3215559156,
    "call_activity_function_helper": 3739713078,
}
"""Fingerprints of the methods of upstream's context that `call_activity` below replaces or calls."""

_known_context: Any = None
"""The class of context that was last found to have these methods; cheaper to compare than the cache of `_is_known`."""


def _fingerprint(method: Any) -> int | None:
    """Return a number that changes with the names that the code of `method` uses."""
    code = getattr(method, "__code__", None)
    return None if code is None else zlib.crc32(repr((code.co_names, code.co_varnames)).encode())


@functools.lru_cache(maxsize=8)  # for the classes that are not known, or each call would examine them again
def _is_known(kind: Any) -> bool:
    global _known_context
    if any(_fingerprint(getattr(kind, name, None)) != known for name, known in _CALL_ACTIVITY.items()):
        return False
    theirs: task.CompletableTask[Any] = task.CompletableTask(None)
    if vars(_activity_task(None)) != vars(theirs):
        return False
    trace = pb.TraceContext(traceParent="00-1-2-00", spanID="2")
    call = (1, "name", "1", {"key": "value"})
    if _activity_action(*call, trace) != new_schedule_task_action(*call, parent_trace_context=trace):
        return False
    _known_context = kind
    return True


def call_activity(
    context: Any,
    activity: Any,
    input: Any,  # noqa: A002 - upstream's name for it
    retry_policy: RetryPolicy | None,
    tags: dict[str, str] | None,
    return_type: type | None,
) -> task.Task[Any]:
    """Do what `context.call_activity(...)` does, with fewer objects; see `benchmarks/hot_path.py`, `call_activity`.

    Upstream makes two tasks for an activity, of which it drops one (the default in
    `_pending_tasks.get(id, CompletableTask())`), both through the `[...]` of `typing`.  Given a task and an encoded
    input, as for a retry, the same method makes none.  During replay, when no span begins, all that is left of the
    method is the action.  A context whose methods have other fingerprints, because it is another host's or version's,
    is called in the ordinary way.
    """
    kind: Any = type(context)  # pyright: ignore[reportUnknownVariableType]
    if kind is not _known_context and not _is_known(kind):
        scheduled: task.Task[Any] = context.call_activity(
            activity, input=input, retry_policy=retry_policy, tags=tags, return_type=return_type
        )
        return scheduled
    number = context._sequence_number = context._sequence_number + 1
    if return_type is None and not isinstance(activity, str):
        return_type = activity_output_type(activity, context._data_converter)
    encoded = None if retry_policy is not None else context._data_converter.serialize(input)
    if encoded is None:  # A retry policy needs a task of another class, and no input would be sent as the text "None".
        context.call_activity_function_helper(
            number, activity, input=input, retry_policy=retry_policy, tags=tags, return_type=return_type
        )
        made: task.Task[Any] = context._pending_tasks[number]
    elif context._is_replaying:
        name = activity if isinstance(activity, str) else task.get_name(activity)
        parent_trace = context._orchestration_trace_context or context._parent_trace_context
        context._pending_actions[number] = _activity_action(number, name, str(encoded), tags, parent_trace)
        made = context._pending_tasks[number] = _activity_task(return_type)
    else:
        made = _activity_task(return_type)
        context.call_activity_function_helper(number, activity, input=encoded, tags=tags, fn_task=made)
    return made
