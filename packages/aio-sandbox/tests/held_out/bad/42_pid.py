"""B42: The process id in an instance id."""

# expect: bad: processes

import os


async def workflow(ctx, input):
    return await ctx.call_activity("claim", input=f"worker-{os.getpid()}")
