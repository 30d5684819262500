"""Turns as bytes, without serialising the history again for each of them.

On the wire a repeated field is the concatenation of its elements, so the bytes of a longer history are those of a
shorter one and more.  Each instance keeps the bytes of its committed events, and a turn costs its new events and one
copy; an instance of a thousand steps would otherwise build, wrap and serialise its history a thousand times.
"""

from __future__ import annotations

from collections.abc import Sequence

from durabletask_aio.testing._upstream import OrchestrationInstance, pb

_WORK_ITEM = pb.WorkItem.DESCRIPTOR.fields_by_name
_TURN_TAG = bytes([_WORK_ITEM["orchestratorRequest"].number << 3 | 2])


class HistoryBytes:
    """The bytes of one instance's history as `OrchestratorRequest.pastEvents`.

    Whether they still are a beginning of the history is seen from the list and from the last event they cover: a
    restart, a replacement and a rewind put another list in place, continue-as-new empties it.  Events are final once
    a worker has received them.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._events: list[pb.HistoryEvent] = []
        self._count = 0
        self._last: pb.HistoryEvent | None = None

    def of(self, events: list[pb.HistoryEvent]) -> bytearray:
        """The bytes of `events`, of which those that are new since the last call are serialised."""
        if not self._covers_beginning_of(events):
            self._data.clear()
            self._events, self._count = events, 0
        if len(events) > self._count:
            self._data += _serialised(pb.OrchestratorRequest(pastEvents=events[self._count :]))
            self._count, self._last = len(events), events[-1]
        return self._data

    def _covers_beginning_of(self, events: list[pb.HistoryEvent]) -> bool:
        return (
            events is self._events
            and len(events) >= self._count
            and (self._count == 0 or events[self._count - 1] is self._last)
        )


def history_bytes(instance: OrchestrationInstance) -> HistoryBytes:
    """Those of this instance.  Kept on it, so that they go when it goes."""
    kept: dict[str, HistoryBytes] = vars(instance)
    return kept.setdefault("_history_bytes", HistoryBytes())


def forget_history_bytes(instance: OrchestrationInstance) -> None:
    """The instance has ended: its history is not sent any more."""
    vars(instance).pop("_history_bytes", None)


def turn_bytes(instance: OrchestrationInstance, new_events: Sequence[pb.HistoryEvent], token: str) -> bytes:
    """What the `WorkItem` of a turn serialises to."""
    before = _serialised(pb.OrchestratorRequest(instanceId=instance.instance_id))
    past = history_bytes(instance).of(instance.history)
    after = _serialised(pb.OrchestratorRequest(newEvents=new_events))
    length = _varint(len(before) + len(past) + len(after))
    return b"".join((_TURN_TAG, length, before, past, after, _serialised(pb.WorkItem(completionToken=token))))


def to_bytes(item: pb.WorkItem | bytes) -> bytes:
    """The serializer for a stream of work items of which some are bytes already."""
    return item if isinstance(item, bytes) else _serialised(item)


def _serialised(message: pb.OrchestratorRequest | pb.WorkItem) -> bytes:
    # Deterministic, since tags are a map: whatever serialises the same history comes to the same bytes.
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
