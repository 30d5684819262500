"""B06: A closure returned by a factory draws jitter."""

# expect: bad: random

import random


def backoff(base, spread):
    def delay(attempt):
        return base * 2**attempt + random.uniform(0, spread)

    return delay


async def workflow(ctx, input):
    delay = backoff(1, 0.5)
    for attempt in range(2):
        await ctx.sleep(delay(attempt))
    return "ok"
