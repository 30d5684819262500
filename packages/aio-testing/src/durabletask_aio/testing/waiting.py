"""What an instance waits for, in words: for the error that says that nothing will ever come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from durabletask_aio.testing._upstream import pb


class WorkflowStuckError(RuntimeError):
    """Nothing is running and nothing is scheduled, so that what a test waits for cannot happen by itself."""


def outstanding(history: Iterable[pb.HistoryEvent], awaited_events: Sequence[str]) -> list[str]:
    """What is scheduled and has no outcome yet, in the order of scheduling; then the events that are awaited."""
    open_steps: dict[int, str] = {}
    entity_calls: dict[str, int] = {}
    for event in history:
        kind = event.WhichOneof("eventType")
        body = getattr(event, kind or "genericEvent")
        if kind == "taskScheduled":
            open_steps[event.eventId] = f"activity {body.name!r} (#{event.eventId})"
        elif kind == "timerCreated":
            open_steps[event.eventId] = f"the timer at {body.fireAt.ToDatetime():%Y-%m-%d %H:%M:%S} (#{event.eventId})"
        elif kind == "subOrchestrationInstanceCreated":
            open_steps[event.eventId] = f"sub-orchestration {body.name!r}, instance {body.instanceId!r}"
        elif kind == "entityOperationCalled":
            entity_calls[body.requestId] = event.eventId
            open_steps[event.eventId] = f"operation {body.operation!r} of entity {body.targetInstanceId.value}"
        elif kind == "entityLockRequested":
            entity_calls[body.criticalSectionId] = event.eventId
            open_steps[event.eventId] = f"the lock of {', '.join(body.lockSet)}"
        elif kind == "timerFired":
            open_steps.pop(body.timerId, None)
        elif kind in ("entityOperationCompleted", "entityOperationFailed", "entityLockGranted"):
            reference = body.criticalSectionId if kind == "entityLockGranted" else body.requestId
            open_steps.pop(entity_calls.get(reference, -1), None)
        elif hasattr(body, "taskScheduledId"):
            open_steps.pop(body.taskScheduledId, None)
    return [*open_steps.values(), *(f"the event {name!r}" for name in awaited_events)]
