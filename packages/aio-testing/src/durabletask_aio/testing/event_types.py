"""The types of history events: upstream's class names, the protobuf fields, and how to infer a type that is missing.

Upstream's `to_dict` writes the fields of an event but not its type; upstream's history export and this package add it
as `event_type`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import durabletask.history as typed

from durabletask_aio.testing._upstream import pb

_LONGEST_NAME = 100
"""Characters of the names for which one that is like it is looked for."""


@lru_cache
def _field_names() -> dict[str, str]:
    """Return the protobuf field for each class of upstream's: `TaskScheduledEvent` -> `taskScheduled`."""
    names = (field.name for field in pb.HistoryEvent.DESCRIPTOR.oneofs_by_name["eventType"].fields)
    return {f"{name[0].upper()}{name[1:]}Event".replace("EventEvent", "Event"): name for name in names}


def field_of_type(event_type: object) -> str:
    """Return the protobuf field of an event type; raises `ValueError` with a suggestion for an unknown one."""
    if not isinstance(event_type, str) or len(event_type) > _LONGEST_NAME:
        raise ValueError("its event_type is not the name of a type of events")
    try:
        return _field_names()[event_type]
    except KeyError:
        close = difflib.get_close_matches(event_type, _field_names(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(_field_names()))}"
        raise ValueError(f"there is no event type {event_type!r}; {hint}") from None


class EventTypeInference:
    """Infers the types of events without `event_type` from their fields and from the events before them.

    Most types have a set of fields that no other has.  For the rest: the start and the completion of a turn alternate,
    and so do suspension and resumption; an outcome is that of a sub-orchestration if one was created under its number.
    """

    def __init__(self) -> None:
        self._in_turn = False
        self._suspended = False
        self._sub_orchestrations: set[int] = set()

    def type_of(self, event: Mapping[str, Any]) -> str:
        """Return the type of the next event; raises `ValueError` if no type has exactly its fields."""
        fields = set(event) - {"event_id", "timestamp"}
        for name in _field_names():
            if _payload_fields(name) == fields and self._is_possible(name, event):
                return name
        raise ValueError(f"no event type has exactly the fields {', '.join(sorted(fields)) or '(none)'}")

    def _is_possible(self, event_type: str, event: Mapping[str, Any]) -> bool:
        if event_type == "OrchestratorStartedEvent":
            return not self._in_turn
        if event_type == "ExecutionSuspendedEvent":
            return not self._suspended
        if event_type in ("TaskCompletedEvent", "TaskFailedEvent"):
            return event["task_scheduled_id"] not in self._sub_orchestrations
        return event_type != "ContinueAsNewEvent"  # Upstream's engines do not write it.

    def add(self, event_type: str, event: Mapping[str, Any]) -> None:
        """Take note of an event whose type is known."""
        if event_type in ("OrchestratorStartedEvent", "OrchestratorCompletedEvent"):
            self._in_turn = event_type == "OrchestratorStartedEvent"
        elif event_type in ("ExecutionSuspendedEvent", "ExecutionResumedEvent"):
            self._suspended = event_type == "ExecutionSuspendedEvent"
        elif event_type == "SubOrchestrationInstanceCreatedEvent":
            self._sub_orchestrations.add(event["event_id"])


@lru_cache
def _payload_fields(event_type: str) -> set[str] | None:
    """Return the fields of upstream's class without those that every event has."""
    event_class = getattr(typed, event_type, None)
    if event_class is None:
        return None
    return set(event_class.__dataclass_fields__) - {"event_id", "timestamp"}
