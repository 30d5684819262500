"""B48: os.popen in a one-liner."""

# expect: bad: processes

import os


async def workflow(ctx, input):
    return await ctx.call_activity("tag", input=os.popen("echo main").read().strip())
