"""A history that does not fit the code: the error that says at which step, and what each of them has there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from durabletask_aio.core import _upstream
from durabletask_aio.core._upstream import ACTION_KIND, CHILD_CREATED, END, pb, task
from durabletask_aio.core.call_sites import user_lines, waiting_line
from durabletask_aio.core.errors import AsyncWorkflowError, HistoryDivergenceError, message_of
from durabletask_aio.core.operations import ScheduledOperation

if TYPE_CHECKING:
    from durabletask_aio.core.execution import Execution
    from durabletask_aio.core.loop import WorkflowLoop


def divergence(execution: Execution, loop: WorkflowLoop, error: Exception) -> Exception:
    """Return the error to record for a mismatch that upstream has found."""
    context, event, action = _upstream.mismatch_context(error)
    if event is None or context is None:
        return error
    step = event.eventId
    msg = (
        f"history and code diverge at step {step}: the history has {describe_event(event)}, and "
        f"{_describe_code(context, loop, step, action)}. Either the workflow was "
        f"changed while this instance was running, or it decides by something that is not the same on replay"
    )
    converted = execution.error(HistoryDivergenceError, msg, step=step)
    if isinstance(error, task.NonDeterminismError):
        converted.__cause__ = error
    return converted


def raised_on_replay(error: Exception, instance_id: str, workflow_name: str) -> HistoryDivergenceError:
    """Return the error to report if code raises `error` on replay, where the code that wrote the history continued.

    It did not raise, or the instance would have failed in that turn, and would have no further ones.

    Args:
        error: what the code raises.
        instance_id: the instance.
        workflow_name: its workflow.
    """
    lines = user_lines(error)
    place = f" at {lines[-1]}" if lines else ""
    kind = type(error).__name__
    message = error.message if isinstance(error, AsyncWorkflowError) else message_of(error)
    converted = HistoryDivergenceError(
        f"history and code diverge: on replay, the code raises {kind}{place}, where the history continues: {message}. "
        f"Either the workflow was changed while this instance was running, or it decides by something that is not the "
        f"same on replay",
        instance_id=instance_id,
        workflow_name=workflow_name,
    )
    converted.__cause__ = error
    return converted


def _describe_code(context: object, loop: WorkflowLoop, step: int, action: pb.OrchestratorAction | None) -> str:
    listeners = _upstream.listeners_of_step(context, step)
    described = [listener.description for listener in listeners if isinstance(listener, ScheduledOperation)]
    if described:
        return f"the code scheduled {described[0]}"
    waits = "; ".join(f"{task.get_name()} waits at {waiting_line(task)}" for task in loop.tasks)
    if action is None and not waits:
        return "the code had ended by then"
    code = f"the code {describe_action(action)}"
    return f"{code} ({waits})" if waits else code


def describe_action(action: pb.OrchestratorAction | None) -> str:
    """Say what the code did at a step, where no operation can tell."""
    if action is None:
        return "scheduled nothing by that number"
    kind = action.WhichOneof(ACTION_KIND)
    if kind == "createTimer":
        return "started a timer, with asyncio.sleep or a timeout"
    if kind == "sendEvent":
        return f"sent event {action.sendEvent.name!r} to {action.sendEvent.instance.instanceId!r}"
    if kind == END:
        return "had ended by then"
    if kind == "sendEntityMessage" and action.sendEntityMessage.HasField("entityOperationSignaled"):
        return f"signalled entity operation {action.sendEntityMessage.entityOperationSignaled.operation!r}"
    return f"scheduled an action of type {kind!r}"


def describe_event(event: pb.HistoryEvent) -> str:
    """Describe a scheduling event of the history in the words of the context's methods."""
    kind = event.WhichOneof("eventType")
    if kind == "taskScheduled":
        return f"activity {event.taskScheduled.name!r}"
    if kind == CHILD_CREATED:
        return f"sub-orchestration {getattr(event, CHILD_CREATED).name!r}"
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
