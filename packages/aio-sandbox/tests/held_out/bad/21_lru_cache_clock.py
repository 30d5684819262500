"""B21: An lru_cache keeps the time of the first call for the process."""

# expect: bad: clock

import time
from functools import lru_cache


@lru_cache(maxsize=None)
def epoch():
    return int(time.time())


async def workflow(ctx, input):
    return await ctx.call_activity("open", input={"epoch": epoch()})
