"""B19: A table of lambdas, one of which is the clock."""

# expect: bad: clock

import time

FIELDS = {
    "order": lambda data: data["order"],
    "size": lambda data: len(data["items"]),
    "seen": lambda data: time.time(),
}


async def workflow(ctx, input):
    row = {name: compute(input) for name, compute in FIELDS.items()}
    return await ctx.call_activity("insert", input=row)
