"""The durable engine: orchestrations, activities, timers and entities in one process, with their state in one file.

The implementation is in `durabletask_aio.engine`; this file is its public import path.
"""

# The core first, so that its absence is reported with the line for pip, and not somewhere inside of the engine.
# Not `import durabletask.aio`: without the core's facade that is a namespace package, which can be imported.
try:
    import durabletask_aio.core as _core
except ModuleNotFoundError as error:
    if error.name not in ("durabletask_aio", "durabletask_aio.core"):
        raise
    raise ImportError(
        "durabletask.aio.engine needs durabletask-aio-core, which is not installed: pip install durabletask-aio-core"
    ) from error

from durabletask_aio.engine.bearer import BearerToken
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.management.client import EngineClient
from durabletask_aio.engine.server import Access, Server
from durabletask_aio.engine.store import StoreError
from durabletask_aio.engine.web.waiting import Awaited, WaitingUnknownError

__all__ = [
    "Access",
    "Awaited",
    "BearerToken",
    "Engine",
    "EngineClient",
    "Server",
    "StoreError",
    "WaitingUnknownError",
]

del _core
