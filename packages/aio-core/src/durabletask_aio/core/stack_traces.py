"""Stack traces of failures as a history shows them: the frames of the user's code, and those of the cause."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any

from durabletask_aio.core import _upstream
from durabletask_aio.core._upstream import END, pb, task
from durabletask_aio.core.recorded_types import record_bases

_DESCRIPTION = "_durabletask_aio_description"
"""The attribute of upstream's error for a failed operation in which `set_description` stores the better message."""

_HOST_PACKAGES = ("durabletask.", "durabletask_aio.", "asyncio.", "concurrent.futures.")
_CHAIN_LENGTH = 10


def _is_host(frame: FrameType) -> bool:
    """Whether a frame belongs to what runs user code: the worker, upstream, or a thread pool."""
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.startswith(_HOST_PACKAGES)


def own_traceback(error: BaseException) -> TracebackType | None:
    """Return the traceback of `error` from the first frame of user code on; the whole of it if there is none."""
    found = error.__traceback__
    while found is not None and _is_host(found.tb_frame):
        found = found.tb_next
    return found or error.__traceback__


def set_description(error: task.TaskFailedError, description: str) -> None:
    """Store the message with which `describe_failure` replaces that of `error`."""
    setattr(error, _DESCRIPTION, description)


def describe_failure(actions: Iterable[pb.OrchestratorAction], error: BaseException | None) -> None:
    """Complete the failure details among the actions of a turn, on their way to the engine.

    The actions of a replay are those of the equivalent generator, byte for byte, so they keep upstream's message
    (`Activity task #1 failed: ...`).  Here it becomes that of the exception that the workflow saw, which names
    activity, workflow and instance; and the stack trace gets the frames of the user's code, followed by those of the
    cause.  The types do not change, since replays compare them; the names of their bases are added.

    Args:
        actions: the actions of a response; changed in place.
        error: the exception that failed the workflow, as `TurnExecutor.error` has it.
    """
    if error is None:
        return
    for action in actions:
        end = getattr(action, END)
        if end.HasField("failureDetails"):
            record_bases(end.failureDetails, type(error))
            _describe(end.failureDetails, error)


def _describe(details: pb.TaskFailureDetails, error: BaseException) -> None:
    own = own_traceback(error)
    if own is not None and own is not error.__traceback__:
        details.stackTrace.value = "".join(traceback.format_tb(own)).encode("utf-8", "backslashreplace").decode()
    current: BaseException | None = error
    level = details
    for _ in range(_CHAIN_LENGTH + 1):
        description: Any = getattr(current, "__dict__", {}).get(_DESCRIPTION)
        if description is not None:
            level.errorMessage = description
        if isinstance(current, task.TaskFailedError):
            # Upstream adds the cause only if the workflow has raised this very error, and not another one from it.
            level.innerFailure.CopyFrom(_upstream.details_of(current))
            _append_cause(details, level.innerFailure)
            return
        if not level.HasField("innerFailure"):
            return
        level = level.innerFailure
        if current is not None:
            current = current.__cause__ or current.__context__


def _append_cause(details: pb.TaskFailureDetails, cause: pb.TaskFailureDetails) -> None:
    if cause.stackTrace.value:
        heading = f"Caused by {cause.errorType}: {cause.errorMessage}"
        details.stackTrace.value = f"{details.stackTrace.value.rstrip()}\n{heading}\n{cause.stackTrace.value}"
