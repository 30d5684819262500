"""Work items whose requests are read when they are needed, from the bytes as the engine has sent them.

Most engines send the whole history with each turn.  A session has processed nearly all of it, so parsing it again is a
large part of a turn's cost, and grows with the history.  So the worker keeps the bytes of a turn's request: a session
recognises the history that it has processed by them (`sessions.RawHistory`), and only what follows is parsed.

A message of protobuf is the sequence of its fields.  Every part of such a sequence is a message too, and that of two
parts together is the parts' messages merged.  Therefore

* the fields before the new events, in the order that all known engines write, are the committed history, and
* that history will begin with the same bytes in the next turn, followed by those of the new events.  Number and type of
  a field are its first byte: only that differs between a new and a committed event.

Whatever has another form is parsed at once (`read_work_item`), or is not provable by its bytes (`RawRequest.sections`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from durabletask_aio.worker._upstream import pb

_TURN = "orchestratorRequest"
_FIELDS = pb.OrchestratorRequest.DESCRIPTOR.fields_by_name

# The byte that begins a field: its number, and 2 for one with a length.
_PAST_EVENT = _FIELDS["pastEvents"].number << 3 | 2
_NEW_EVENT = _FIELDS["newEvents"].number << 3 | 2
_STREAMING = _FIELDS["requiresHistoryStreaming"].number << 3
_AFTER_HISTORY = frozenset(
    {
        _NEW_EVENT,
        _STREAMING,
        *(_FIELDS[name].number << 3 | 2 for name in ("entityParameters", "properties", "orchestrationTraceContext")),
    }
)
_PAST_EVENT_BYTE = bytes([_PAST_EVENT])
_EXECUTION_ID_BYTE = bytes([_FIELDS["executionId"].number << 3 | 2])
_INSTANCE_ID_BYTE = bytes([_FIELDS["instanceId"].number << 3 | 2])
_ITEM_REQUEST_BYTE = bytes([pb.WorkItem.DESCRIPTOR.fields_by_name[_TURN].number << 3 | 2])


class Sections(NamedTuple):
    """The parts of a request."""

    history_end: int
    """Where the committed history ends."""
    appended: bytes
    """The new events as they will follow that history in the next turn."""


class RawRequest:
    """The request of a turn, of which nothing but the instance's id is read until it is needed.

    The fields of the message are attributes, as for what wraps the worker's methods; reading one parses all of it.

    Args:
        body: The bytes of the request, which begin with the instance's id.
    """

    __slots__ = ("_message", "_started", "body", "instanceId")

    def __init__(self, body: bytes) -> None:
        begin, end = _content(body, 1)
        self.body = body
        self.instanceId = body[begin:end].decode()
        self._message: pb.OrchestratorRequest | None = None
        self._started: pb.ExecutionStartedEvent | None = None

    def whole(self) -> pb.OrchestratorRequest:
        """Return the message."""
        if self._message is None:
            self._message = pb.OrchestratorRequest.FromString(self.body)
        return self._message

    def after(self, position: int) -> pb.OrchestratorRequest:
        """Return the message without the events before a position."""
        return pb.OrchestratorRequest.FromString(self.body[: self._ids_end()] + self.body[position:])

    @property
    def started(self) -> pb.ExecutionStartedEvent:
        """The event with which the execution started; an empty one if there is none."""
        if self._started is None:
            self._started = self._find_started()
        return self._started

    def _find_started(self) -> pb.ExecutionStartedEvent:
        """Return that event, which is one of the first, without parsing what follows it."""
        body = self.body
        at = self._ids_end()
        while at < len(body) and body[at] in (_PAST_EVENT, _NEW_EVENT):
            begin, at = _content(body, at + 1)
            event = pb.HistoryEvent.FromString(body[begin:at])
            if event.HasField("executionStarted"):
                return event.executionStarted
        events = (*self.whole().pastEvents, *self.whole().newEvents)
        return next((e.executionStarted for e in events if e.HasField("executionStarted")), pb.ExecutionStartedEvent())

    def _ids_end(self) -> int:
        _, at = _content(self.body, 1)
        if self.body[at : at + 1] == _EXECUTION_ID_BYTE:
            _, at = _content(self.body, at + 1)
        return at

    def sections(self, start: int = 0) -> Sections | None:
        """Return the parts of the request; `None` if its bytes prove nothing.

        That is so if a part of the history follows what is no part of it, or with fields that this release does not
        know.

        Args:
            start: Where to begin: at a field, with the ids and only past events before it.
        """
        body = self.body
        at = history_end = start or self._ids_end()
        appended: list[bytes] = []
        while at < len(body):
            field, begin = body[at], at
            if field == _STREAMING:
                _, at = _varint(body, at + 1)
                continue
            _, at = _content(body, at + 1)
            if field == _PAST_EVENT and begin == history_end:
                history_end = at
            elif field not in _AFTER_HISTORY:
                return None
            elif field == _NEW_EVENT:
                appended += (_PAST_EVENT_BYTE, body[begin + 1 : at])
        return Sections(history_end, b"".join(appended))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole(), name)


def whole_request(request: pb.OrchestratorRequest | RawRequest) -> pb.OrchestratorRequest:
    """Return the message of a request."""
    return request.whole() if isinstance(request, RawRequest) else request


class RawWorkItem:
    """A work item with a turn."""

    __slots__ = ("completionToken", _TURN)

    def __init__(self, request: RawRequest, token: str) -> None:
        self.orchestratorRequest = request
        self.completionToken = token

    def WhichOneof(self, name: str) -> str:  # noqa: N802 - protobuf's name
        """Return the name of the request's field."""
        return _TURN


def read_work_item(data: bytes) -> Any:
    """Read what the engine sends on a stream of work items: a turn as a `RawWorkItem`, all else as a `pb.WorkItem`."""
    if data[:1] == _ITEM_REQUEST_BYTE:
        begin, end = _content(data, 1)
        if end <= len(data) and data[begin : begin + 1] == _INSTANCE_ID_BYTE:
            rest = pb.WorkItem.FromString(data[end:])
            if rest.WhichOneof("request") is None:
                return RawWorkItem(RawRequest(data[begin:end]), rest.completionToken)
    return pb.WorkItem.FromString(data)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a position, and where it ends."""
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _content(data: bytes, at: int) -> tuple[int, int]:
    """Return where the content of a field begins and ends, by the position of its length."""
    length, at = _varint(data, at)
    return at, at + length
