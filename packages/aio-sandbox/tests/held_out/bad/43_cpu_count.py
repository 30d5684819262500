"""B43: The fan-out is as wide as the machine."""

# expect: bad: host identity

from os import cpu_count


async def workflow(ctx, input):
    width = cpu_count() or 1
    chunks = [input["items"][i::width] for i in range(width)]
    return await ctx.when_all([ctx.call_activity("chunk", input=chunk) for chunk in chunks])
