"""B67: A module-level itertools.count."""

# expect: bad: module state

import itertools

_ids = itertools.count(1)


async def workflow(ctx, input):
    return await ctx.call_activity("invoice", input=next(_ids))
