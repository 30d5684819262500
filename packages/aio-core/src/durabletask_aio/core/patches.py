"""Patches: new code for the instances that have not come to it, and the old code for those that have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from durabletask_aio.core import arguments
from durabletask_aio.core.journal import NO_HOST, refusal

if TYPE_CHECKING:
    from durabletask_aio.core.execution import Execution
    from durabletask_aio.core.loop import WorkflowLoop


def patched(execution: Execution, loop: WorkflowLoop, patch: str, method: str) -> bool:
    """Ask for a patch; see `AsyncWorkflowContext.patched` and `deprecate_patch`, which is `method`."""
    arguments.check_text(execution, patch, "the name of a patch", f"ctx.{method}(")
    upstream = execution.scheduler(method)
    if loop.journal is None:
        raise refusal(execution, method, NO_HOST)
    loop.journal.check_host(execution, method)
    return loop.journal.patched(patch, upstream, deprecated=method == "deprecate_patch")
