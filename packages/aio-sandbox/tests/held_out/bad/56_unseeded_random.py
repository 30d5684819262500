"""B56: Random() without a seed, made in the workflow."""

# expect: bad: random

import random

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    rng = random.Random()
    deck = list(input["items"])
    rng.shuffle(deck)
    return await ctx.call_activity("deal", input=deck)
