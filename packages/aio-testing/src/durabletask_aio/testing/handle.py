"""One workflow instance of an environment, as a test holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from durabletask.client import OrchestrationFailedError, OrchestrationStatus

from durabletask_aio.testing import frames
from durabletask_aio.testing._upstream import OrchestrationInstance, helpers, pb
from durabletask_aio.testing.history import History
from durabletask_aio.testing.waiting import WorkflowStuckError, outstanding

if TYPE_CHECKING:
    from durabletask_aio.testing.environment import WorkflowEnvironment

_LIBRARIES = ("durabletask", "durabletask_aio", "asyncio")
_ENDED = (OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED, OrchestrationStatus.TERMINATED)


MOST_HISTORIES = 5
"""Of the workflows of a failed test, so many are shown."""


def tell_histories(error: BaseException, histories: list[History]) -> None:
    """Say which workflows an error is about, for the report of the pytest plugin; who says it first knows best."""
    vars(error).setdefault("workflow_histories", histories)


class WorkflowTerminatedError(RuntimeError):
    """The result of an instance was asked for that has been terminated; ``.output`` is what it was terminated with."""

    def __init__(self, instance_id: str, output: Any) -> None:
        super().__init__(f"instance {instance_id!r} was terminated, with the output {output!r}")
        self.output = output


class WorkflowHandle:
    """Made by :meth:`WorkflowEnvironment.start`.

    What it does to the instance takes effect before the call returns: the instance has had its turn by then, as far
    as it gets without time passing.
    """

    def __init__(self, environment: WorkflowEnvironment, instance_id: str) -> None:
        self._environment = environment
        self.instance_id = instance_id

    # What it does

    async def result(self, return_type: type | None = None) -> Any:
        """Wait for the end, letting time pass if the environment may skip it, and return the result.

        Raises upstream's ``OrchestrationFailedError`` if it failed, with the error as raised by the workflow as its
        cause; :class:`WorkflowTerminatedError` if it was terminated; :class:`WorkflowStuckError` if it waits for
        something that cannot happen by itself.
        """
        __tracebackhide__ = True
        try:
            await self._environment.wait_until(lambda: self.status in _ENDED, self._describe_waiting)
            return self._outcome(return_type)
        except (OrchestrationFailedError, WorkflowTerminatedError, WorkflowStuckError) as error:
            tell_histories(error, self._failed_histories())
            raise

    def _outcome(self, return_type: type | None) -> Any:
        __tracebackhide__ = True
        instance = self._instance
        output = self._environment.converter.deserialize(instance.output or None, return_type)
        if self.status is OrchestrationStatus.FAILED:
            details = helpers.failure_details_from_protobuf(instance.failure_details or pb.TaskFailureDetails())
            message = f"workflow {instance.name!r} failed, instance {self.instance_id!r}: {details.message}"
            cause = self._environment.turns.errors.get(self.instance_id)
            # How it got through the driver interests nobody.
            raise OrchestrationFailedError(message, details) from (
                cause and cause.with_traceback(frames.without(_LIBRARIES, cause.__traceback__))
            )
        if self.status is OrchestrationStatus.TERMINATED:
            raise WorkflowTerminatedError(self.instance_id, output)
        return output

    def _failed_histories(self) -> list[History]:
        """This one and, since the reason is often there, those of the sub-orchestrations that failed it."""
        engine = self._environment.engine
        found = {self.instance_id: self.history}
        left = [self.history]
        while left and len(found) < MOST_HISTORIES:
            children = (event.subOrchestrationInstanceCreated.instanceId for event in left.pop(0).protobuf)
            for child in filter(None, map(engine.instance, children)):
                if child.status == pb.ORCHESTRATION_STATUS_FAILED and child.instance_id not in found:
                    found[child.instance_id] = History(engine.history_of(child.instance_id))
                    left.append(found[child.instance_id])
        return list(found.values())[:MOST_HISTORIES]

    async def raise_event(self, name: str, data: Any = None) -> None:
        """Send the instance an external event; one that it does not wait for yet is kept for it."""
        request = pb.RaiseEventRequest(instanceId=self.instance_id, name=name, input=self._encode(data))
        await self._environment.call(self._environment.engine.RaiseEvent, request)

    async def terminate(self, output: Any = None, *, recursive: bool = True) -> None:
        """End the instance from outside, and by default its sub-orchestrations."""
        request = pb.TerminateRequest(instanceId=self.instance_id, output=self._encode(output), recursive=recursive)
        await self._environment.call(self._environment.engine.TerminateInstance, request)

    async def suspend(self, reason: str | None = None) -> None:
        """Keep what happens from the instance until :meth:`resume`; time goes on."""
        request = pb.SuspendRequest(instanceId=self.instance_id, reason=helpers.get_string_value(reason))
        await self._environment.call(self._environment.engine.SuspendInstance, request)

    async def resume(self, reason: str | None = None) -> None:
        """Let a suspended instance go on with what has happened meanwhile."""
        request = pb.ResumeRequest(instanceId=self.instance_id, reason=helpers.get_string_value(reason))
        await self._environment.call(self._environment.engine.ResumeInstance, request)

    def _encode(self, value: Any) -> Any:
        return helpers.get_string_value(self._environment.converter.serialize(value))

    # What it is

    @property
    def _instance(self) -> OrchestrationInstance:
        instance = self._environment.engine.instance(self.instance_id)
        assert instance is not None
        return instance

    @property
    def status(self) -> OrchestrationStatus:
        return OrchestrationStatus(self._instance.status)

    @property
    def custom_status(self) -> Any:
        """What the workflow last set, as plain data."""
        return self._environment.converter.deserialize(self._instance.custom_status or None)

    @property
    def history(self) -> History:
        """The history so far, of the latest execution."""
        return History(self._environment.engine.history_of(self.instance_id), instance_id=self.instance_id)

    @property
    def waiting_for(self) -> list[str]:
        """What it waits for, in words."""
        awaited = self._environment.turns.awaited_events(self.instance_id)
        return outstanding(self.history.protobuf, awaited)

    def _describe_waiting(self) -> str:
        instance = self._instance
        what = ", ".join(self.waiting_for) or "nothing that the history shows"
        why = {
            OrchestrationStatus.SUSPENDED: "it is suspended; call resume()",
            OrchestrationStatus.PENDING: "it has not started",
        }.get(self.status, "nothing is running and no timer is set that could bring it")
        if not self._environment.auto_skip and self._environment.clock.next_due() is not None:
            why = "auto_skip is off, so time has to be advanced: await env.advance(...)"
        return f"workflow {instance.name!r}, instance {self.instance_id!r}, waits for {what}: {why}"

    def __repr__(self) -> str:
        return f"<WorkflowHandle of {self._instance.name!r} {self.instance_id!r}: {self.status.name}>"
