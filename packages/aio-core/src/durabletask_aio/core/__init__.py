"""The core of durabletask-aio; its public import path is ``durabletask.aio``.

A map for the reader, from the outside in:

``context``        what workflow code sees; thin; ``arguments`` is what it refuses at the line of the call
``operations``     the futures it awaits; ``combinators`` and ``events`` build on them
``loop``           the asyncio event loop all of it runs on; ``refusals`` is what that loop says no to
``driver``         makes an orchestrator of a coroutine function, and takes it through its turns
``disposal``       closes instances that will not go on; ``host`` explains why that takes care
``failures``       how an exception leaves a workflow; ``errors`` are the types
``state``          what belongs to one execution: ``deterministic``, ``cleanup``, ``metadata``, ``debug`` hold the parts
``validation``, ``registration``, ``installation``   what is checked before anything runs
``plugins``        how sandbox, worker and test kit are found
``sites``          where in the user's code something was called
``_upstream``, ``_interpreter``   every private name of durabletask and of asyncio that is touched
"""

from __future__ import annotations

from durabletask_aio.core import installation

# Before anything of upstream's is imported that an unfit one may not have; the companions import us first.
installation.glance()

from durabletask.task import RetryPolicy

from durabletask_aio.core.context import AsyncWorkflowContext
from durabletask_aio.core.driver import as_orchestrator
from durabletask_aio.core.errors import (
    ActivityFailedError,
    AsyncWorkflowError,
    DeadlockError,
    HistoryDivergenceError,
    InstanceEvicted,
    NonDeterminismWarning,
    NonDeterministicUseError,
    SandboxViolationError,
    StepBudgetError,
    SubOrchestrationFailedError,
    UnsupportedInWorkflowError,
    WorkflowTimeoutError,
    WorkflowValidationError,
)
from durabletask_aio.core.events import EventStream
from durabletask_aio.core.operations import HeldLock, Operation
from durabletask_aio.core.settings import SandboxMode
from durabletask_aio.core.workflow import WorkflowFunction

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
    "RetryPolicy",
    "SandboxMode",
    "SandboxViolationError",
    "StepBudgetError",
    "SubOrchestrationFailedError",
    "UnsupportedInWorkflowError",
    "WorkflowFunction",
    "WorkflowTimeoutError",
    "WorkflowValidationError",
    "as_orchestrator",
]

# Tracebacks, pickles and the documentation then show the names that users import.
for _public in (AsyncWorkflowContext, EventStream, HeldLock, Operation, SandboxMode, WorkflowFunction, as_orchestrator):
    _public.__module__ = "durabletask.aio"
del _public
