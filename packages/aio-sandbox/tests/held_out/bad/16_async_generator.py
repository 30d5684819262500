"""B16: An async generator yields with the time of each result."""

# expect: bad: clock

import time


async def results(ctx, items):
    for item in items:
        yield time.time(), await ctx.call_activity("load", input=item)


async def workflow(ctx, input):
    return [pair async for pair in results(ctx, input["items"])]
