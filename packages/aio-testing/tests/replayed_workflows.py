"""Workflows that the tests of `replay` record, and then change; imported by other processes, too."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from durabletask.aio import as_orchestrator
from durabletask.entities import EntityInstanceId
from durabletask.task import RetryPolicy

COUNTER = EntityInstanceId("counter", "orders")
PATIENT = RetryPolicy(first_retry_interval=timedelta(seconds=5), max_number_of_attempts=3)


async def order(ctx, amount):
    reserved = await ctx.call_activity("reserve", input=amount)
    await ctx.sleep(60)
    charged, mailed = await asyncio.gather(
        ctx.call_activity("charge", input={"amount": reserved}, retry_policy=PATIENT),
        ctx.call_activity("mail", input="thanks"),
    )
    await ctx.call_sub_orchestrator("deliver", input=charged, instance_id="delivery")
    ctx.send_event("warehouse", "sold", data=amount)
    await ctx.call_entity(COUNTER, "add", 1)
    ctx.signal_entity(COUNTER, "note", mailed)
    approved = await ctx.wait_for_external_event("approve")
    await ctx.call_activity("ship", input=approved)
    return {"charged": charged}


def generated(ctx, amount):
    first = yield ctx.call_activity("reserve", input=amount)
    yield ctx.create_timer(timedelta(seconds=60))
    return (yield ctx.call_activity("charge", input=first))


async def by_set(ctx, _):
    for name in {"reserve", "charge", "ship", "mail", "pack", "wrap", "label"}:
        await ctx.call_activity(name)


async def by_replay_flag(ctx, _):
    await ctx.call_activity("reserve")
    if ctx.is_replaying:
        await ctx.sleep(1)
    return await ctx.call_activity("charge")


renamed = as_orchestrator(order, name="an order")
