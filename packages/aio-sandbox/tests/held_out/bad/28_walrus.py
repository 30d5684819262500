"""B28: A walrus in a condition draws."""

# expect: bad: random

import random


async def workflow(ctx, input):
    if (roll := random.randrange(100)) < 50:
        return await ctx.call_activity("variant_a", input=roll)
    return await ctx.call_activity("variant_b", input=roll)
