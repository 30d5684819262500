"""The test kit: an environment on a virtual clock, replay, histories and the local engine.

The implementation is in `durabletask_aio.testing`; this file is its public import path.
"""

# The other packages first, so that their absence is reported with the line for pip, and not somewhere inside.
try:
    import durabletask_aio.core as _core
    import durabletask_aio.engine as _engine
    import durabletask_aio.worker as _worker
except ModuleNotFoundError as error:
    for _part in ("core", "worker", "engine"):
        if error.name == f"durabletask_aio.{_part}":
            raise ImportError(
                f"durabletask.aio.testing needs durabletask-aio-{_part}, which is not installed: "
                f"pip install durabletask-aio-{_part}"
            ) from error
    raise

from durabletask_aio.testing import (
    NEVER,
    ActivityCall,
    History,
    HistoryFormatError,
    LocalBackend,
    ReplayError,
    ReplayReport,
    Stub,
    StubExhaustedError,
    WorkflowEnvironment,
    WorkflowHandle,
    WorkflowStuckError,
    WorkflowTerminatedError,
    local_backend,
    replay,
    verify_deterministic,
)

__all__ = [
    "NEVER",
    "ActivityCall",
    "History",
    "HistoryFormatError",
    "LocalBackend",
    "ReplayError",
    "ReplayReport",
    "Stub",
    "StubExhaustedError",
    "WorkflowEnvironment",
    "WorkflowHandle",
    "WorkflowStuckError",
    "WorkflowTerminatedError",
    "local_backend",
    "replay",
    "verify_deterministic",
]

del _core, _engine, _worker
