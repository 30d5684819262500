"""`VirtualTimeExecutor`: the core's turn executor, with the retries of generators on the workflow's clock."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from durabletask.serialization import DataConverter

from durabletask_aio.core import hosting
from durabletask_aio.testing._upstream import pb, retry_on_workflow_clock
from durabletask_aio.testing.registry import Registry

silent_logger = logging.getLogger("durabletask.aio.testing.silent")
"""For upstream's executors, which would log what the test reports anyway."""

silent_logger.disabled = True
# Upstream goes by the level alone when it decides whether to compose a summary of each turn.
silent_logger.setLevel(logging.CRITICAL)


class VirtualTimeExecutor(hosting.TurnExecutor):
    """Runs the turns of one instance on a clock that is not the machine's.

    For async workflows the core measures the retry timeout on the workflow's clock.  For generators, which the core
    leaves to upstream, upstream compares it with the machine's clock, on which virtual time does not pass.
    """

    def __init__(self, registry: Registry, converter: DataConverter, maximum_timer_interval: timedelta | None) -> None:
        super().__init__(registry, silent_logger, converter, maximum_timer_interval=maximum_timer_interval)

    def process_event(self, ctx: Any, event: pb.HistoryEvent) -> None:
        if event.HasField("taskFailed"):
            retry_on_workflow_clock(ctx, event.taskFailed.taskScheduledId)
        elif event.HasField("subOrchestrationInstanceFailed"):
            retry_on_workflow_clock(ctx, event.subOrchestrationInstanceFailed.taskScheduledId)
        super().process_event(ctx, event)
