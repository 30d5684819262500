"""Upstream's recurring schedules, `durabletask.scheduled`, on this engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from channel_support import wait_until
from durabletask.scheduled import (
    ScheduleCreationOptions,
    ScheduledTaskClient,
    ScheduleStatus,
    ScheduleUpdateOptions,
)

from durabletask_aio.engine.embedded import Engine

pytest.importorskip("durabletask_aio.worker", reason="the workflows need durabletask-aio-worker")

SECOND = timedelta(seconds=1)


class Ticks:
    """Runs of a scheduled workflow, over restarts of the engine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inputs: list[Any] = []

    def tick(self, ctx: Any, value: Any) -> None:
        """Count."""
        with self._lock:
            self.inputs.append(value)

    def more(self, number: int) -> None:
        """Wait for some more runs."""
        wanted = len(self.inputs) + number
        wait_until(lambda: len(self.inputs) >= wanted)


async def job(ctx: Any, value: Any) -> None:
    await ctx.call_activity("tick", input=value)


@contextmanager
def running(path: Path, ticks: Ticks) -> Iterator[ScheduledTaskClient]:
    with Engine(path) as engine, engine.worker() as worker:
        worker.add_orchestrator(job)
        worker.add_activity(ticks.tick)
        worker.configure_scheduled_tasks()
        worker.start()
        yield ScheduledTaskClient(engine.client())


def test_a_schedule_runs_until_it_is_deleted_over_a_restart_of_the_engine(tmp_path: Path) -> None:
    path, ticks = tmp_path / "engine.db", Ticks()
    with running(path, ticks) as client:
        schedule = client.create_schedule(
            ScheduleCreationOptions(
                schedule_id="every-second", orchestration_name="job", interval=SECOND, orchestration_input=7
            )
        )
        ticks.more(2)
        assert schedule.describe().status is ScheduleStatus.ACTIVE

    with running(path, ticks) as client:
        ticks.more(1)
        schedule = client.get_schedule_client("every-second")
        schedule.pause()
        assert schedule.describe().status is ScheduleStatus.PAUSED
        schedule.update(ScheduleUpdateOptions(orchestration_input=8))
        schedule.resume()
        wait_until(lambda: 8 in ticks.inputs)
        assert [each.schedule_id for each in client.list_schedules()] == ["every-second"]
        schedule.delete()
        assert client.get_schedule("every-second") is None
    assert set(ticks.inputs) == {7, 8}
