"""Mistakes that are refused where they are made, except in code whose run has been recorded.

Releases up to 0.1 let some mistakes pass: an operation as text, its comparison with a dataclass, an operation of a
strict workflow that is never awaited.  An instance that has continued after one does so on every later replay, as its
history says: while it replays, the mistake is a warning.

What decides must be the same on each replay.  So a mistake that is refused always fails the instance, in that turn and
whatever its code catches (`Execution.refusal`): if there is more to replay after it, a release that let it pass has
recorded the history.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from durabletask_aio.core._interpreter import calling_frame
from durabletask_aio.core.workflow_logger import LOGGER_NAME, configured

if TYPE_CHECKING:
    from types import FrameType

    from durabletask_aio.core.errors import WorkflowValidationError
    from durabletask_aio.core.execution import Execution

_MAX_WARNINGS = 1000
"""Lines of code for which a process remembers that it has warned."""


def refuse_unless_recorded(execution: Execution, error: WorkflowValidationError) -> None:
    """Refuse a mistake that the code of a workflow makes now, and warn of one that it has made before.

    Args:
        execution: the execution whose code makes it.
        error: what it is.

    Raises:
        WorkflowValidationError: `error`, unless the code is replaying.  It fails the instance even if it is caught, but
            not if the caller is `logging`, which reports the errors of its handlers itself.
    """
    if not execution.attached:  # not code of the workflow
        raise error
    if execution.is_replaying:
        warn_of_recorded(error)
        return
    if execution.refusal is None and not _is_logging(calling_frame(2)):
        execution.refusal = error
    raise error


def warn_of_recorded(error: WorkflowValidationError) -> None:
    """Log a mistake that a replay has met, once for each line of code in a process."""
    _warn(error.message)


@functools.lru_cache(_MAX_WARNINGS)
def _warn(message: str) -> None:
    configured(logging.getLogger(LOGGER_NAME)).warning(
        "An instance that has continued after this mistake is replayed as it was recorded: %s", message
    )


def _is_logging(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") == logging.__name__:
            return True
        frame = frame.f_back
    return False
