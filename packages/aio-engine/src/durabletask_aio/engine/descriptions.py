"""Instances and entities as clients know them."""

from __future__ import annotations

from collections.abc import Mapping

from durabletask_aio.engine import events, transitions
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.state import Entity, Instance
from durabletask_aio.engine.store import Reader


def instance_state(reader: Reader, instance: Instance, with_payloads: bool) -> pb.OrchestrationState:
    """Describe an instance as clients know it."""
    payloads: Mapping[str, str | bytes] = {}
    if with_payloads or instance.status == transitions.FAILED:
        payloads = reader.payloads(instance)
    state = pb.OrchestrationState(
        instanceId=instance.instance_id,
        name=instance.name,
        version=events.string_value(instance.version),
        orchestrationStatus=instance.status,  # type: ignore[arg-type]
        createdTimestamp=events.timestamp(instance.created_at),
        lastUpdatedTimestamp=events.timestamp(instance.updated_at),
        customStatus=events.string_value(instance.custom_status),
        executionId=events.string_value(instance.execution_id),
        tags=instance.tags,
    )
    if instance.completed_at is not None:
        state.completedTimestamp.CopyFrom(events.timestamp(instance.completed_at))
    if instance.scheduled_at is not None:
        state.scheduledStartTimestamp.CopyFrom(events.timestamp(instance.scheduled_at))
    if instance.parent is not None:
        state.parentInstanceId.value = instance.parent.instance_id
    failure = payloads.get("failure")
    if isinstance(failure, bytes):
        state.failureDetails.MergeFromString(failure)
    if with_payloads:
        for name in ("input", "output"):
            value = payloads.get(name)
            if isinstance(value, str):
                getattr(state, name).value = value
    return state


def entity_metadata(entity: Entity, pending: int, with_state: bool) -> pb.EntityMetadata:
    """Describe an entity as clients know it; `pending` is the number of operations that wait."""
    return pb.EntityMetadata(
        instanceId=entity.entity_id,
        lastModifiedTime=events.timestamp(entity.modified_at),
        backlogQueueSize=pending,
        lockedBy=None if entity.lock is None else events.string_value(entity.lock.instance_id),
        serializedState=events.string_value(entity.state) if with_state else None,
    )
