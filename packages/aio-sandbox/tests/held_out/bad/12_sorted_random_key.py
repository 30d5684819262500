"""B12: sorted() with a random key, to mix a list."""

# expect: bad: random

from random import random


async def workflow(ctx, input):
    order = sorted(input["items"], key=lambda _: random())
    results = []
    for item in order:
        results.append(await ctx.call_activity("visit", input=item))
    return results
