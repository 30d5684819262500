"""Builds upstream's history events, and frames encoded events as fields of a message.

An encoded message is the concatenation of its fields, so a turn's request is put together from the bytes of its events
without parsing any of them: see `PAST_EVENT` and `NEW_EVENT`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from durabletask_aio.engine._upstream import pb

MICROSECONDS = 1_000_000


_SHORT = tuple(bytes((number,)) for number in range(128))


def varint(number: int) -> bytes:
    """Encode a number in protobuf's variable length."""
    if number < 128:
        return _SHORT[number]
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _tag(field: str) -> bytes:
    """The tag of a field of `OrchestratorRequest` whose value is preceded by its length."""
    return varint(pb.OrchestratorRequest.DESCRIPTOR.fields_by_name[field].number << 3 | 2)


PAST_EVENT = _tag("pastEvents")
NEW_EVENT = _tag("newEvents")

CONTINUES = "durabletask-aio-continues"
"""Property of a request with less than the whole history: the lease on the turn that the history continues."""


def continuing(lease_id: str) -> bytes:
    """Encode that property as a field of a request."""
    request = pb.OrchestratorRequest()
    request.properties[CONTINUES].string_value = lease_id
    encoded: bytes = request.SerializeToString()
    return encoded


def with_time(event: pb.HistoryEvent, time: int) -> bytes:
    """Encode an event that a worker has sent, which need not say when it happened."""
    encoded: bytes = event.SerializeToString()
    if event.timestamp.seconds or event.timestamp.nanos:
        return encoded
    # Of two values of one field the last one counts.
    return encoded + pb.HistoryEvent(timestamp=timestamp(time)).SerializeToString()


_EVENT_TAGS = {each.name: varint(each.number << 3 | 2) for each in pb.HistoryEvent.DESCRIPTOR.fields}


def encode(time: int, field: str, body: bytes = b"", number: int = -1) -> bytes:
    """Encode an event, in half of the time that it takes to make the message.

    Args:
        time: of the event.
        field: which event it is: the name of the field of `HistoryEvent`.
        body: the value of that field, encoded.
        number: of the action, if the event confirms one.
    """
    return _event_id(number) + _timestamp(time) + frame(_EVENT_TAGS[field], body)


@lru_cache(maxsize=256)
def _event_id(number: int) -> bytes:
    # Cached, since nearly all events have the same: -1, which takes ten bytes.
    return integer(b"\x08", number)


@lru_cache(maxsize=256)
def _timestamp(time: int) -> bytes:
    # Cached, since the events of a turn have the same.
    seconds, rest = divmod(time, MICROSECONDS)
    return frame(b"\x12", _seconds(seconds) + integer(b"\x10", rest * 1000))


@lru_cache(maxsize=16)
def _seconds(seconds: int) -> bytes:
    # Cached, since nearly all events of a second have the same.
    return integer(b"\x08", seconds)


def integer(tag: bytes, number: int) -> bytes:
    """Return a number as a field of a message; nothing if it is zero, as protobuf does."""
    # Negative numbers are encoded as those of 64 bits.
    return tag + varint(number % (1 << 64)) if number else b""


def text(tag: bytes, value: str) -> bytes:
    """Return a text as a field of a message."""
    return frame(tag, value.encode())


def optional_text(tag: bytes, message: Any, field: str) -> bytes:
    """Return an optional text, a `StringValue`, as a field of another message; nothing if it is not set."""
    if not message.HasField(field):
        return b""
    value: str = getattr(message, field).value
    return frame(tag, text(b"\x0a", value) if value else b"")


def frame(tag: bytes, encoded: bytes) -> bytes:
    """Return an encoded message as a field of another one."""
    size = len(encoded)
    return tag + (_SHORT[size] if size < 128 else varint(size)) + encoded


def without_first(frames: bytes, count: int) -> bytes:
    """Return what follows the first `count` fields of a sequence of messages, each with a tag of one byte."""
    start = 0
    for _ in range(count):
        size = shift = 0
        start += 1
        while True:
            byte = frames[start]
            start += 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        start += size
    return frames[start:]


def timestamp(time: int) -> Timestamp:
    """Return microseconds since 1970 as a protobuf timestamp."""
    seconds, rest = divmod(time, MICROSECONDS)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def microseconds(stamp: Timestamp) -> int:
    """Return a protobuf timestamp as microseconds since 1970, rounded up, so that nothing is due too early."""
    return stamp.seconds * MICROSECONDS + -(-stamp.nanos // 1000)


def string_value(text: str | None) -> StringValue | None:
    """Return the wrapper of an optional string."""
    return None if text is None else StringValue(value=text)


def json_text(text: str) -> str:
    """Encode a text as clients do that use JSON."""
    return json.dumps(text)


def optional(message: object, field: str) -> str | None:
    """Return the value of an optional string field, `None` if it is not set."""
    return getattr(message, field).value if message.HasField(field) else None  # type: ignore[attr-defined]


def parse(event: bytes) -> pb.HistoryEvent:
    """Parse an encoded event."""
    return pb.HistoryEvent.FromString(event)


def past_events(chunks: Iterable[bytes]) -> list[pb.HistoryEvent]:
    """Parse the chunks of a history."""
    return list(pb.OrchestratorRequest.FromString(b"".join(chunks)).pastEvents)


def as_past(events: Iterable[pb.HistoryEvent]) -> bytes:
    """Encode events as a chunk of a history."""
    return b"".join(frame(PAST_EVENT, event.SerializeToString()) for event in events)


def orchestrator_started(time: int) -> bytes:
    """Encode the first event of a turn."""
    return encode(time, "orchestratorStarted")


def execution_started(
    time: int,
    instance_id: str,
    name: str,
    version: str | None,
    input: str | None,  # noqa: A002 - what upstream calls it
    tags: dict[str, str],
) -> pb.HistoryEvent:
    """Make the event that starts an execution."""
    return pb.HistoryEvent(
        eventId=-1,
        timestamp=timestamp(time),
        executionStarted=pb.ExecutionStartedEvent(
            name=name,
            version=string_value(version),
            input=string_value(input),
            orchestrationInstance=pb.OrchestrationInstance(instanceId=instance_id),
            tags=tags,
        ),
    )


def event_raised(time: int, name: str, data: str | None) -> bytes:
    """Encode an external event."""
    raised = pb.EventRaisedEvent(name=name, input=string_value(data))
    return pb.HistoryEvent(eventId=-1, timestamp=timestamp(time), eventRaised=raised).SerializeToString()


def execution_suspended(time: int, reason: str | None) -> bytes:
    """Encode a request to suspend."""
    suspended = pb.ExecutionSuspendedEvent(input=string_value(reason))
    return pb.HistoryEvent(eventId=-1, timestamp=timestamp(time), executionSuspended=suspended).SerializeToString()


def execution_resumed(time: int, reason: str | None) -> bytes:
    """Encode a request to resume."""
    resumed = pb.ExecutionResumedEvent(input=string_value(reason))
    return pb.HistoryEvent(eventId=-1, timestamp=timestamp(time), executionResumed=resumed).SerializeToString()


def execution_terminated(time: int, output: str | None, recurse: bool) -> bytes:
    """Encode a request to terminate."""
    terminated = pb.ExecutionTerminatedEvent(input=string_value(output), recurse=recurse)
    return pb.HistoryEvent(eventId=-1, timestamp=timestamp(time), executionTerminated=terminated).SerializeToString()


def execution_rewound(time: int, reason: str | None) -> bytes:
    """Encode a request to rewind."""
    rewound = pb.ExecutionRewoundEvent(reason=string_value(reason))
    return pb.HistoryEvent(eventId=-1, timestamp=timestamp(time), executionRewound=rewound).SerializeToString()


def timer_fired(time: int, timer_id: int, fire_at: Timestamp) -> bytes:
    """Encode that a timer is due; `time` is when it is."""
    fired = pb.TimerFiredEvent(fireAt=fire_at, timerId=timer_id)
    return encode(time, "timerFired", fired.SerializeToString())


def called(asked: pb.ScheduleTaskAction | pb.TaskScheduledEvent) -> bytes:
    """Encode name, version and input of an activity, whose numbers are the same in action, event and request."""
    return text(b"\x0a", asked.name) + optional_text(b"\x12", asked, "version") + optional_text(b"\x1a", asked, "input")


def task_scheduled(asked: pb.ScheduleTaskAction, call: bytes) -> bytes:
    """Encode the body of the event that confirms the call of an activity; `call` is what `called` returns for it."""
    if asked.tags or asked.HasField("parentTraceContext"):
        rest = pb.TaskScheduledEvent(tags=asked.tags)
        _copy_trace(asked, rest)
        call += rest.SerializeToString()
    return call


def activity_request(
    instance_id: str, number: int, asked: pb.ScheduleTaskAction | pb.TaskScheduledEvent, call: bytes
) -> bytes:
    """Encode the request to run an activity, from the action or the event that asks for it, and its `called`."""
    encoded = call + frame(b"\x22", text(b"\x0a", instance_id)) + integer(b"\x28", number)
    if asked.tags or asked.HasField("parentTraceContext"):
        rest = pb.ActivityRequest(tags=asked.tags)
        _copy_trace(asked, rest)
        encoded += rest.SerializeToString()
    return encoded


def _copy_trace(asked: pb.ScheduleTaskAction | pb.TaskScheduledEvent, to: Any) -> None:
    if asked.HasField("parentTraceContext"):
        to.parentTraceContext.CopyFrom(asked.parentTraceContext)


def activity_outcome(time: int, response: pb.ActivityResponse) -> bytes:
    """Encode the result or the failure of an activity."""
    # A failure without a message is a failure too.
    if response.HasField("failureDetails"):
        failed = pb.TaskFailedEvent(taskScheduledId=response.taskId, failureDetails=response.failureDetails)
        return encode(time, "taskFailed", failed.SerializeToString())
    completed = integer(b"\x08", response.taskId) + optional_text(b"\x12", response, "result")
    return encode(time, "taskCompleted", completed)


def child_completed(time: int, task_id: int, output: str | None) -> bytes:
    """Encode the result of a sub-orchestration."""
    completed = pb.SubOrchestrationInstanceCompletedEvent(taskScheduledId=task_id, result=string_value(output))
    return pb.HistoryEvent(
        eventId=-1, timestamp=timestamp(time), subOrchestrationInstanceCompleted=completed
    ).SerializeToString()


def child_failed(time: int, task_id: int, failure: pb.TaskFailureDetails) -> bytes:
    """Encode the failure of a sub-orchestration."""
    failed = pb.SubOrchestrationInstanceFailedEvent(taskScheduledId=task_id, failureDetails=failure)
    return pb.HistoryEvent(
        eventId=-1, timestamp=timestamp(time), subOrchestrationInstanceFailed=failed
    ).SerializeToString()


def lock_granted(time: int, critical_section_id: str) -> bytes:
    """Encode that a critical section has all its entities."""
    granted = pb.EntityLockGrantedEvent(criticalSectionId=critical_section_id)
    return pb.HistoryEvent(eventId=-1, timestamp=timestamp(time), entityLockGranted=granted).SerializeToString()


def signal(
    time: int,
    entity_id: str,
    operation: str,
    request_id: str,
    input: StringValue | None,  # noqa: A002 - what upstream calls it
    scheduled: Timestamp | None = None,
) -> bytes:
    """Encode a signal to an entity."""
    signaled = pb.EntityOperationSignaledEvent(
        requestId=request_id,
        operation=operation,
        input=input,
        targetInstanceId=StringValue(value=entity_id),
        scheduledTime=scheduled,
    )
    return pb.HistoryEvent(eventId=-1, timestamp=timestamp(time), entityOperationSignaled=signaled).SerializeToString()


def failure(error_type: str, message: str) -> pb.TaskFailureDetails:
    """Describe a failure of the engine's own."""
    return pb.TaskFailureDetails(errorType=error_type, errorMessage=message)


def groups_of(chunks: list[bytes], size: int) -> Iterator[list[bytes]]:
    """Split chunks of a history into groups of about a size, in bytes."""
    group: list[bytes] = []
    filled = 0
    for chunk in chunks:
        if group and filled + len(chunk) > size:
            yield group
            group, filled = [], 0
        group.append(chunk)
        filled += len(chunk)
    if group:
        yield group
