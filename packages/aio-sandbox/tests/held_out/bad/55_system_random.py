"""B55: SystemRandom in a module constant."""

# expect: bad: random

from random import SystemRandom

rng = SystemRandom()


async def workflow(ctx, input):
    winner = rng.choice(input["items"])
    return await ctx.call_activity("award", input=winner)
