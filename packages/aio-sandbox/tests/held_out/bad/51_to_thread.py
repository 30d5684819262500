"""B51: asyncio.to_thread for a blocking call."""

# expect: bad: threads

import asyncio


def slow(order):
    return order.lower()


async def workflow(ctx, input):
    name = await asyncio.to_thread(slow, input["order"])
    return await ctx.call_activity("save", input=name)
