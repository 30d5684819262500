"""`Step`: one durable operation of a workflow, read from a history event or from an action."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from durabletask_aio.core import hosting
from durabletask_aio.testing._upstream import pb

_MAX_PAYLOAD_LENGTH = 80

_MAX_TIMER_INTERVAL = timedelta(days=3)

_ENTITY_KINDS = {
    "entityOperationCalled": "call_entity",
    "entityOperationSignaled": "signal_entity",
    "entityLockRequested": "lock_entities",
    "entityUnlockSent": "unlock_entities",
}

_EVENT_KINDS = {
    "taskScheduled": "call_activity",
    "timerCreated": "create_timer",
    "subOrchestrationInstanceCreated": "call_sub_orchestrator",
    "eventSent": "send_event",
    **_ENTITY_KINDS,
}

_ACTION_KINDS = {
    "scheduleTask": "call_activity",
    "createTimer": "create_timer",
    "createSubOrchestration": "call_sub_orchestrator",
    "sendEvent": "send_event",
}

_RECORDED_KINDS = {"step": "run", "patch": "patched", "wake-up": "wait_until_recorded", "answer": "answer"}


@dataclass(frozen=True)
class Step:
    """One durable operation, as recorded in a history or as requested by the code.

    Attributes:
        number: its sequence number in the execution.
        kind: the method of the context that requests it: `call_activity`, `create_timer`, ...; `answer` for the answer
            to a request, `wait_until_recorded` for the pause before a step until those before it are durable.
        name: the name of the activity, step, patch, sub-orchestration, event or entity operation; of a timer, the time
            it fires; empty if it has none.
        target: the instance or entity it is addressed to, empty if there is none.
        payload: the encoded input or data, `None` if there is none.
    """

    number: int
    kind: str
    name: str
    target: str = ""
    payload: str | None = None

    def __str__(self) -> str:
        parts = [repr(self.name) if self.kind != "create_timer" else f"until {self.name}"] if self.name else []
        if self.target:
            parts.append(self.target)
        if self.payload:
            parts.append(truncate(self.payload))
        return f"{self.kind}({', '.join(parts)})"

    @property
    def call_key(self) -> tuple[str, str]:
        """Kind and name: equal for two steps that are the same call at different positions."""
        return (self.kind, self.name if self.kind != "create_timer" else "")

    def same_payload(self, other: Step) -> bool:
        """Return whether the payloads are equal; JSON documents are compared as data."""
        if self.payload == other.payload:
            return True
        try:
            return bool(_decode(self.payload) == _decode(other.payload))
        except RecursionError:  # nested too deeply to be compared as data
            return False


def truncate(text: str, length: int = _MAX_PAYLOAD_LENGTH) -> str:
    """Return the text, cut to `length` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def is_maximum_timer(wait: timedelta) -> bool:
    """Return whether a timer waited the maximum interval of workers with default settings, within an hour.

    A longer wait is recorded as several timers of this length, one after the other.
    """
    return abs(wait - _MAX_TIMER_INTERVAL) < timedelta(hours=1)


def _decode(payload: str | None) -> Any:
    try:
        return json.loads(payload) if payload else None
    except ValueError:
        return payload


def step_of_event(event: pb.HistoryEvent) -> Step | None:
    """Return the step that an event confirms, `None` for events of other kinds."""
    field = event.WhichOneof("eventType") or ""
    kind = _EVENT_KINDS.get(field)
    if kind is None or event.eventId < 0:
        return None  # An entity operation without a number is one that is delivered to the entity.
    return _new_step(event.eventId, kind, getattr(event, field))


def step_of_action(action: pb.OrchestratorAction) -> Step | None:
    """Return the step that an action requests, `None` for the completion of the orchestration."""
    field = action.WhichOneof("orchestratorActionType") or ""
    if field == "sendEntityMessage":
        message = action.sendEntityMessage
        inner = next((name for name in _ENTITY_KINDS if message.HasField(cast(Any, name))), None)
        return None if inner is None else _new_step(action.id, _ENTITY_KINDS[inner], getattr(message, inner))
    kind = _ACTION_KINDS.get(field)
    return None if kind is None else _new_step(action.id, kind, getattr(action, field))


def _new_step(number: int, kind: str, body: Any) -> Step:
    if kind == "create_timer":
        return Step(number, kind, body.fireAt.ToDatetime().isoformat())
    if kind == "call_activity":
        return Step(number, kind, body.name, payload=_payload(body, "input"))
    if kind == "call_sub_orchestrator":
        return Step(number, kind, body.name, target=body.instanceId, payload=_payload(body, "input"))
    if kind == "send_event":
        # The recorded event and the action spell the same two facts differently.
        target = body.instance.instanceId if hasattr(body, "instance") else body.instanceId
        payload = _payload(body, "data" if hasattr(body, "data") else "input")
        recorded = hosting.EventReader().sent(target, body.name, payload or "")
        if recorded is None:
            return Step(number, kind, body.name, target=target, payload=payload)
        if recorded.kind == "answer":
            return Step(number, "answer", "", target=target, payload=payload)
        return Step(number, _RECORDED_KINDS[recorded.kind], recorded.name, payload=recorded.input)
    if kind == "lock_entities":
        return Step(number, kind, ", ".join(body.lockSet))
    if kind == "unlock_entities":
        return Step(number, kind, body.targetInstanceId.value)
    return Step(number, kind, body.operation, target=body.targetInstanceId.value, payload=_payload(body, "input"))


def _payload(body: Any, field: str) -> str | None:
    return getattr(body, field).value if body.HasField(field) else None
