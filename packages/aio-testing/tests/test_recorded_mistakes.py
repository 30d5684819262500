"""Histories of instances that have continued after a mistake which is refused now: they replay as recorded."""

from __future__ import annotations

from typing import Any

import pytest
from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.testing import History, WorkflowEnvironment, replay, verify_deterministic
from durabletask.client import OrchestrationFailedError

from durabletask_aio.core import driver, operations

VALIDATION = "durabletask.aio.WorkflowValidationError"


async def formats(ctx: AsyncWorkflowContext) -> str:
    receipt = ctx.call_activity("charge", input=3, return_type=int)
    text = f"receipt: {receipt}"
    await receipt
    await ctx.sleep(60)
    return text


async def catches(ctx: AsyncWorkflowContext) -> str:
    try:
        return f"receipt: {ctx.call_activity('charge', input=3)}"
    except Exception:
        await ctx.sleep(60)
        return "caught"


async def forgets(ctx: AsyncWorkflowContext) -> str:
    receipt = ctx.call_activity("charge", input=3)
    await ctx.sleep(60)
    return receipt.kind


async def recorded(workflow: Any, *, mode: str) -> History:
    async with WorkflowEnvironment(orchestrators=[workflow], sandbox_mode=mode) as env:
        env.stub("charge", returns=7)
        handle = await env.start(workflow)
        try:
            await handle.result()
        except OrchestrationFailedError as error:
            assert error.failure_details.error_type == VALIDATION  # noqa: PT017 - some are refused, some are not
        return handle.history


@pytest.mark.parametrize(("workflow", "mode"), [(formats, "off"), (forgets, "strict")])
async def test_of_an_older_release_replays(workflow: Any, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr(operations, "refuse_unless_recorded", lambda execution, error: None)
        older.setattr(driver, "unawaited_operations", lambda loop, upstream: [])
        history = await recorded(workflow, mode=mode)
    assert history.status.name == "COMPLETED"

    replay(history, workflow, sandbox_mode=mode)
    # As a worker that has been updated while the instance was running.
    replay(History(history.protobuf[:-3]), workflow, sandbox_mode=mode)


@pytest.mark.parametrize(("workflow", "mode"), [(formats, "off"), (catches, "off"), (forgets, "strict")])
async def test_of_this_release_replays_as_the_failure_that_it_is(workflow: Any, mode: str) -> None:
    history = await recorded(workflow, mode=mode)  # which replays it too
    assert history.status.name == "FAILED"

    verify_deterministic(history, workflow, sandbox_mode=mode, hash_seeds=())
