"""``durabletask.aio.testing``: the test kit.  The implementation is in ``durabletask_aio.testing``."""

try:
    import durabletask_aio.core as _core
except ModuleNotFoundError as error:
    if error.name not in ("durabletask_aio", "durabletask_aio.core"):
        raise
    raise ImportError(
        "durabletask.aio.testing needs durabletask-aio-core, which is not installed: pip install durabletask-aio-core"
    ) from error

from durabletask_aio.testing import LocalBackend, local_backend

__all__ = ["LocalBackend", "local_backend"]

del _core
