"""I09: random.Random(7) made inside the workflow."""

# expect: innocent

import random


async def workflow(ctx, input):
    rng = random.Random(7)
    deck = list(input["items"])
    rng.shuffle(deck)
    return await ctx.call_activity("deal", input=[deck, rng.randint(1, 6)])
