"""The core of durabletask-aio; its public import path is `durabletask.aio`.

The modules, from what users see to what they never see (a test compares this list with the files):

What workflow code uses:
    context: `AsyncWorkflowContext`, a few lines per method over the modules below.
    operations: `Operation`, the future that workflow code awaits, and entity locks.
    children: sub-orchestrations that are cancelled together with their operation.
    combinators: `when_all`, `when_any`, `gather`, `with_timeout`.
    events: `ctx.events`, external events as an async iterator.
    requests: `ctx.requests`, requests of clients as an async iterator, and their answers.
    calls: the longer methods of the context.
    step_methods: the methods of the context for steps and patches.
    steps: functions that run in place and are recorded.
    patches: new code for instances that have not come to it.
    arguments, timers: checks of what the context's methods are given.
    cleanup, deterministic, metadata, workflow_logger: what `ctx.add_cleanup`, `ctx.random`, `ctx.get_metadata` and
        `ctx.logger` are made of.
    errors, settings, workflow: the public exception types, the sandbox modes, the type of a workflow function.

What runs it:
    orchestrator: `as_orchestrator`, from a coroutine function to an orchestrator of upstream's.
    driver: `WorkflowRun`, which takes one instance through its turns.
    loop: `WorkflowLoop`, the deterministic event loop.
    async_generators: the asynchronous generators of an instance, which are closed with it.
    cancel_deliveries: keeps a cancel scope of anyio from keeping a turn busy.
    unawaited: operations that a workflow never awaited.
    usage_refusals: mistakes that are refused, except in code whose run has been recorded.
    refusals: the methods of an event loop that a workflow's loop refuses.
    asyncio_order: uses of asyncio whose order would depend on memory addresses.
    execution: `Execution`, identity, clock, lifecycle and the connection to upstream's context.
    detached: what stands in for upstream's context while no workflow code runs.
    cancellation: the request to cancel an instance, as an event, and the failure that the instance ends with.
    cancel_requests: recognises the requests on arrival, and cancels the main task.
    open_requests: the requests of clients that an execution has not answered, and what becomes of them at its end.
    replies: reserved names and payloads of requests and answers, and the workflow that passes on an answer.
    journal: the records of steps and patches in the history, look-ahead and order.
    recorded_events: what the events stand for with which steps, patches and requests are recorded.
    continuation: the arguments of `continue_as_new` until the function returns.
    retries: `RetryPolicy`, and when a failed activity is tried again.
    rewinding: what a rewind takes out of the history of a failed instance.
    disposal: closes the coroutines of instances that will not be continued.

What clients use, with the public import path `durabletask.aio.client`:
    client: `WorkflowClient` and `AsyncWorkflowClient`, which start workflows.
    handles: the handles of instances that they return.
    asking: `ask` of the handles, a request to an instance and its answer.
    client_errors: how an instance can end for those who wait for its result.

How data is written and read, with the public import path `durabletask.aio.data`:
    data: the converters by name, each imported with its library.
    converters: the JSON form of common types, and what the converters have in common.
    cattrs_converter, pydantic_converter: `CattrsDataConverter` and `PydanticDataConverter`.

What is said about it:
    failures, stack_traces: what the history records of an exception.
    recorded_types: whether a recorded failure is of an exception type.
    declared_failures: `raises`, and failures that are also of a type of the user's.
    failed_attempts: the log lines about failed activities and sub-orchestrations.
    wrong_calls: what to write in place of a call of the context that Python refused.
    unregistered: names that no function is registered under.
    divergence: the error for a history that does not fit the code.
    waits: what the code of a suspended instance waits for, and where.
    activity_results: results of activities that cannot be serialised.
    serialization, descriptions, call_sites, operation_log: parts of messages and of the debug info.

What is checked before it runs:
    functions, validation: kind and name of a function; whether it can be a workflow.
    registration, registration_checks: the methods of upstream's worker that accept async functions; mistakes in what
        they are given.
    installation, distributions: whether the installed distributions fit; how they are found.

For other packages and for upstream:
    hosting, turn_executor: what a host of workflows needs: the worker, the test kit, an engine.
    plugins: the protocols of the entry points.
    cli, command_line: the command `durabletask-aio`; what its sub-commands share.
    _upstream, _upstream_activities, _upstream_events, _upstream_journal, _upstream_retries: the adapters to upstream's
        executor.
    _upstream_registry: that to the registry of a worker.
    _upstream_dialect, _upstream_microsoft: what differs between the executors of Microsoft's SDK and of Dapr's.
    _upstream_client, _upstream_data: the adapters to upstream's clients and to its data converters.
    _interpreter, _compat_anyio: the adapters to CPython and anyio.
"""

from __future__ import annotations

from durabletask_aio.core import installation

# First, because an upstream that does not fit may lack what the modules below import.
installation.quick_check()

from durabletask_aio.core.cancellation import request_cancellation
from durabletask_aio.core.context import AsyncWorkflowContext
from durabletask_aio.core.declared_failures import raises
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
    StepFailedError,
    SubOrchestrationFailedError,
    TurnTimeoutError,
    UnsupportedInWorkflowError,
    WorkflowCancelledError,
    WorkflowTimeoutError,
    WorkflowValidationError,
)
from durabletask_aio.core.events import EventStream
from durabletask_aio.core.operations import HeldLock, Operation
from durabletask_aio.core.orchestrator import as_orchestrator
from durabletask_aio.core.requests import Request, RequestStream
from durabletask_aio.core.retries import RetryPolicy
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

# Tracebacks, pickles and the documentation show the names that users import.
for _public in (
    AsyncWorkflowContext,
    EventStream,
    HeldLock,
    Operation,
    Request,
    RequestStream,
    RetryPolicy,
    SandboxMode,
    WorkflowFunction,
    as_orchestrator,
    raises,
    request_cancellation,
):
    _public.__module__ = "durabletask.aio"
del _public
