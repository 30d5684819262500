"""Engines of other projects: what they refuse, lack or lose, and what the worker does about it.

* **An answer that is too large.**  gRPC refuses messages over a limit, 4 MiB by default, and upstream logs that and
  leaves it: the instance waits forever.  The answer is sent again as a failure that names size and limit (`Answers`).
* **The first version of the protocol.**  Its work items have no completion tokens.  Such an engine drops what it does
  not know (versions, tags, filters), and an entity message ends its process, again after each restart.  The worker
  warns once, and fails what cannot work.
* **Leftovers after `continue_as_new`.**  Some engines give results that the previous execution has asked for to the
  next one, which has the same numbers.  The worker warns of what was outstanding.
* **Stopping.**  An engine that knows no names of workers drops the results of a stream that has ended.  So what runs is
  finished first, and the stream ends then (`WorkItems.drain`).
* **Dapr.**  A Dapr sidecar answers the first call and sends no work items to this protocol's workers.  It is recognised
  and refused, except for old versions, which speak this protocol (`dapr`).

An engine of this project has completion tokens that name a lease; all of this is for the others.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from durabletask_aio.core import AsyncWorkflowError
from durabletask_aio.core.hosting import failure_details
from durabletask_aio.worker._upstream import helpers, pb
from durabletask_aio.worker.leases import lease_of

if TYPE_CHECKING:
    from durabletask_aio.worker.session_executor import SessionExecutor

_TOO_LARGE = re.compile(r"larger than max \((\d+) vs\.? (\d+)\)")
"""gRPC's message in C and in Go: the size of a message and the limit."""

_REMEDY = "keep large data in a store and pass its key, or raise the limit of the engine"

_FIRST_PROTOCOL = (
    "The engine speaks the first version of the protocol: its work items have no completion tokens. It drops versions, "
    "tags and metadata, work item filters and start_at without an error; entities, and VersionFailureStrategy.REJECT, "
    "fail an instance that uses them"
)

_UNPROVEN = (
    "with which steps and patches have not been proven; call an activity instead, or use the engine of "
    "durabletask-aio-engine"
)


def _refusal(error: Exception) -> tuple[int, int] | None:
    """Return size and limit if an engine has refused a message because of its size."""
    if not isinstance(error, grpc.RpcError):
        return None
    status: Any = error
    found = _TOO_LARGE.search(str(status.details())) if status.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else None
    return None if found is None else (int(found[1]), int(found[2]))


def _too_large(what: str, refusal: tuple[int, int]) -> str:
    size, limit = refusal
    return f"{what} has {size:,} bytes, and the engine takes at most {limit:,}: {_REMEDY}"


class Answers:
    """Sends answers, and a failure in place of one that the engine refuses because of its size."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def _failure(self, message: str, instance_id: str, workflow_name: str | None = None) -> pb.TaskFailureDetails:
        self._logger.error("%s: %s", instance_id, message)
        error = AsyncWorkflowError(message, instance_id=instance_id, workflow_name=workflow_name)
        return failure_details(error, None, self._logger)

    def complete_turn(self, stub: Any, response: pb.OrchestratorResponse, workflow_name: str) -> bool:
        """Send the response of a turn.

        Returns:
            Whether it was sent as it is; otherwise the instance has been failed.
        """
        try:
            stub.CompleteOrchestratorTask(response)
        except Exception as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            message = _too_large(f"a turn that is mostly {_largest(response.actions)}", refusal)
        else:
            return True
        stub.CompleteOrchestratorTask(self.failed_turn(response, message, workflow_name))
        return False

    def failed_turn(
        self, response: pb.OrchestratorResponse, message: str, workflow_name: str
    ) -> pb.OrchestratorResponse:
        """Return a response that fails the instance of `response`."""
        details = self._failure(message, instance_id=response.instanceId, workflow_name=workflow_name)
        action = helpers.new_complete_orchestration_action(-1, pb.ORCHESTRATION_STATUS_FAILED, None, details)
        return pb.OrchestratorResponse(
            instanceId=response.instanceId, actions=[action], completionToken=response.completionToken
        )

    def complete_activity(self, stub: Any, response: pb.ActivityResponse, name: str) -> Any:
        """Send the response of an activity."""
        try:
            return stub.CompleteActivityTask(response)
        except Exception as error:
            return self.complete_refused_activity(stub, response, name, error)

    def complete_refused_activity(self, stub: Any, response: pb.ActivityResponse, name: str, error: Exception) -> Any:
        """Send a failure in place of a response that the engine has answered with `error`.

        Raises:
            Exception: `error`, if the size of the response is not the reason.
        """
        refusal = _refusal(error)
        if refusal is None:
            raise error
        message = _too_large(f"the result of activity {name!r}", refusal)
        failed = pb.ActivityResponse(
            instanceId=response.instanceId, taskId=response.taskId, completionToken=response.completionToken
        )
        failed.failureDetails.CopyFrom(self._failure(message, instance_id=response.instanceId))
        return stub.CompleteActivityTask(failed)

    def complete_entity(
        self, stub: Any, result: pb.EntityBatchResult, request: pb.EntityBatchRequest | pb.EntityRequest
    ) -> Any:
        """Send the result of a batch of entity operations; all of them fail if it is too large."""
        try:
            return stub.CompleteEntityTask(result)
        except Exception as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            message = _too_large("the state and the results of an entity", refusal)
        details = self._failure(message, instance_id=request.instanceId)
        failed = pb.EntityBatchResult(
            completionToken=result.completionToken,
            operationInfos=result.operationInfos,
            results=[
                pb.OperationResult(failure=pb.OperationResultFailure(failureDetails=details)) for _ in result.results
            ],
        )
        if request.HasField("entityState"):
            failed.entityState.CopyFrom(request.entityState)
        return stub.CompleteEntityTask(failed)


def _largest(actions: Sequence[pb.OrchestratorAction]) -> str:
    """Say what the largest action of a turn is."""
    if not actions:
        return "its custom status"
    action = max(actions, key=lambda each: each.ByteSize())
    if action.HasField("completeOrchestration"):
        return "the result of the workflow"
    kind = action.WhichOneof("orchestratorActionType")
    name = getattr(getattr(action, kind), "name", "") if kind else ""
    return f"the input of {name!r}" if name else f"an action of type {kind!r}"


class StubWith:
    """A stub with other functions for some of its methods."""

    def __init__(self, stub: Any, **methods: Callable[[Any], Any]) -> None:
        self._stub = stub
        vars(self).update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stub, name)


class ForeignEngine:
    """What the worker says and does because of an engine that is not of this project."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._warned_of_protocol = False
        self._warned_of_children: set[str] = set()

    def note(self, token: str) -> None:
        """Warn once, at the first work item, of an engine of the first protocol."""
        if not token and not self._warned_of_protocol:
            self._warned_of_protocol = True
            self._logger.warning(_FIRST_PROTOCOL)

    def objection(self, response: pb.OrchestratorResponse) -> str | None:
        """Return why a response must not be sent to this engine; `None` if it may."""
        if response.completionToken:
            return None
        if any(action.HasField("sendEntityMessage") for action in response.actions):
            return (
                "entities need an engine with the second version of the protocol; this engine would be ended by their "
                "messages, again after each restart"
            )
        return None

    def step_refusal(self, token: str, worker: object) -> str | None:
        """Return why workflows have no steps and patches with this engine; `None` if they have been proven on it."""
        if not token:
            return f"the engine speaks the first version of the protocol, {_UNPROVEN}"
        if any(kind.__module__.startswith("durabletask.azuremanaged") for kind in type(worker).__mro__):
            return f"this is the worker of Durable Task Scheduler, {_UNPROVEN}"
        return None

    rejection = (
        "VersionFailureStrategy.REJECT needs an engine with the second version of the protocol, which can give the "
        "instance to another worker; use VersionFailureStrategy.FAIL, or an engine for each version"
    )

    def look_at(
        self, request: pb.OrchestratorRequest, response: pb.OrchestratorResponse, name: str, live: SessionExecutor
    ) -> None:
        """Warn of what this engine may confuse between this execution and the next, if it continues as new."""
        if lease_of(response.completionToken) is not None:
            return
        if not response.completionToken and not live.has_numbered_children:
            live.has_numbered_children = _has_numbered_children(request, response)
        if not live.has_continued_as_new:
            return
        outstanding = live.outstanding
        if outstanding:
            self._logger.warning(
                "%s: workflow %s continues as new while %s: this engine may give a result that arrives later to the "
                "next execution, as that of another operation; await it before continue_as_new",
                request.instanceId,
                name,
                _listed(outstanding),
            )
        if live.has_numbered_children and name not in self._warned_of_children:
            self._warned_of_children.add(name)
            self._logger.warning(
                "%s: workflow %s calls sub-orchestrations and continues as new: their ids (%s:0001, ...) repeat in "
                "each execution, and on an engine of the first protocol the second of an id never ends; give each an "
                "instance_id of its own, such as ctx.new_uuid()",
                request.instanceId,
                name,
                request.instanceId,
            )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'} outstanding"


def _has_numbered_children(request: pb.OrchestratorRequest, response: pb.OrchestratorResponse) -> bool:
    prefix = f"{request.instanceId}:"
    created = (
        each.subOrchestrationInstanceCreated.instanceId
        for each in request.pastEvents
        if each.HasField("subOrchestrationInstanceCreated")
    )
    called = (each.createSubOrchestration.instanceId for each in response.actions)
    return any(child.startswith(prefix) for child in (*created, *called))
