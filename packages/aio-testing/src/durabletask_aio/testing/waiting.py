"""`WorkflowStuckError`, and the description of the operations that an instance waits for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from durabletask_aio.testing._upstream import pb


class WorkflowStuckError(RuntimeError):
    """A test waits for something that cannot happen: nothing is running and nothing is scheduled.

    Also raised for an instance that takes more turns than `turn_limit` allows, and by
    [`WorkflowEnvironment.advance`][durabletask.aio.testing.WorkflowEnvironment.advance] for activities that run longer
    than `stuck_timeout` allows.  The message names the instance and the operations it waits for.
    """


def describe_outstanding(history: Iterable[pb.HistoryEvent], awaited_events: Sequence[str]) -> list[str]:
    """Describe the operations that have no outcome yet, in the order of scheduling, then the awaited events."""
    outstanding: dict[int, str] = {}
    entity_calls: dict[str, int] = {}
    for event in history:
        kind = event.WhichOneof("eventType")
        body = getattr(event, kind or "genericEvent")
        if kind == "taskScheduled":
            outstanding[event.eventId] = f"activity {body.name!r} (#{event.eventId})"
        elif kind == "timerCreated":
            outstanding[event.eventId] = f"the timer at {body.fireAt.ToDatetime():%Y-%m-%d %H:%M:%S} (#{event.eventId})"
        elif kind == "subOrchestrationInstanceCreated":
            outstanding[event.eventId] = f"sub-orchestration {body.name!r}, instance {body.instanceId!r}"
        elif kind == "entityOperationCalled":
            entity_calls[body.requestId] = event.eventId
            outstanding[event.eventId] = f"operation {body.operation!r} of entity {body.targetInstanceId.value}"
        elif kind == "entityLockRequested":
            entity_calls[body.criticalSectionId] = event.eventId
            outstanding[event.eventId] = f"the lock of {', '.join(body.lockSet)}"
        elif kind == "timerFired":
            outstanding.pop(body.timerId, None)
        elif kind in ("entityOperationCompleted", "entityOperationFailed", "entityLockGranted"):
            reference = body.criticalSectionId if kind == "entityLockGranted" else body.requestId
            outstanding.pop(entity_calls.get(reference, -1), None)
        elif hasattr(body, "taskScheduledId"):
            outstanding.pop(body.taskScheduledId, None)
    return [*outstanding.values(), *(f"the event {name!r}" for name in awaited_events)]
