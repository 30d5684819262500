"""async/await for Dapr workflows: `WorkflowRuntime` accepts `async def` workflows, which get a `WorkflowContext`.

The modules (a test compares this list with the files):

    runtime: `WorkflowRuntime`, Dapr's runtime that accepts async workflows.
    context: `WorkflowContext`, the core's context with Dapr's names, and refusals of what Dapr lacks.
    client: Dapr's clients, which also send data of events that counts as false.
    turns: executes the turns of a runtime, with sessions.
    _installation: whether Dapr's SDK is installed, and once.
    _upstream_dapr, _upstream_tasks: the dialect of Dapr's executor, for the core.
    _upstream_runtime: the adapter to Dapr's runtime and worker.
    _upstream_client: the adapter to Dapr's clients.
"""

from __future__ import annotations

from durabletask_aio import families
from durabletask_aio.dapr import _installation

_installation.check()
# Before the core is imported, which takes its executor from the family that is chosen by then.
families.choose(families.DAPR)

from dapr.ext.workflow import PropagationScope, TaskFailedError, WorkflowActivityContext
from durabletask_aio.core import (
    ActivityFailedError,
    AsyncWorkflowError,
    DeadlockError,
    Operation,
    RetryPolicy,
    SandboxMode,
    SubOrchestrationFailedError,
    WorkflowTimeoutError,
    WorkflowValidationError,
    raises,
)
from durabletask_aio.dapr.client import AsyncDaprWorkflowClient, DaprWorkflowClient
from durabletask_aio.dapr.context import WorkflowContext
from durabletask_aio.dapr.runtime import WorkflowRuntime

ChildWorkflowFailedError = SubOrchestrationFailedError
"""The failure of a child, under Dapr's word for it."""

__all__ = [
    "ActivityFailedError",
    "AsyncDaprWorkflowClient",
    "AsyncWorkflowError",
    "ChildWorkflowFailedError",
    "DaprWorkflowClient",
    "DeadlockError",
    "Operation",
    "PropagationScope",
    "RetryPolicy",
    "SandboxMode",
    "SubOrchestrationFailedError",
    "TaskFailedError",
    "WorkflowActivityContext",
    "WorkflowContext",
    "WorkflowRuntime",
    "WorkflowTimeoutError",
    "WorkflowValidationError",
    "raises",
]
