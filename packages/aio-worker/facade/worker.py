"""Workers for async orchestrators and activities.

The implementation lives in ``durabletask_aio.worker``; this file is its public import path.
"""

# The core first: a half-uninstalled set of distributions then fails with the line for pip, and not somewhere inside.
try:
    import durabletask.aio as _core
except ImportError as error:
    raise ImportError(
        "durabletask.aio.worker needs durabletask-aio-core, which is not installed or not complete "
        f"({error}): pip install durabletask-aio-core"
    ) from error

from durabletask_aio.worker.activities import ActivityContext
from durabletask_aio.worker.metadata import MetadataInterceptor, to_tags
from durabletask_aio.worker.registration import install, uninstall
from durabletask_aio.worker.sessions import ExtendedSessionStats
from durabletask_aio.worker.worker import AsyncOrchestratorMixin, TaskHubGrpcWorker

__all__ = [
    "ActivityContext",
    "AsyncOrchestratorMixin",
    "ExtendedSessionStats",
    "MetadataInterceptor",
    "TaskHubGrpcWorker",
    "install",
    "to_tags",
    "uninstall",
]

for _name in __all__:
    globals()[_name].__module__ = __name__
del _core, _name
