"""``durabletask.aio.testing``: the test kit.  The implementation is in ``durabletask_aio.testing``."""

try:
    import durabletask.aio as _core
except ImportError as error:
    raise ImportError(
        "durabletask.aio.testing needs the core, which is not installed: pip install durabletask-aio-core"
    ) from error

from durabletask_aio.testing import (
    NEVER,
    ActivityCall,
    History,
    HistoryFormatError,
    LocalBackend,
    Stub,
    StubExhaustedError,
    WorkflowEnvironment,
    WorkflowHandle,
    WorkflowStuckError,
    WorkflowTerminatedError,
    local_backend,
)

__all__ = [
    "NEVER",
    "ActivityCall",
    "History",
    "HistoryFormatError",
    "LocalBackend",
    "Stub",
    "StubExhaustedError",
    "WorkflowEnvironment",
    "WorkflowHandle",
    "WorkflowStuckError",
    "WorkflowTerminatedError",
    "local_backend",
]

del _core
