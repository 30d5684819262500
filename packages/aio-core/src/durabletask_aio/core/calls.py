"""What the context does for calls that need more than a few lines; activities are in the context itself, for speed."""

# ruff: noqa: A002 - `input` is upstream's name for it

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from durabletask_aio.core import arguments, retries
from durabletask_aio.core._upstream import EntityInstanceId, RetryPolicy, child_of_step, sequence_number
from durabletask_aio.core.children import ChildOperation
from durabletask_aio.core.operations import ENTITY, SUB_ORCHESTRATION, RetriedOperation, ScheduledOperation

if TYPE_CHECKING:
    from durabletask_aio.core.execution import Execution
    from durabletask_aio.core.loop import WorkflowLoop


def sub_orchestration(
    execution: Execution,
    loop: WorkflowLoop,
    orchestrator: Any,
    *,
    input: Any,
    instance_id: str | None,
    retry_policy: RetryPolicy | None,
    version: str | None,
    cancel_children: bool,
    return_type: type | None,
    raises: object,
) -> ScheduledOperation[Any]:
    """Schedule a sub-orchestration; see `AsyncWorkflowContext.call_sub_orchestrator`."""
    name = arguments.name_of(execution, orchestrator, "call_sub_orchestrator")
    types = arguments.raised_types(execution, raises, orchestrator, "call_sub_orchestrator")
    if retry_policy is not None:
        retry_policy = arguments.check_retry_policy(execution, retry_policy, "call_sub_orchestrator")
    for keyword, value in (("instance_id", instance_id), ("version", version)):
        if value is not None:
            arguments.check_text(execution, value, keyword, f"ctx.call_sub_orchestrator({name!r}, {keyword}=")
    upstream = execution.scheduler("call_sub_orchestrator")
    try:
        scheduled = upstream.call_sub_orchestrator(
            name,
            input=input,
            instance_id=instance_id,
            retry_policy=retry_policy,
            version=version,
            return_type=cast("type[Any]", return_type),
        )
    except (TypeError, ValueError) as error:
        raise arguments.unserializable(
            execution, error, input, f"sub-orchestration {name!r}", f"ctx.call_sub_orchestrator({name!r}, input="
        ) from error
    step = sequence_number(upstream)
    execution.metadata.carry(upstream, step)
    child = child_of_step(upstream, step) if cancel_children else None
    operation: ScheduledOperation[Any]
    if child is not None:
        retries.use_workflow_clock(upstream, scheduled)
        linked: ChildOperation[Any] = ChildOperation(loop, SUB_ORCHESTRATION, name, step, scheduled)
        operation = linked.link(child)
    elif retry_policy is None:
        operation = ScheduledOperation(loop, SUB_ORCHESTRATION, name, step, scheduled)
    else:
        retries.use_workflow_clock(upstream, scheduled)
        operation = RetriedOperation(loop, SUB_ORCHESTRATION, name, step, scheduled)
    operation.raises = types
    return operation


def entity_operation(
    execution: Execution,
    loop: WorkflowLoop,
    entity: EntityInstanceId,
    operation: str,
    input: Any,
    *,
    return_type: type | None,
    raises: object,
) -> ScheduledOperation[Any]:
    """Schedule an operation of an entity; see `AsyncWorkflowContext.call_entity`."""
    arguments.check_entity(execution, entity, operation, "call_entity")
    types = arguments.raised_types(execution, raises, None, "call_entity")
    upstream = execution.scheduler("call_entity")
    try:
        scheduled = upstream.call_entity(entity, operation, input, return_type=cast("type[Any]", return_type))
    except (TypeError, ValueError) as error:
        raise arguments.unserializable(
            execution, error, input, f"entity operation {operation!r}", f"ctx.call_entity(entity, {operation!r}, "
        ) from error
    called: ScheduledOperation[Any] = ScheduledOperation(
        loop, ENTITY, f"{entity}.{operation}", sequence_number(upstream), scheduled
    )
    called.raises = types
    return called
