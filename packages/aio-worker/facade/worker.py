"""Workers for async orchestrators and activities.

The implementation is in `durabletask_aio.worker`; this file is its public import path.
"""

from typing import TYPE_CHECKING

# The core first, so that its absence is reported with the line for pip, and not somewhere inside of the worker.
# Not `import durabletask.aio`: without the core's facade that is a namespace package, which can be imported.
try:
    import durabletask_aio.core as _core
except ModuleNotFoundError as error:
    if error.name not in ("durabletask_aio", "durabletask_aio.core"):
        raise
    raise ImportError(
        "durabletask.aio.worker needs durabletask-aio-core, which is not installed: pip install durabletask-aio-core"
    ) from error

from durabletask_aio.worker.activity_context import ActivityContext
from durabletask_aio.worker.metadata import MetadataInterceptor, to_tags
from durabletask_aio.worker.options import WorkerOptions
from durabletask_aio.worker.registration import install, uninstall
from durabletask_aio.worker.sessions import ExtendedSessionStats
from durabletask_aio.worker.worker import AsyncOrchestratorMixin, TaskHubGrpcWorker

if TYPE_CHECKING:
    from durabletask_aio.worker.tracer_provider import WorkflowTracerProvider as WorkflowTracerProvider

__all__ = [
    "ActivityContext",
    "AsyncOrchestratorMixin",
    "ExtendedSessionStats",
    "MetadataInterceptor",
    "TaskHubGrpcWorker",
    "WorkerOptions",
    "install",
    "to_tags",
    "uninstall",
]

del _core


def __getattr__(name: str) -> object:
    # Imported on first use, and not in `__all__`: it is the only name here that needs OpenTelemetry's SDK.
    if name != "WorkflowTracerProvider":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from durabletask_aio.worker.tracer_provider import WorkflowTracerProvider
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise ImportError(
            "WorkflowTracerProvider needs OpenTelemetry's SDK, which is not installed: "
            'pip install "durabletask[opentelemetry]"'
        ) from error
    return WorkflowTracerProvider
