"""B87: Polling until a deadline on the monotonic clock."""

# expect: bad: clock

import time


async def workflow(ctx, input):
    deadline = time.monotonic() + 0.05
    polls = 0
    while time.monotonic() < deadline and polls < 5:
        await ctx.call_activity("poll", input=polls)
        polls += 1
    return polls
