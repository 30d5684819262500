"""`WorkflowHandle`: one workflow instance of an environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from durabletask.client import (
    OrchestrationFailedError,
    OrchestrationState,
    OrchestrationStatus,
    parse_orchestration_state,
)

from durabletask_aio.core import hosting, request_cancellation
from durabletask_aio.testing._upstream import helpers, pb
from durabletask_aio.testing.frames import strip_frames
from durabletask_aio.testing.history import History
from durabletask_aio.testing.waiting import WorkflowStuckError, describe_outstanding

if TYPE_CHECKING:
    from durabletask_aio.testing.runner import InProcessRunner

_LIBRARIES = ("durabletask", "durabletask_aio", "asyncio")
_ENDED = (OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED, OrchestrationStatus.TERMINATED)

MAX_HISTORIES = 5
"""The number of workflows that the report of a failed test shows at most."""


def attach_histories(error: BaseException, histories: list[History]) -> None:
    """Attach the histories that explain an error, for the report of the pytest plugin, unless it has some already."""
    vars(error).setdefault("workflow_histories", histories)


def cause_of_failure(runner: InProcessRunner, instance_id: str) -> BaseException | None:
    """Return the exception that failed an instance; `None` if it failed in another way, or not at all."""
    cause = runner.turns.errors.get(instance_id)
    # The frames of the driver and of upstream do not help the author of the workflow.
    return cause and cause.with_traceback(strip_frames(cause.__traceback__, _LIBRARIES))


def histories_of_failure(runner: InProcessRunner, instance_id: str) -> list[History]:
    """Return the history of an instance and those of the failed sub-orchestrations below it."""
    found = {instance_id: runner.history(instance_id)}
    to_visit = [*found.values()]
    while to_visit and len(found) < MAX_HISTORIES:
        for event in to_visit.pop(0).protobuf:
            child_id = event.subOrchestrationInstanceCreated.instanceId
            if runner.status(child_id) == pb.ORCHESTRATION_STATUS_FAILED and child_id not in found:
                found[child_id] = runner.history(child_id)
                to_visit.append(found[child_id])
    return list(found.values())[:MAX_HISTORIES]


def describe_waiting(runner: InProcessRunner, instance_id: str) -> str:
    """Say what an instance waits for, and why it does not come."""
    instance = runner.instance(instance_id)
    operations = ", ".join(_outstanding(runner, instance_id)) or "nothing that the history shows"
    reason = {
        pb.ORCHESTRATION_STATUS_SUSPENDED: "it is suspended; call resume()",
        pb.ORCHESTRATION_STATUS_PENDING: "it has not started",
    }.get(instance.orchestrationStatus, "nothing is running and no timer is set that could bring it")
    if not runner.settings.auto_skip and runner.time.is_anything_due:
        reason = "auto_skip is off, so time has to be advanced: await env.advance(...)"
    return f"workflow {instance.name!r}, instance {instance_id!r}, waits for {operations}: {reason}"


def _outstanding(runner: InProcessRunner, instance_id: str) -> list[str]:
    return describe_outstanding(runner.history(instance_id).protobuf, runner.turns.awaited_events(instance_id))


class WorkflowTerminatedError(RuntimeError):
    """The result of an instance was requested that has been terminated.

    Attributes:
        output: the output it was terminated with.
    """

    def __init__(self, instance_id: str, output: Any) -> None:
        super().__init__(f"instance {instance_id!r} was terminated, with the output {output!r}")
        self.output = output


class WorkflowHandle:
    """A workflow instance in a [`WorkflowEnvironment`][durabletask.aio.testing.WorkflowEnvironment].

    Returned by its methods `start` and `handle`, not made directly.  What a method does to the instance has taken
    effect when the call returns: the instance has run as far as it can without time passing.

    Attributes:
        instance_id: the id of the instance.
    """

    def __init__(self, runner: InProcessRunner, instance_id: str) -> None:
        self._runner = runner
        self.instance_id = instance_id

    # -- methods --------------------------------------------------------------------------------------------------

    async def result(self, return_type: type | None = None) -> Any:
        """Wait for the end of the instance and return its result.

        Time passes meanwhile, unless the environment was made with `auto_skip=False`.

        Args:
            return_type: the type that the data converter makes of the result; by default plain data.

        Returns:
            The result of the workflow.

        Raises:
            durabletask.client.OrchestrationFailedError: if it failed; the exception of the workflow is its cause.
            WorkflowTerminatedError: if it was terminated.
            WorkflowStuckError: if it waits for something that cannot happen without the test.
        """
        __tracebackhide__ = True
        try:
            await self._runner.wait_until(lambda: self.status in _ENDED, self._describe_waiting)
            return self._outcome(return_type)
        except (OrchestrationFailedError, WorkflowTerminatedError, WorkflowStuckError) as error:
            attach_histories(error, histories_of_failure(self._runner, self.instance_id))
            raise

    def _outcome(self, return_type: type | None) -> Any:
        __tracebackhide__ = True
        instance = self._instance
        output = self._runner.converter.deserialize(instance.output.value or None, return_type)
        if self.status is OrchestrationStatus.FAILED:
            details = helpers.failure_details_from_protobuf(instance.failureDetails)
            reason = f"{details.error_type}: {details.message}" if details.message else details.error_type
            message = f"workflow {instance.name!r} failed, instance {self.instance_id!r}: {reason}"
            raise OrchestrationFailedError(message, details) from cause_of_failure(self._runner, self.instance_id)
        if self.status is OrchestrationStatus.TERMINATED:
            raise WorkflowTerminatedError(self.instance_id, output)
        return output

    async def raise_event(self, name: str, data: Any = None) -> None:
        """Send the instance an external event; it is kept if the instance does not wait for it yet.

        Args:
            name: the name of the event; upper and lower case are the same.
            data: the payload, encoded by the data converter.
        """
        request = pb.RaiseEventRequest(instanceId=self.instance_id, name=name, input=self._encode(data))
        await self._runner.call(self._runner.service.RaiseEvent, request)

    async def ask(
        self, name: str, data: Any = None, *, timeout: float | None = None, return_type: type | None = None
    ) -> Any:
        """Send the instance a request, and wait for the answer: `ctx.requests` in the workflow gets it.

        Time passes meanwhile, unless the environment was made with `auto_skip=False`.

        Args:
            name: the name of the request; upper and lower case are the same.
            data: what the workflow gets, encoded by the data converter.
            timeout: how long to wait on the environment's clock, in seconds; by default without limit.
            return_type: the type of the answer; by default plain data.

        Returns:
            The answer.

        Raises:
            durabletask.aio.client.RequestRefusedError: if the workflow refuses the request, or its data.
            durabletask.aio.client.RequestUnansweredError: if the instance has ended, or ends without answering.
            TimeoutError: if there is no answer in time.
            WorkflowStuckError: if the workflow waits for something that cannot happen without the test.
            durabletask.aio.WorkflowValidationError: if the name is no string, or empty.
        """
        __tracebackhide__ = True
        asking = hosting.request_to(self.instance_id, name, data, timeout)
        asking.check_running(self._state(self.instance_id))
        runner, reply_to = self._runner, asking.reply_to
        service = runner.service
        given = self._encode({**asking.reply_input, "limit": timeout})
        request = pb.CreateInstanceRequest(instanceId=reply_to, name=hosting.REPLY_WORKFLOW, input=given)
        await runner.call(service.StartInstance, request)
        reply = WorkflowHandle(runner, reply_to)
        try:
            await self.raise_event(asking.event, asking.payload)
            await runner.wait_until(lambda: reply.status in _ENDED or self.status in _ENDED, self._describe_waiting)
            if reply.status not in _ENDED:
                for _ in range(2):
                    asking.look_again(self._state(self.instance_id))
            state = self._state(reply_to)
            if state.get_output() is None:
                raise asking.timed_out(self._state(self.instance_id), state)
            return asking.answer(state, return_type)
        finally:
            if reply.status not in _ENDED:
                await reply.terminate()
            await runner.call(service.PurgeInstances, pb.PurgeInstancesRequest(instanceId=reply_to))

    def _state(self, instance_id: str) -> OrchestrationState:
        return parse_orchestration_state(self._runner.instance(instance_id), self._runner.converter)

    async def cancel(self, reason: str | None = None) -> None:
        """Ask the instance to cancel itself: its main task gets `asyncio.CancelledError(reason)`, and can clean up.

        Args:
            reason: the message of the `CancelledError`, and of the failure that the instance ends with.

        Raises:
            durabletask.aio.WorkflowValidationError: if the reason is no text.
        """
        await request_cancellation(_EventSender(self), self.instance_id, reason)

    async def terminate(self, output: Any = None, *, recursive: bool = True) -> None:
        """End the instance from outside.

        Args:
            output: the output of the instance, encoded by the data converter.
            recursive: whether to terminate its sub-orchestrations too.
        """
        request = pb.TerminateRequest(instanceId=self.instance_id, output=self._encode(output), recursive=recursive)
        await self._runner.call(self._runner.service.TerminateInstance, request)

    async def suspend(self, reason: str | None = None) -> None:
        """Suspend the instance: what happens is kept for it until `resume`.  Time continues to pass.

        Args:
            reason: recorded in the history.
        """
        request = pb.SuspendRequest(instanceId=self.instance_id, reason=helpers.get_string_value(reason))
        await self._runner.call(self._runner.service.SuspendInstance, request)

    async def resume(self, reason: str | None = None) -> None:
        """Resume a suspended instance with what has happened meanwhile.

        Args:
            reason: recorded in the history.
        """
        request = pb.ResumeRequest(instanceId=self.instance_id, reason=helpers.get_string_value(reason))
        await self._runner.call(self._runner.service.ResumeInstance, request)

    def _encode(self, value: Any) -> Any:
        return helpers.get_string_value(self._runner.converter.serialize(value))

    # -- properties -----------------------------------------------------------------------------------------------

    @property
    def _instance(self) -> pb.OrchestrationState:
        return self._runner.instance(self.instance_id)

    @property
    def status(self) -> OrchestrationStatus:
        """The status of the instance."""
        status = self._runner.status(self.instance_id)
        assert status is not None
        return OrchestrationStatus(status)

    @property
    def custom_status(self) -> Any:
        """The custom status that the workflow set last, as plain data; `None` if it set none."""
        return self._runner.converter.deserialize(self._instance.customStatus.value or None)

    @property
    def history(self) -> History:
        """The history of the latest execution so far."""
        return self._runner.history(self.instance_id)

    @property
    def waiting_for(self) -> list[str]:
        """Descriptions of the operations and events that the instance waits for, in the order of scheduling."""
        return _outstanding(self._runner, self.instance_id)

    def _describe_waiting(self) -> str:
        return describe_waiting(self._runner, self.instance_id)

    def __repr__(self) -> str:
        return f"<WorkflowHandle of {self._instance.name!r} {self.instance_id!r}: {self.status.name}>"


class _EventSender:
    """A handle as the client that `request_cancellation` takes."""

    def __init__(self, handle: WorkflowHandle) -> None:
        self._handle = handle

    async def raise_orchestration_event(self, instance_id: str, event_name: str, *, data: Any | None = None) -> None:
        await self._handle.raise_event(event_name, data)
