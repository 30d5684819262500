"""Mistakes of a first day, on a worker: each says what was wrong, where, and what to write."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from worker_support import run, started

from durabletask_aio.testing.local import LocalBackend


def charge(_: Any, item: str) -> str:
    return f"receipt of {item}"


async def forgets(ctx: Any, item: str) -> str:
    receipt = ctx.call_activity(charge, input=item)
    await ctx.sleep(0)
    return "done" if receipt is not None else "never"


@pytest.mark.parametrize("sessions", [0, 10])
@pytest.mark.parametrize("mode", ["off", "best_effort"])
def test_an_operation_that_is_never_awaited_is_one_warning(
    engine: LocalBackend, client: TaskHubGrpcClient, caplog: pytest.LogCaptureFixture, sessions: int, mode: str
) -> None:
    worker = started(engine, charge, orchestrators=[forgets], sandbox_mode=mode, max_extended_sessions=sessions)
    try:
        with caplog.at_level(logging.WARNING, "durabletask.aio"):
            state = run(client, "forgets", "tea")
    finally:
        worker.stop()

    assert state.runtime_status == OrchestrationStatus.COMPLETED
    (warning,) = [each.getMessage() for each in caplog.records if "never awaited" in each.getMessage()]
    line = forgets.__code__.co_firstlineno + 1
    assert warning == (
        f"forgets {state.instance_id}: activity 'charge' ({__file__}:{line}) was never awaited, and the workflow "
        f"returned without waiting for it\n"
        f"  wrong: ctx.call_activity('charge')\n"
        f"  right: await ctx.call_activity('charge')"
    )


@pytest.mark.parametrize("sessions", [0, 10])
def test_an_operation_that_is_never_awaited_fails_a_strict_workflow(
    engine: LocalBackend, client: TaskHubGrpcClient, sessions: int
) -> None:
    worker = started(engine, charge, orchestrators=[forgets], sandbox_mode="strict", max_extended_sessions=sessions)
    try:
        state = run(client, "forgets", "tea")
    finally:
        worker.stop()

    assert state.failure_details is not None
    assert state.failure_details.error_type == "durabletask.aio.WorkflowValidationError"
    assert "activity 'charge'" in state.failure_details.message
    assert "was never awaited, and the workflow returned without waiting for it [" in state.failure_details.message
