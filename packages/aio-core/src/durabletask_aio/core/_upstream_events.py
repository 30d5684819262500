"""The adapter to upstream's buffer of external events; see `_upstream`."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from durabletask_aio.core._upstream import action_continues_as_new, pb
from durabletask_aio.core._upstream_dialect import END, buffered_event, encoded_event


def return_event(context: Any, name: str, payload: Any) -> None:
    """Put an event that was delivered but not consumed back to the front of the buffer.

    `continue_as_new(save_events=True)` carries over what is in the buffer, and nothing else.
    """
    buffered = context._received_events.setdefault(name.casefold(), [])
    buffered.insert(0, buffered_event(context, buffered, payload))


def take_events(context: Any, is_taken: Callable[[str], bool]) -> list[Any]:
    """Take events out of the buffer, and return their payloads as plain data.

    Args:
        context: upstream's context.
        is_taken: whether the events of a name, in lower case, are taken.
    """
    names = [name for name in context._received_events if is_taken(name)]
    encoded = [encoded_event(context, entry) for name in names for entry in context._received_events.pop(name)]
    return [None if payload is None else context._data_converter.deserialize(payload) for payload in encoded]


def carry_over(context: Any, is_carried: Callable[[str], bool]) -> None:
    """Carry events over to the next execution, which is to get no other event; `is_carried` decides by the name.

    `context` is about to continue as new.  Events of the same turn that come after that are in the buffer by the time
    the actions are asked for.
    """
    original = context.get_actions

    def get_actions() -> list[pb.OrchestratorAction]:
        actions = cast("list[pb.OrchestratorAction]", original())
        received = context._received_events
        names = [name for name in received if is_carried(name)]
        events = [(name, encoded_event(context, entry)) for name in names for entry in received[name]]
        for action in actions:
            if action_continues_as_new(action):
                carried = [_event_raised(name, payload) for name, payload in events]
                getattr(action, END).carryoverEvents.extend(carried)
        return actions

    context.get_actions = get_actions


def _event_raised(name: str, payload: str | None) -> pb.HistoryEvent:
    event = pb.HistoryEvent(eventId=-1)
    event.eventRaised.name = name
    if payload is not None:
        event.eventRaised.input.value = payload
    return event
