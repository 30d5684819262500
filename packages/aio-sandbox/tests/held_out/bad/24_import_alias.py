"""B24: from-import under another name."""

# expect: bad: clock

from time import time as stamp

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    return await ctx.call_activity("save", input=[input["order"], stamp()])
