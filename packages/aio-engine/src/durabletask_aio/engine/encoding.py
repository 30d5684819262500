"""Work items as they go to a worker, put together from encoded parts."""

from __future__ import annotations

from durabletask_aio.engine import events
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.work import BatchWork, TaskWork, TurnWork

_TURN = bytes([pb.WorkItem.DESCRIPTOR.fields_by_name["orchestratorRequest"].number << 3 | 2])

Work = TurnWork | TaskWork | BatchWork


def to_bytes(work: object) -> bytes:
    """Encode a work item, or what else is on its way to a worker.

    A turn is the concatenation of fields that are bytes already, so a long history costs one copy.
    """
    if not isinstance(work, TurnWork):
        return to_message(work).SerializeToString()
    head = pb.OrchestratorRequest(instanceId=work.instance.instance_id)
    head.executionId.value = work.instance.execution_id
    past = work.past()
    new = b"".join(events.frame(events.NEW_EVENT, each) for each in work.new())
    encoded_head = head.SerializeToString()
    size = events.varint(len(encoded_head) + len(past) + len(new))
    token = pb.WorkItem(completionToken=str(work.token)).SerializeToString()
    return b"".join((_TURN, size, encoded_head, past, new, token))


def to_message(work: object) -> pb.WorkItem:
    """Make a work item, or pass on a message as it is."""
    if isinstance(work, TurnWork):
        return pb.WorkItem.FromString(to_bytes(work))
    if isinstance(work, TaskWork):
        return pb.WorkItem(
            completionToken=str(work.token), activityRequest=pb.ActivityRequest.FromString(work.task.request)
        )
    if isinstance(work, BatchWork):
        request = pb.EntityRequest(
            instanceId=work.entity.entity_id,
            entityState=events.string_value(work.entity.state),
            operationRequests=[pb.HistoryEvent.FromString(each.event) for each in work.operations],
        )
        return pb.WorkItem(completionToken=str(work.token), entityRequestV2=request)
    assert isinstance(work, pb.WorkItem)
    return work
