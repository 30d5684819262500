"""The adapter to what upstream keeps of sent events, in which the journal writes its records; see `journal`."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from durabletask_aio.core._upstream import activity_output_type, pb

if TYPE_CHECKING:
    from durabletask_aio.core.journal import Journal

NOBODY = "durabletask-aio.journal"
"""The instance that records are sent to: there is none of this id, so engines record the event and drop it."""

_ATTRIBUTE = "_durabletask_aio_journal"


def set_journal(context: Any, journal: Journal) -> None:
    """Have the run that starts with `context` use this journal."""
    setattr(context, _ATTRIBUTE, journal)


def journal_of(context: Any) -> Journal | None:
    """Return the journal of an execution; `None` if its host has none."""
    found: Journal | None = getattr(context, _ATTRIBUTE, None)
    return found


def next_number(context: Any) -> int:
    """Return the sequence number that the next action will get."""
    number: int = context._sequence_number + 1
    return number


def take_number(context: Any) -> int:
    """Return a new sequence number."""
    number: int = context.next_sequence_number()
    return number


def send(context: Any, number: int, receiver: str, name: str, data: str) -> None:
    """Send an event under a given number.

    Without upstream's `send_event`, which starts a trace span for each, and encodes the data.
    """
    action = pb.OrchestratorAction(id=number)
    action.sendEvent.instance.instanceId = receiver
    action.sendEvent.name = name
    action.sendEvent.data.value = data
    context._pending_actions[number] = action


def set_data(context: Any, number: int, data: str) -> None:
    """Replace the data of an event that has not been sent."""
    action = context._pending_actions.get(number)
    if action is not None:
        action.sendEvent.data.value = data


def resume(context: Any) -> None:
    """Resume the generator of an execution, if the task that it waits for is complete."""
    try:
        context.resume()
    except StopIteration as stopped:
        context.set_complete(stopped.value, pb.ORCHESTRATION_STATUS_COMPLETED)


def forget_events(context: Any, prefix: str) -> None:
    """Take the events whose names begin with `prefix` out of the buffer, which the next execution may get."""
    for name in [name for name in context._received_events if name.startswith(prefix)]:
        del context._received_events[name]


def result_type(context: Any, function: Any) -> Any:
    """Return the type as which the result of `function` is reconstructed; `None` for what its JSON has."""
    return activity_output_type(function, context._data_converter)


def encoded(context: Any, value: Any) -> str | None:
    """Return `value` as the worker's data converter writes it."""
    text: str | None = None if value is None else context._data_converter.serialize(value)
    return text


def decoded(context: Any, text: str | None, kind: Any) -> Any:
    """Return the value that the data converter reads from `text`."""
    return None if text is None else context._data_converter.deserialize(text, kind)


def failure_to_dict(details: pb.TaskFailureDetails) -> dict[str, Any]:
    """Return failure details as JSON has them."""
    found: dict[str, Any] = json_format.MessageToDict(details)
    return found


def failure_from_dict(data: dict[str, Any]) -> pb.TaskFailureDetails:
    """Return the failure details that `failure_to_dict` has written."""
    details = pb.TaskFailureDetails()
    json_format.ParseDict(data, details, ignore_unknown_fields=True)
    return details
