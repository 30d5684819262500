"""B09: An operator overload hides the clock."""

# expect: bad: clock

import time


class Deadline:
    def __init__(self, at):
        self.at = at

    def __sub__(self, seconds):
        return self.at - seconds - time.time()


async def workflow(ctx, input):
    slack = Deadline(4_000_000_000) - 60
    return await ctx.call_activity("plan", input=slack)
