"""The logger of a workflow, which is silent while the workflow replays."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durabletask_aio.core.execution import Execution

    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # not subscriptable at run time before 3.11

LOGGER_NAME = "durabletask.aio"


class ReplaySafeLogger(_Adapter):
    """Logs to `durabletask.aio`, or to the logger given, unless the workflow is replaying.

    Records carry `instance_id` and `workflow_name` as attributes, and their messages begin with both.
    """

    def __init__(self, execution: Execution, logger: logging.Logger | None = None) -> None:
        extra = {"instance_id": execution.instance_id, "workflow_name": execution.workflow_name}
        super().__init__(logger or logging.getLogger(LOGGER_NAME), extra)
        self._execution = execution

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name that logging calls
        """Whether a record of this level would be logged now; never while the workflow is replaying."""
        return not self._execution.is_replaying and self.logger.isEnabledFor(level)

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        """Add workflow and instance to a message and its record; called by `logging`."""
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return f"{self._execution.workflow_name} {self._execution.instance_id}: {msg}", kwargs
