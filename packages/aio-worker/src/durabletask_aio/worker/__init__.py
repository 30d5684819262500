"""The worker of durabletask-aio; its public import path is `durabletask.aio.worker`."""

from durabletask_aio.core.hosting import require_version

require_version(1, "durabletask-aio-worker")
