"""B70: time.sleep between two attempts."""

# expect: bad: blocking

import time

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    for attempt in range(2):
        await ctx.call_activity("poll", input=attempt)
        time.sleep(0.01)
    return "gave up"
