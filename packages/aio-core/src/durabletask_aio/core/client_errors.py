"""How an instance can end for those who wait for its result; see `handles`."""

from __future__ import annotations

from typing import Any

from durabletask_aio.core._upstream_client import FailureDetails, OrchestrationFailedError
from durabletask_aio.core.errors import AsyncWorkflowError, shown


class WorkflowFailedError(AsyncWorkflowError, OrchestrationFailedError):
    """The result of an instance was requested that has failed.

    The message has the type and the message of the failure, and a line for each of its causes.  It is an
    `OrchestrationFailedError` of upstream too.

    Attributes:
        details: the failure as the engine has it: `error_type`, `message`, `stack_trace`, `inner_failure`.  Its method
            `is_caused_by` compares the type, by name or by class.
        causes: the failures that led to it, the nearest first: its `inner_failure`, that one's, and so on.
    """

    def __init__(self, details: FailureDetails, *, instance_id: str, workflow_name: str | None = None) -> None:
        """Create the error of a failed instance.

        Args:
            details: the failure.
            instance_id: the instance.
            workflow_name: the name under which the workflow is registered.
        """
        self.details = details
        self.causes = _causes(details)
        lines = [f"the workflow failed with {_summary(details)}"]
        lines += [f"  caused by {_summary(cause)}" for cause in self.causes]
        super().__init__("\n".join(lines), instance_id=instance_id, workflow_name=workflow_name)
        # What upstream's constructor sets, which takes other arguments.
        self._failure_details = details


def _summary(details: FailureDetails) -> str:
    return f"{details.error_type}: {details.message}" if details.message else details.error_type


def _causes(details: FailureDetails) -> tuple[FailureDetails, ...]:
    found: list[FailureDetails] = []
    inner = details.inner_failure
    while inner is not None:
        found.append(inner)
        inner = inner.inner_failure
    return tuple(found)


class WorkflowTerminatedError(AsyncWorkflowError, RuntimeError):
    """The result of an instance was requested that has been terminated.

    Attributes:
        output: the output that it was terminated with, as plain data.
    """

    def __init__(self, output: Any, *, instance_id: str, workflow_name: str | None = None) -> None:
        """Create the error of a terminated instance.

        Args:
            output: the output that it was terminated with.
            instance_id: the instance.
            workflow_name: the name under which the workflow is registered.
        """
        self.output = output
        with_output = "" if output is None else f", with the output {shown(output)}"
        super().__init__(
            f"the workflow was terminated{with_output}", instance_id=instance_id, workflow_name=workflow_name
        )


class WorkflowNotFoundError(AsyncWorkflowError, LookupError):
    """There is no instance with this id: it was never started, or it has been purged."""


class RequestRefusedError(AsyncWorkflowError, RuntimeError):
    """The workflow has refused a request of `ask`, or its data.

    Attributes:
        reason: why, as the workflow says.
    """

    def __init__(self, name: str, reason: str, *, instance_id: str) -> None:
        """Create the error of a request that was refused.

        Args:
            name: the name of the request.
            reason: why it was refused.
            instance_id: the instance that was asked.
        """
        self.reason = reason
        super().__init__(f"the request {name!r} was refused: {reason}", instance_id=instance_id)


class RequestUnansweredError(AsyncWorkflowError, RuntimeError):
    """A request of `ask` will not be answered: the instance has ended, or its execution has."""


CLIENT_ERRORS: tuple[type[AsyncWorkflowError], ...] = (
    RequestRefusedError,
    RequestUnansweredError,
    WorkflowFailedError,
    WorkflowNotFoundError,
    WorkflowTerminatedError,
)

for _public in CLIENT_ERRORS:
    _public.__module__ = "durabletask.aio.client"
