"""Workflows that run unchanged on Microsoft's SDK and on Dapr's: see `on_engine.py` and `on_dapr.py`."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from durabletask_aio.portable import ActivityFailedError, RetryPolicy, WorkflowContext

TWICE = RetryPolicy(max_number_of_attempts=2, first_retry_interval=timedelta(milliseconds=10))


async def ship(ctx: WorkflowContext, item: str) -> str:
    """Ship one item; a child of `order`."""
    await asyncio.sleep(0.01)
    return await ctx.call_activity("pack", input=item)


async def order(ctx: WorkflowContext, items: list[str]) -> dict[str, Any]:
    """Charge, wait for the approval, and ship all items at once."""
    try:
        await ctx.call_activity("charge", input=len(items), retry_policy=TWICE)
    except ActivityFailedError as failure:
        return {"charged": False, "reason": failure.details.message}
    approved_by = await ctx.wait_for_external_event("approved")
    shipped = await asyncio.gather(*[ctx.call_sub_orchestrator("ship", input=item) for item in items])
    return {"charged": True, "approved_by": approved_by, "shipped": shipped}


def charge(ctx: object, amount: int) -> int:
    """Refuse an order of nothing."""
    if amount == 0:
        raise ValueError("nothing to charge")
    return amount


def pack(ctx: object, item: str) -> str:
    """Pack one item."""
    return f"{item} packed"
