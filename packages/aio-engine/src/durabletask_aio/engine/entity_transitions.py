"""Entities: what batches of operations and lock requests change.  Pure, as all of `transitions`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from durabletask_aio.engine import events
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.state import (
    DeliverEvent,
    Entity,
    EntityChanges,
    Lock,
    LockRequest,
    Operation,
    SendOperation,
    StartInstance,
)
from durabletask_aio.engine.transitions import TERMINAL, Context


def new_entity(entity_id: str, context: Context) -> Entity:
    """Return an entity that nothing has happened to yet."""
    return Entity(entity_id, context.new_id(), None, context.now, stored=False)


def batch(entity: Entity, operations: Sequence[Operation]) -> Sequence[Operation]:
    """Return the operations that may be executed now: all, or those of the execution that holds the lock."""
    if entity.lock is None:
        return operations
    return [each for each in operations if each.execution_id == entity.lock.execution_id]


def complete_batch(
    entity: Entity, operations: Sequence[Operation], result: pb.EntityBatchResult, context: Context
) -> EntityChanges:
    """Commit a batch: the entity's new state, the answers to its callers, and what its operations have asked for.

    Args:
        entity: the entity.
        operations: what the worker was given, in this order.
        result: what it answered.  An answer that has no results fails all operations; one with fewer results than
            operations leaves the others for the next batch.
        context: time and ids.
    """
    answered = operations
    if not result.HasField("failureDetails") and 0 < len(result.results) < len(operations):
        answered = operations[: len(result.results)]
    changed = entity._replace(
        revision=context.new_id(), state=events.optional(result, "entityState"), modified_at=context.now
    )
    if result.HasField("failureDetails"):
        changed = changed._replace(state=entity.state)
    changes = EntityChanges(changed, [each.seq for each in answered])
    for number, operation in enumerate(answered):
        request = pb.HistoryEvent.FromString(operation.event)
        if request.HasField("entityOperationCalled"):
            answer = result.results[number] if number < len(result.results) else None
            changes.messages.append(_answer(request.entityOperationCalled, answer, result, operation, context))
    for action in result.actions:
        if action.HasField("sendSignal"):
            sent = action.sendSignal
            event = events.signal(
                context.now,
                sent.instanceId,
                sent.name,
                context.new_id(),
                sent.input if sent.HasField("input") else None,
            )
            due = events.microseconds(sent.scheduledTime) if sent.HasField("scheduledTime") else None
            changes.messages.append(SendOperation(sent.instanceId, event, due=due))
        elif action.HasField("startNewOrchestration"):
            begun = action.startNewOrchestration
            changes.messages.append(
                StartInstance(
                    begun.instanceId or context.new_id(),
                    begun.name,
                    version=events.optional(begun, "version"),
                    input=events.optional(begun, "input"),
                    trace_context=begun.parentTraceContext.SerializeToString()
                    if begun.HasField("parentTraceContext")
                    else None,
                    scheduled_at=events.microseconds(begun.scheduledTime) if begun.HasField("scheduledTime") else None,
                    replaceable=TERMINAL,
                )
            )
    return changes


def _answer(
    call: pb.EntityOperationCalledEvent,
    answer: pb.OperationResult | None,
    result: pb.EntityBatchResult,
    operation: Operation,
    context: Context,
) -> DeliverEvent:
    event = pb.HistoryEvent(eventId=-1, timestamp=events.timestamp(context.now))
    if answer is not None and answer.HasField("success"):
        event.entityOperationCompleted.requestId = call.requestId
        if answer.success.HasField("result"):
            event.entityOperationCompleted.output.CopyFrom(answer.success.result)
    else:
        event.entityOperationFailed.requestId = call.requestId
        if answer is not None and answer.HasField("failure"):
            details = answer.failure.failureDetails
        elif result.HasField("failureDetails"):
            details = result.failureDetails
        else:
            details = events.failure("NoResult", f"the worker has sent no result of operation '{call.operation}'")
        event.entityOperationFailed.failureDetails.CopyFrom(details)
    return DeliverEvent(call.parentInstanceId.value, event.SerializeToString(), execution_id=operation.execution_id)


def grantable(
    requests: Sequence[LockRequest],
    entity: Callable[[str], Entity | None],
    first_operation: Callable[[str], int | None],
) -> list[LockRequest]:
    """Return the lock requests that can be granted now, first come, first served.

    A critical section gets all its entities at once.  It gets them when none of them is locked, no earlier request
    wants one, and what was sent to them before the request has been executed.

    Args:
        requests: all that wait, in the order of arrival.
        entity: returns an entity, `None` if nothing has ever happened to it.
        first_operation: returns the number of the first operation that an entity has not executed.
    """
    granted: list[LockRequest] = []
    taken: set[str] = set()
    for request in requests:
        if all(_is_free(each, request, taken, entity, first_operation) for each in request.entity_ids):
            granted.append(request)
        taken.update(request.entity_ids)
    return granted


def _is_free(
    entity_id: str,
    request: LockRequest,
    taken: set[str],
    entity: Callable[[str], Entity | None],
    first_operation: Callable[[str], int | None],
) -> bool:
    if entity_id in taken:
        return False
    found = entity(entity_id)
    if found is not None and found.lock is not None:
        return False
    first = first_operation(entity_id)
    return first is None or first > request.seq


def grant(entity: Entity, lock: Lock, context: Context) -> Entity:
    """Return the entity with its new holder; a batch that is being executed does not count any more."""
    return entity._replace(lock=lock, revision=context.new_id())


def grant_message(lock: Lock, context: Context) -> DeliverEvent:
    """Return the message that a critical section has all its entities."""
    event = events.lock_granted(context.now, lock.critical_section_id)
    return DeliverEvent(lock.instance_id, event, execution_id=lock.execution_id)


def release(entity: Entity) -> Entity:
    """Return the entity without its holder."""
    return entity._replace(lock=None)


def entity_name(entity_id: str) -> str:
    """Return the name in an entity's id, `@name@key`."""
    return entity_id.split("@", 2)[1] if entity_id.startswith("@") else entity_id
