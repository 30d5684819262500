"""B38: A fan-out over the files of a directory."""

# expect: bad: files

import os


async def workflow(ctx, input):
    names = [name for name in os.listdir(".") if name.endswith(".py")]
    return await ctx.when_all([ctx.call_activity("load", input=name) for name in names])
