"""B29: An f-string formats the clock."""

# expect: bad: clock

import datetime

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    name = f"{input['order']}-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}.pdf"
    return await ctx.call_activity("render", input=name)
