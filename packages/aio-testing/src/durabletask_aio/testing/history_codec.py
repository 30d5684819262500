"""Events of a history as plain data, and back.

The plain form is upstream's own: ``event.to_dict()`` with the ``event_type`` that its history export writes before
it, so an exported file and one of ours hold the same events.  Upstream has no way back; this module is that way.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, cast

import durabletask.history as typed
from google.protobuf import json_format

from durabletask_aio.testing._upstream import helpers, pb, typed_event

PAYLOAD_FIELDS = frozenset({"input", "result", "output", "data"})
"""Fields that hold what user code passed or returned, encoded by its data converter."""

_FAILURE_FIELDS = {
    "message": "errorMessage",
    "error_type": "errorType",
    "stack_trace": "stackTrace",
    "inner_failure": "innerFailure",
    "properties": "properties",
}


class HistoryFormatError(ValueError):
    """A history cannot be read; the message says which event and why."""


def to_plain(event: pb.HistoryEvent) -> dict[str, Any]:
    """``{"event_type": ..., "event_id": ..., "timestamp": ..., ...}``, without the fields that are empty."""
    converted = typed_event(event)
    plain = {"event_type": type(converted).__name__, **typed.to_dict(converted)}
    return cast("dict[str, Any]", _without_nones(plain))


def _without_nones(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nones(item) for key, item in cast("dict[str, Any]", value).items() if item is not None}
    return value


def from_plain(events: Iterable[Mapping[str, Any]]) -> list[pb.HistoryEvent]:
    """The messages for events in the plain form, with or without ``event_type``.

    Raises :class:`HistoryFormatError` with the position of an event that makes no sense.
    """
    guess = _Guess()
    messages: list[pb.HistoryEvent] = []
    for position, plain in enumerate(events):
        try:
            _check_is_event(plain)
            kind = str(plain["event_type"]) if "event_type" in plain else guess.kind_of(plain)
            messages.append(_message(_field_of(kind), plain))
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else error
            raise HistoryFormatError(f"event {position} of the history cannot be read: {what}") from error
        guess.saw(kind, plain)
    return messages


def _check_is_event(plain: object) -> None:
    if not isinstance(plain, Mapping):
        raise TypeError(f"an event is an object with event_type, event_id and timestamp, not {plain!r}")


def from_typed(events: Iterable[typed.HistoryEvent]) -> list[pb.HistoryEvent]:
    """The messages for upstream's typed events, as ``client.get_orchestration_history`` returns them."""
    return from_plain({"event_type": type(event).__name__, **typed.to_dict(event)} for event in events)


@lru_cache
def _fields() -> dict[str, str]:
    """The name of the protobuf field by the name of upstream's class: ``TaskScheduledEvent`` -> ``taskScheduled``."""
    names = (field.name for field in pb.HistoryEvent.DESCRIPTOR.oneofs_by_name["eventType"].fields)
    return {f"{name[0].upper()}{name[1:]}Event".replace("EventEvent", "Event"): name for name in names}


def _field_of(kind: str) -> str:
    try:
        return _fields()[kind]
    except KeyError:
        close = difflib.get_close_matches(kind, _fields(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(_fields()))}"
        raise ValueError(f"there is no event type {kind!r}; {hint}") from None


def _message(field: str, plain: Mapping[str, Any]) -> pb.HistoryEvent:
    event = pb.HistoryEvent(eventId=int(plain["event_id"]))
    event.timestamp.FromDatetime(_instant(plain["timestamp"]))
    body = getattr(event, field)
    body.SetInParent()
    _fill(body, plain)
    return event


def _fill(message: Any, plain: Mapping[str, Any]) -> None:
    for descriptor in message.DESCRIPTOR.fields:
        value = plain.get(_snake(descriptor.name))
        if value is not None:
            _set(message, descriptor, value)


def _set(message: Any, descriptor: Any, value: Any) -> None:
    name: str = descriptor.name
    if descriptor.message_type is None:
        if isinstance(value, list):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
        return
    kind: str = descriptor.message_type.full_name
    target = getattr(message, name)
    if descriptor.message_type.GetOptions().map_entry:
        target.update(value)
    elif kind == "google.protobuf.StringValue":
        target.value = value
    elif kind == "google.protobuf.Timestamp":
        target.FromDatetime(_instant(value))
    elif kind == "TaskFailureDetails":
        _fill_failure(target, value)
    elif kind == "OrchestrationState":
        json_format.ParseDict(value, target)
    else:
        target.SetInParent()
        _fill(target, value)


def _fill_failure(details: pb.TaskFailureDetails, plain: Mapping[str, Any]) -> None:
    details.errorMessage = plain.get("message") or ""
    details.errorType = plain.get("error_type") or ""
    if plain.get("stack_trace") is not None:
        details.stackTrace.value = plain["stack_trace"]
    if plain.get("inner_failure") is not None:
        _fill_failure(details.innerFailure, plain["inner_failure"])
    properties: dict[str, Any] = plain.get("properties") or {}
    for key, value in properties.items():
        details.properties[key].CopyFrom(helpers.protobuf_value_from_python(value))


def _instant(value: Any) -> datetime:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z]+)", lambda match: "_" + match[1].lower(), name)


class _Guess:
    """Which type an event of the bare ``to_dict`` form is, which does not say so.

    Most are told apart by their fields.  The rest are told by what came before: turns start and complete in turn,
    suspension and resumption alternate, and a completion is of the kind of what was scheduled under its number.
    """

    def __init__(self) -> None:
        self._in_turn = False
        self._suspended = False
        self._children: set[int] = set()

    def kind_of(self, plain: Mapping[str, Any]) -> str:
        fields = set(plain) - {"event_id", "timestamp"}
        candidates = [name for name in _fields() if _names_of(name) == fields]
        for name in candidates:
            if self._fits(name, plain):
                return name
        raise ValueError(f"no event type has exactly the fields {', '.join(sorted(fields)) or '(none)'}")

    def _fits(self, name: str, plain: Mapping[str, Any]) -> bool:
        if name == "OrchestratorStartedEvent":
            return not self._in_turn
        if name == "ExecutionSuspendedEvent":
            return not self._suspended
        if name in ("TaskCompletedEvent", "TaskFailedEvent"):
            return plain["task_scheduled_id"] not in self._children
        return name != "ContinueAsNewEvent"  # upstream's engines do not write it

    def saw(self, kind: str, plain: Mapping[str, Any]) -> None:
        if kind in ("OrchestratorStartedEvent", "OrchestratorCompletedEvent"):
            self._in_turn = kind == "OrchestratorStartedEvent"
        elif kind in ("ExecutionSuspendedEvent", "ExecutionResumedEvent"):
            self._suspended = kind == "ExecutionSuspendedEvent"
        elif kind == "SubOrchestrationInstanceCreatedEvent":
            self._children.add(plain["event_id"])


@lru_cache
def _names_of(kind: str) -> set[str] | None:
    event_class = getattr(typed, kind, None)
    if event_class is None:
        return None
    return set(event_class.__dataclass_fields__) - {"event_id", "timestamp"}
