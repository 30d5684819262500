"""B01: A decorator times a helper and the time goes to an activity."""

# expect: bad: clock

import functools
import time

from durabletask.aio import AsyncWorkflowContext


def timed(fn):
    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        started = time.perf_counter()
        result = fn(*args, **kwargs)
        return result, time.perf_counter() - started

    return wrapper


@timed
def total(items):
    return sum(len(item) for item in items)


async def workflow(ctx: AsyncWorkflowContext, input):
    amount, seconds = total(input["items"])
    return await ctx.call_activity("record", input={"amount": amount, "seconds": seconds})
