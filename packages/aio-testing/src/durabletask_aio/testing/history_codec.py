"""Conversion of history events to plain data and back.

The plain form is upstream's: `event.to_dict()` with the `event_type` that its history export adds, so that an exported
file and one of this package hold the same events.  Upstream has no conversion back to protobuf messages.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, cast

import durabletask.history as typed
from durabletask.client import OrchestrationStatus
from google.protobuf import json_format

from durabletask_aio.testing._upstream import helpers, pb, typed_event
from durabletask_aio.testing.event_types import EventTypeInference, field_of_type

PAYLOAD_FIELDS = frozenset({"input", "result", "output", "data"})
"""The fields that hold encoded values of user code."""


class HistoryFormatError(ValueError):
    """A history cannot be read.

    The message names the file, if there is one, the position of the event, and the reason.
    """


def to_plain(event: pb.HistoryEvent) -> dict[str, Any]:
    """Return `{"event_type": ..., "event_id": ..., "timestamp": ..., ...}`, without empty fields."""
    converted = typed_event(event)
    plain = {"event_type": type(converted).__name__, **typed.to_dict(converted)}
    return cast("dict[str, Any]", _without_nones(plain))


def _without_nones(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nones(item) for key, item in cast("dict[str, Any]", value).items() if item is not None}
    return value


def from_plain(events: Iterable[Mapping[str, Any]]) -> list[pb.HistoryEvent]:
    """Return the messages of events in the plain form, with or without `event_type`.

    Raises:
        HistoryFormatError: for an event that cannot be read, with its position.
    """
    inference = EventTypeInference()
    messages: list[pb.HistoryEvent] = []
    for position, plain in enumerate(events):
        try:
            _check_is_event(plain)
            event_type = plain["event_type"] if "event_type" in plain else inference.type_of(plain)
            messages.append(_new_message(field_of_type(event_type), plain))
            inference.add(event_type, plain)
        except (*_ERRORS, RecursionError) as error:  # noqa: PERF203 - the first one ends the loop
            raise HistoryFormatError(f"event {position} of the history cannot be read: {_reason(error)}") from error
    return messages


_ERRORS = (KeyError, ValueError, TypeError, AttributeError, OverflowError, json_format.Error)
"""What the conversion of a value raises that does not fit its field."""


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def shown(value: object) -> str:
    """Return a value for a message, of moderate length whatever it is."""
    return _REPR.repr(value)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


def _check_is_event(plain: object) -> None:
    if not isinstance(plain, Mapping):
        raise TypeError(f"an event is an object with event_type, event_id and timestamp, not {shown(plain)}")


def from_typed(events: Iterable[typed.HistoryEvent]) -> list[pb.HistoryEvent]:
    """Return the messages of upstream's typed events, as `client.get_orchestration_history` returns them."""
    return from_plain({"event_type": type(event).__name__, **typed.to_dict(event)} for event in events)


def _new_message(field: str, plain: Mapping[str, Any]) -> pb.HistoryEvent:
    event = pb.HistoryEvent()
    with _naming("event_id", plain["event_id"]):
        event.eventId = _to_whole_number(plain["event_id"])
    with _naming("timestamp", plain["timestamp"]):
        event.timestamp.FromDatetime(_to_datetime(plain["timestamp"]))
    body = getattr(event, field)
    body.SetInParent()
    _fill(body, plain)
    return event


@contextmanager
def _naming(name: str, value: object) -> Iterator[None]:
    """Let the error for a value that does not fit its field say which field and which value."""
    try:
        yield
    except _ERRORS as error:
        raise ValueError(f"its {name} cannot be {shown(value)} ({_reason(error)})") from error


def _fill(message: Any, plain: object) -> None:
    if not isinstance(plain, Mapping):
        raise TypeError(f"expected an object, not {type(plain).__name__}")
    fields = cast("Mapping[str, Any]", plain)
    for descriptor in message.DESCRIPTOR.fields:
        name = _snake_case(descriptor.name)
        value = fields.get(name)
        if value is not None:
            with _naming(name, value):
                _set(message, descriptor, value)


def _set(message: Any, descriptor: Any, value: Any) -> None:
    name: str = descriptor.name
    if descriptor.message_type is None:
        if descriptor.enum_type is not None and descriptor.enum_type.full_name == "OrchestrationStatus":
            value = OrchestrationStatus(value).value
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
        target.FromDatetime(_to_datetime(value))
    elif kind == "TaskFailureDetails":
        _fill_failure(target, value)
    elif kind == "OrchestrationState":
        json_format.ParseDict(value, target)
    else:
        target.SetInParent()
        _fill(target, value)


def _fill_failure(details: pb.TaskFailureDetails, plain: Mapping[str, Any], depth: int = 1) -> None:
    if depth > _MAX_CAUSES:
        raise ValueError(f"a failure has at most {_MAX_CAUSES} causes, one in the other")
    details.errorMessage = plain.get("message") or ""
    details.errorType = plain.get("error_type") or ""
    if plain.get("stack_trace") is not None:
        details.stackTrace.value = plain["stack_trace"]
    if plain.get("inner_failure") is not None:
        _fill_failure(details.innerFailure, plain["inner_failure"], depth + 1)
    properties: dict[str, Any] = plain.get("properties") or {}
    for key, value in properties.items():
        details.properties[key].CopyFrom(helpers.protobuf_value_from_python(value))


_MAX_CAUSES = 90
"""protobuf reads messages that are nested up to a hundred levels deep, so no engine has recorded more."""


def _to_whole_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("expected a whole number")
    return value


def _to_datetime(value: Any) -> datetime:
    if not isinstance(value, datetime | str):
        raise TypeError("expected a time in ISO format")
    when = value if isinstance(value, datetime) else datetime.fromisoformat(value.replace("Z", "+00:00"))
    return when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z]+)", lambda match: "_" + match[1].lower(), name)
