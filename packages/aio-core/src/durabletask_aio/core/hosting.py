"""What a host of workflows needs of the core: the one module that worker, test kit and engine import of its inside.

A host takes turns from an engine and runs them.  It tells the kind of a registered function (`function_kind`), runs
each turn with a `TurnExecutor` inside of a `turn_scope`, keeps or disposes the `WorkflowRun` objects that the scope
lists, and describes failures with `failure_details`.  Everything else in the core may change without notice.

`VERSION` is raised whenever a name below changes in a way that an older companion would not survive.  A companion calls
`require_version` when it is imported.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from durabletask_aio.core import installation, registration
from durabletask_aio.core.activity_results import serialize_activity_result
from durabletask_aio.core.call_sites import waiting_line
from durabletask_aio.core.cancellation import CANCEL_EVENT, cancel_payload, cancellation_reason, is_cancellation
from durabletask_aio.core.disposal import TurnScope, turn_scope
from durabletask_aio.core.driver import WorkflowRun
from durabletask_aio.core.errors import message_of
from durabletask_aio.core.execution import Execution
from durabletask_aio.core.failures import is_recordable, recordable
from durabletask_aio.core.functions import (
    FunctionKind,
    OrchestratorInfo,
    check_functions,
    describe_function,
    function_kind,
    function_name,
    orchestrator_info,
    unwrap_partial,
)
from durabletask_aio.core.journal import StepRunner, describe_record, is_deprecated_patch
from durabletask_aio.core.loop import WorkflowLoop
from durabletask_aio.core.metadata import from_tags as metadata_from_tags
from durabletask_aio.core.metadata import to_tags as metadata_to_tags
from durabletask_aio.core.recorded_events import EventReader, RecordedEvent
from durabletask_aio.core.registration_checks import (
    annotated_kind,
    check_is_function,
    check_is_no_activity,
    check_is_no_workflow,
    check_name_is_free,
    check_takes_input,
)
from durabletask_aio.core.replies import REPLY_WORKFLOW, reply
from durabletask_aio.core.stack_traces import describe_failure
from durabletask_aio.core.turn_executor import (
    TurnAborted,
    TurnDiverged,
    TurnExecutor,
    TurnPaused,
    activity_failure_details,
    failure_details,
)
from durabletask_aio.core.unregistered import describe_unregistered
from durabletask_aio.core.validation import validate_workflow_function
from durabletask_aio.core.waits import Wait, waits
from durabletask_aio.core.workflow_logger import VisibleLogger

if TYPE_CHECKING:
    from durabletask_aio.core.asking import Asking
    from durabletask_aio.core.plugins import Registrar

__all__ = [
    "CANCEL_EVENT",
    "REPLY_WORKFLOW",
    "VERSION",
    "EventReader",
    "Execution",
    "FunctionKind",
    "OrchestratorInfo",
    "RecordedEvent",
    "StepRunner",
    "TurnAborted",
    "TurnDiverged",
    "TurnExecutor",
    "TurnPaused",
    "TurnScope",
    "VisibleLogger",
    "Wait",
    "WorkflowRun",
    "activity_failure_details",
    "annotated_kind",
    "cancel_payload",
    "cancellation_reason",
    "check_functions",
    "check_is_function",
    "check_is_no_activity",
    "check_is_no_workflow",
    "check_name_is_free",
    "check_takes_input",
    "describe_failure",
    "describe_function",
    "describe_record",
    "describe_unregistered",
    "failure_details",
    "function_kind",
    "function_name",
    "is_cancellation",
    "is_deprecated_patch",
    "is_recordable",
    "message_of",
    "metadata_from_tags",
    "metadata_to_tags",
    "orchestrator_info",
    "recordable",
    "reply",
    "request_to",
    "require_version",
    "running_execution",
    "serialize_activity_result",
    "set_registrar",
    "submitted_step",
    "turn_scope",
    "unset_registrar",
    "unwrap_partial",
    "validate_workflow_function",
    "waiting_line",
    "waits",
]

VERSION = 1
"""The version of this module's interface."""


def require_version(version: int, distribution: str) -> None:
    """Check that a companion was written for this version of the core.

    Args:
        version: the `VERSION` that the companion was written for.
        distribution: the companion's distribution, for the message.

    Raises:
        ImportError: if the versions differ; the message names both distributions and the line to install.
    """
    if version == VERSION:
        return
    core = installation.CORE
    raise ImportError(
        f"{distribution} {installation.version(distribution)} was written for version {version} of the core's hosting "
        f"interface, and {core} {installation.version(core)} has version {VERSION}\n"
        f"  pip install --upgrade {core} {distribution}"
    )


def request_to(instance_id: str, name: str, data: Any, timeout: float | None) -> Asking:
    """Return a request to an instance, for a host that sends it and waits for the answer itself.

    Raises:
        WorkflowValidationError: if the name is no string, or empty.
        TypeError, ValueError: if the timeout is no number of seconds to wait.
    """
    # Not above: it imports upstream's clients, which no worker needs.
    from durabletask_aio.core.asking import Asking

    return Asking(instance_id, name, data, timeout)


def running_execution() -> Execution | None:
    """Return the execution whose workflow code is on this thread's stack, or `None` if there is none."""
    loop = _running_loop()
    return None if loop is None else loop.execution


def submitted_step() -> tuple[str, int] | None:
    """Return the instance and the number of a step, within the call of `StepRunner.submit` for it.

    Returns:
        Both; `None` anywhere else.
    """
    loop = _running_loop()
    if loop is None or loop.journal is None or not loop.journal.running:
        return None
    return loop.execution.instance_id, next(reversed(loop.journal.running))


def _running_loop() -> WorkflowLoop | None:
    try:
        loop: Any = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if isinstance(loop, WorkflowLoop) else None


def set_registrar(registrar: Registrar) -> None:
    """Have upstream's `TaskHubGrpcWorker` hand async functions to `registrar`, on every instance of that class."""
    registration.install(registrar)


def unset_registrar() -> None:
    """Put upstream's own registration methods back."""
    registration.uninstall()
