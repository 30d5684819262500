"""B52: run_in_executor of the running loop."""

# expect: bad: threads

import asyncio

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    loop = asyncio.get_running_loop()
    total = await loop.run_in_executor(None, sum, [1, 2, 3])
    return await ctx.call_activity("save", input=total)
