"""Clients for workflows: `WorkflowClient`, `AsyncWorkflowClient` and the handles that they return.

The implementation is in `durabletask_aio.core.client`; this file is its public import path.
"""

from durabletask_aio.core.client import (
    AsyncWorkflowClient,
    AsyncWorkflowHandle,
    RequestRefusedError,
    RequestUnansweredError,
    WorkflowClient,
    WorkflowFailedError,
    WorkflowHandle,
    WorkflowNotFoundError,
    WorkflowTerminatedError,
)

__all__ = [
    "AsyncWorkflowClient",
    "AsyncWorkflowHandle",
    "RequestRefusedError",
    "RequestUnansweredError",
    "WorkflowClient",
    "WorkflowFailedError",
    "WorkflowHandle",
    "WorkflowNotFoundError",
    "WorkflowTerminatedError",
]
