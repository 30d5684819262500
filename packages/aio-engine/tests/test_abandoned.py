"""Items that a worker gives back, and instances that end before their start."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from durabletask.aio.engine import Engine
from durabletask.client import OrchestrationStatus
from durabletask.worker import VersionFailureStrategy, VersioningOptions, VersionMatchStrategy


def test_an_abandoned_item_goes_to_another_worker() -> None:
    """A worker that serves other versions abandons a turn each time it gets it."""

    async def order(ctx, _):
        return "ran"

    with Engine() as engine:
        workers = []
        for version in ("1.0.0", "2.0.0"):
            worker = engine.worker()
            worker.use_versioning(
                VersioningOptions(
                    version=version,
                    match_strategy=VersionMatchStrategy.STRICT,
                    failure_strategy=VersionFailureStrategy.REJECT,
                )
            )
            worker.add_orchestrator(order)
            worker.start()
            workers.append(worker)
        client = engine.client()
        ids = [client.schedule_new_orchestration(order, version=f"{n % 2 + 1}.0.0") for n in range(10)]
        states = [client.wait_for_orchestration_completion(each, timeout=30) for each in ids]
        for worker in workers:
            worker.stop()

    assert [state and state.get_output() for state in states] == ["ran"] * 10


def test_an_instance_that_is_terminated_before_its_start_runs_no_code() -> None:
    ran = []

    async def order(ctx, _):
        ran.append(1)

    with Engine() as engine, engine.worker() as worker:
        worker.add_orchestrator(order)
        worker.start()
        client = engine.client()
        later = datetime.now(timezone.utc) + timedelta(hours=1)
        instance_id = client.schedule_new_orchestration(order, start_at=later)
        client.terminate_orchestration(instance_id, output="not today")
        state = client.wait_for_orchestration_completion(instance_id, timeout=30)

        assert state is not None
        assert (state.runtime_status, state.get_output()) == (OrchestrationStatus.TERMINATED, "not today")
        assert ran == []
        assert engine.management().statistics().timers == 0
