"""B22: A helper calls what it is given with star-args."""

# expect: bad: random

import random

from durabletask.aio import AsyncWorkflowContext


def attempt(fn, *args, **kwargs):
    try:
        return fn(*args, **kwargs)
    except ValueError:
        return None


async def workflow(ctx: AsyncWorkflowContext, input):
    return await ctx.call_activity("roll", input=attempt(random.randint, 1, 1_000_000))
