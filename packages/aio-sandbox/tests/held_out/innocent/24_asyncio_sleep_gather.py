"""I24: asyncio.sleep, gather and wait_for."""

# expect: innocent

import asyncio


async def one(ctx, item):
    await asyncio.sleep(1.5)
    return await ctx.call_activity("load", input=item)


async def workflow(ctx, input):
    results = await asyncio.gather(*(one(ctx, item) for item in input["items"]))
    return await asyncio.wait_for(ctx.call_activity("save", input=results), 30)
