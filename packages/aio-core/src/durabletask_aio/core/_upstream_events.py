"""The adapter to upstream's buffer of external events; see `_upstream`."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import Any, cast

from durabletask_aio.core._upstream import pb


def return_event(context: Any, name: str, payload: Any) -> None:
    """Put an event that was delivered but not consumed back to the front of the buffer.

    `continue_as_new(save_events=True)` carries over what is in the buffer, and nothing else.
    """
    buffered = context._received_events.setdefault(name.casefold(), [])
    index = buffered[0][0] - 1 if buffered else -1
    encoded = None if payload is None else context._data_converter.serialize(payload)
    buffered.insert(0, (index, encoded))


def carry_over(context: Any, name: str) -> None:
    """Carry the events of that name over to the next execution, which is to get no other event.

    `context` is about to continue as new.  Events of the same turn that come after that are in the buffer by the time
    the actions are asked for.
    """
    original = context.get_actions

    def get_actions() -> list[pb.OrchestratorAction]:
        actions = cast("list[pb.OrchestratorAction]", original())
        payloads = [payload for _, payload in context._received_events.get(name, ())]
        for action in actions:
            if action.completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
                carried = [_event_raised(name, payload) for payload in payloads]
                action.completeOrchestration.carryoverEvents.extend(carried)
        return actions

    context.get_actions = get_actions


def _event_raised(name: str, payload: str | None) -> pb.HistoryEvent:
    event = pb.HistoryEvent(eventId=-1)
    event.eventRaised.name = name
    if payload is not None:
        event.eventRaised.input.value = payload
    return event
