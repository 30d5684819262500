"""Purges what ended long ago, if a retention is set."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from durabletask_aio.engine.kernel import Kernel

_logger = logging.getLogger("durabletask.aio.engine")

PURGED_AT_ONCE = 50
"""Roots, with their children, that one transaction purges."""

_PERIOD = 60.0
"""Seconds between two looks for instances that have been kept for long enough."""


class Retention:
    """When the engine's thread looks for instances to purge."""

    def __init__(self) -> None:
        self._next = 0.0

    def apply(self, kernel: Kernel) -> bool:
        """Purge some of what ended long ago, if it is time for it; returns whether there may be more."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _PERIOD
        with kernel.locked() as store:
            age = store.meta("retention")
        if age is None:
            return False
        gone = kernel.execute(lambda transaction: transaction.purge_ended(age * 1_000_000, frozenset(), PURGED_AT_ONCE))
        if not gone:
            return False
        _logger.info("Retention: purged %d instances that ended more than %d s ago", gone, age)
        self._next = 0.0
        return True
