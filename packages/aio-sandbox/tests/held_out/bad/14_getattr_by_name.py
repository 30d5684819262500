"""B14: The clock is chosen by name with getattr."""

# expect: bad: clock

import time

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    clock = getattr(time, input.get("clock", "time_ns"))
    return await ctx.call_activity("stamp", input=clock())
