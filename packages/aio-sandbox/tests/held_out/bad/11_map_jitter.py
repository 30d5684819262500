"""B11: map() over a helper that draws."""

# expect: bad: random

import random

from durabletask.aio import AsyncWorkflowContext


def with_weight(item):
    return item, random.gauss(0, 1)


async def workflow(ctx: AsyncWorkflowContext, input):
    weighted = dict(map(with_weight, input["items"]))
    return await ctx.call_activity("rank", input=weighted)
