"""B27: A match arm draws lots."""

# expect: bad: random

import random


async def workflow(ctx, input):
    match input:
        case {"order": str(), "items": [first, *_]}:
            lane = random.choice(["fast", "slow"])
            return await ctx.call_activity(lane, input=first)
        case _:
            return None
