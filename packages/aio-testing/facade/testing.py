"""``durabletask.aio.testing``: the test kit.  The implementation is in ``durabletask_aio.testing``."""

try:
    import durabletask_aio.core as _core
    import durabletask_aio.worker as _worker
except ModuleNotFoundError as error:
    for _part in ("core", "worker"):
        if error.name == f"durabletask_aio.{_part}":
            raise ImportError(
                f"durabletask.aio.testing needs durabletask-aio-{_part}, which is not installed: "
                f"pip install durabletask-aio-{_part}"
            ) from error
    raise

from durabletask_aio.testing import LocalBackend, local_backend

__all__ = ["LocalBackend", "local_backend"]

del _core, _worker
