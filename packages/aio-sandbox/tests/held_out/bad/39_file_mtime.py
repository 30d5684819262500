"""B39: A file's modification time."""

# expect: bad: files

import os.path

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    return await ctx.call_activity("version", input=os.path.getmtime(__file__))
