"""B33: An iterator's __next__ draws."""

# expect: bad: random

import random

from durabletask.aio import AsyncWorkflowContext


class Delays:
    def __init__(self, count):
        self.left = count

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        self.left -= 1
        return random.expovariate(2.0)


async def workflow(ctx: AsyncWorkflowContext, input):
    for delay in Delays(2):
        await ctx.sleep(delay)
    return "done"
