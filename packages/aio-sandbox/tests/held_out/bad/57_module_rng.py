"""B57: A seeded generator, but one for the whole process."""

# expect: bad: random

import random

from durabletask.aio import AsyncWorkflowContext

RNG = random.Random(42)


async def workflow(ctx: AsyncWorkflowContext, input):
    sample = RNG.sample(input["items"], 2)
    return await ctx.call_activity("inspect", input=sample)
