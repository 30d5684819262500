"""I22: functools.cache over a pure function."""

# expect: innocent

from functools import cache


@cache
def ways(n):
    return 1 if n < 2 else ways(n - 1) + ways(n - 2)


async def workflow(ctx, input):
    return await ctx.call_activity("store", input=ways(30))
