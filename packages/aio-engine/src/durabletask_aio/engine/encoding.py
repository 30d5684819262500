"""Work items as they go to a worker, put together from encoded parts."""

from __future__ import annotations

from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

from durabletask_aio.engine import events
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.work import BatchWork, TaskWork, TurnWork

Work = TurnWork | TaskWork | BatchWork


def _tag(message: Any, field: str) -> bytes:
    return events.varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | 2)


_TURN = _tag(pb.WorkItem, "orchestratorRequest")
_ACTIVITY = _tag(pb.WorkItem, "activityRequest")
_TOKEN = _tag(pb.WorkItem, "completionToken")
_INSTANCE_ID = _tag(pb.OrchestratorRequest, "instanceId")
_EXECUTION_ID = _tag(pb.OrchestratorRequest, "executionId")
_VALUE = _tag(StringValue, "value")


def to_bytes(work: object) -> bytes:
    """Encode a work item, or what else is on its way to a worker.

    Turns and activities are concatenations of fields that are bytes already, so a long history costs one copy.
    """
    if isinstance(work, TurnWork):
        return _turn(work)
    if isinstance(work, TaskWork):
        return events.frame(_ACTIVITY, work.task.request) + events.text(_TOKEN, str(work.token))
    return to_message(work).SerializeToString()


def _turn(work: TurnWork) -> bytes:
    instance = work.instance
    execution = events.frame(_EXECUTION_ID, events.text(_VALUE, instance.execution_id))
    head = events.text(_INSTANCE_ID, instance.instance_id) + execution
    past = work.past()
    new = b"".join([events.frame(events.NEW_EVENT, each) for each in work.new()])
    if work.continues:
        new += events.continuing(work.continues)
    size = events.varint(len(head) + len(past) + len(new))
    return b"".join((_TURN, size, head, past, new, events.text(_TOKEN, str(work.token))))


def to_message(work: object) -> pb.WorkItem:
    """Make a work item, or pass on a message as it is."""
    if isinstance(work, (TurnWork, TaskWork)):
        return pb.WorkItem.FromString(to_bytes(work))
    if isinstance(work, BatchWork):
        request = pb.EntityRequest(
            instanceId=work.entity.entity_id,
            entityState=events.string_value(work.entity.state),
            operationRequests=[pb.HistoryEvent.FromString(each.event) for each in work.operations],
        )
        return pb.WorkItem(completionToken=str(work.token), entityRequestV2=request)
    assert isinstance(work, pb.WorkItem)
    return work
