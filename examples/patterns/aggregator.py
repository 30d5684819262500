"""Aggregator: add up events as they arrive, for one month."""

import asyncio
from contextlib import suppress
from datetime import timedelta

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.testing import WorkflowEnvironment
from durabletask.task import ActivityContext


def send_invoice(ctx: ActivityContext, total: int) -> str:
    return f"invoice over {total} euros"


async def month(ctx: AsyncWorkflowContext, customer: str) -> str:
    total = 0

    async def add_up() -> None:
        nonlocal total
        async for amount in ctx.events("charge", data_type=int):
            total += amount

    with suppress(TimeoutError):
        await ctx.with_timeout(add_up(), timedelta(days=30))
    return f"{customer}: {await ctx.call_activity(send_invoice, input=total)}"


async def main() -> None:
    async with WorkflowEnvironment(orchestrators=[month], activities=[send_invoice]) as env:
        handle = await env.start(month, input="Ada")
        for amount in (30, 12):
            await handle.raise_event("charge", amount)
            await env.advance(timedelta(days=9))
        print(await handle.result())


if __name__ == "__main__":
    asyncio.run(main())
