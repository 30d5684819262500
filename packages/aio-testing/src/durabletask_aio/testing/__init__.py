"""The test kit of durabletask-aio.

==================  ===============================================================
``local``           the local engine behind gRPC, loopback only: ``local_backend``
``dev``             ``durabletask-aio dev``
``pytest_plugin``   fixtures
``engine``          upstream's in-memory state machine, on a clock of our choice
``handouts``        work items on their way, and how they come back
``clock``           the machine's clock, and one that is moved by hand
``_upstream``       every private name of ``durabletask`` used here
==================  ===============================================================
"""

from __future__ import annotations

from durabletask_aio.testing.local import LocalBackend, local_backend

__all__ = ["LocalBackend", "local_backend"]

LocalBackend.__module__ = local_backend.__module__ = "durabletask.aio.testing"
