"""async/await for durable workflows: the public names of `durabletask-aio-core`.

This file is installed into Microsoft's `durabletask` package; what it exports lives in `durabletask_aio.core`.
Importing it lets upstream's `TaskHubGrpcWorker` accept `async def` workflows, through `durabletask-aio-worker` if
that is installed, and otherwise makes it refuse them with a sentence.
"""

from durabletask_aio import families as _families

# First: the core takes its executor from the family that is chosen when it is imported.
_families.choose(_families.MICROSOFT)

from durabletask_aio.core import (
    ActivityFailedError,
    AsyncWorkflowContext,
    AsyncWorkflowError,
    DeadlockError,
    EventStream,
    HeldLock,
    HistoryDivergenceError,
    InstanceEvicted,
    NonDeterminismWarning,
    NonDeterministicUseError,
    Operation,
    Request,
    RequestStream,
    RetryPolicy,
    SandboxMode,
    SandboxViolationError,
    StepBudgetError,
    StepFailedError,
    SubOrchestrationFailedError,
    TurnTimeoutError,
    UnsupportedInWorkflowError,
    WorkflowCancelledError,
    WorkflowFunction,
    WorkflowTimeoutError,
    WorkflowValidationError,
    as_orchestrator,
    raises,
    request_cancellation,
)
from durabletask_aio.core import registration as _registration

__all__ = [
    "ActivityFailedError",
    "AsyncWorkflowContext",
    "AsyncWorkflowError",
    "DeadlockError",
    "EventStream",
    "HeldLock",
    "HistoryDivergenceError",
    "InstanceEvicted",
    "NonDeterminismWarning",
    "NonDeterministicUseError",
    "Operation",
    "Request",
    "RequestStream",
    "RetryPolicy",
    "SandboxMode",
    "SandboxViolationError",
    "StepBudgetError",
    "StepFailedError",
    "SubOrchestrationFailedError",
    "TurnTimeoutError",
    "UnsupportedInWorkflowError",
    "WorkflowCancelledError",
    "WorkflowFunction",
    "WorkflowTimeoutError",
    "WorkflowValidationError",
    "as_orchestrator",
    "raises",
    "request_cancellation",
]

_registration.install(_registration.LateRegistrar())
