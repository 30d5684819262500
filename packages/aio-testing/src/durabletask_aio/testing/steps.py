"""What a workflow does, step by step, in the words of its author; from histories and from actions alike."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from durabletask_aio.testing._upstream import pb

_MAX_SHOWN = 80

_LONGEST_TIMER = timedelta(days=3)

_EVENT_KINDS = {
    "taskScheduled": "call_activity",
    "timerCreated": "create_timer",
    "subOrchestrationInstanceCreated": "call_sub_orchestrator",
    "eventSent": "send_event",
    "entityOperationCalled": "call_entity",
    "entityOperationSignaled": "signal_entity",
    "entityLockRequested": "lock_entities",
    "entityUnlockSent": "unlock_entities",
}

_ACTION_KINDS = {
    "scheduleTask": "call_activity",
    "createTimer": "create_timer",
    "createSubOrchestration": "call_sub_orchestrator",
    "sendEvent": "send_event",
}

_ENTITY_KINDS = {
    "entityOperationCalled": "call_entity",
    "entityOperationSignaled": "signal_entity",
    "entityLockRequested": "lock_entities",
    "entityUnlockSent": "unlock_entities",
}


@dataclass(frozen=True)
class Step:
    """One durable operation: recorded, or asked for by the code."""

    number: int
    kind: str
    """What the author called: ``call_activity``, ``create_timer``, ..."""

    name: str
    """What it was called on: the activity, the sub-orchestration, the event, the entity's operation."""

    target: str = ""
    """Which instance or entity, where there is one."""

    payload: str | None = None
    """The encoded input or data."""

    def __str__(self) -> str:
        parts = [repr(self.name) if self.kind != "create_timer" else f"until {self.name}"]
        if self.target:
            parts.append(self.target)
        if self.payload:
            parts.append(shortened(self.payload))
        return f"{self.kind}({', '.join(parts)})"

    @property
    def shape(self) -> tuple[str, str]:
        """What two steps have in common if they are the same call at another place."""
        return (self.kind, self.name if self.kind != "create_timer" else "")

    def same_payload(self, other: Step) -> bool:
        """Whether the payloads mean the same: JSON is compared as data."""
        return self.payload == other.payload or _decoded(self.payload) == _decoded(other.payload)


def shortened(text: str, length: int = _MAX_SHOWN) -> str:
    """The beginning of a payload."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def is_longest_timer(wait: timedelta) -> bool:
    """Whether a timer waited as long as workers with default settings let one wait, give or take how late it fired.

    A longer wait is recorded as several such timers, one after the other.
    """
    return abs(wait - _LONGEST_TIMER) < timedelta(hours=1)


def _decoded(payload: str | None) -> Any:
    try:
        return json.loads(payload) if payload else None
    except ValueError:
        return payload


def step_of_event(event: pb.HistoryEvent) -> Step | None:
    """The step that an event confirms, ``None`` for events of other kinds."""
    field = event.WhichOneof("eventType") or ""
    kind = _EVENT_KINDS.get(field)
    if kind is None or event.eventId < 0:
        return None  # an entity operation without a number is one on its way to the entity
    return _step(event.eventId, kind, getattr(event, field))


def step_of_action(action: pb.OrchestratorAction) -> Step | None:
    """The step that an action asks for, ``None`` for completions."""
    field = action.WhichOneof("orchestratorActionType") or ""
    if field == "sendEntityMessage":
        message = action.sendEntityMessage
        inner = next((name for name in _ENTITY_KINDS if message.HasField(cast(Any, name))), None)
        return None if inner is None else _step(action.id, _ENTITY_KINDS[inner], getattr(message, inner))
    kind = _ACTION_KINDS.get(field)
    return None if kind is None else _step(action.id, kind, getattr(action, field))


def _step(number: int, kind: str, body: Any) -> Step:
    if kind == "create_timer":
        return Step(number, kind, body.fireAt.ToDatetime().isoformat())
    if kind == "call_activity":
        return Step(number, kind, body.name, payload=_text(body, "input"))
    if kind == "call_sub_orchestrator":
        return Step(number, kind, body.name, target=body.instanceId, payload=_text(body, "input"))
    if kind == "send_event":
        # The recorded event and the action spell the same two facts differently.
        target = body.instance.instanceId if hasattr(body, "instance") else body.instanceId
        return Step(
            number, kind, body.name, target=target, payload=_text(body, "data" if hasattr(body, "data") else "input")
        )
    if kind == "lock_entities":
        return Step(number, kind, ", ".join(body.lockSet))
    if kind == "unlock_entities":
        return Step(number, kind, body.targetInstanceId.value)
    return Step(number, kind, body.operation, target=body.targetInstanceId.value, payload=_text(body, "input"))


def _text(body: Any, field: str) -> str | None:
    return getattr(body, field).value if body.HasField(field) else None
