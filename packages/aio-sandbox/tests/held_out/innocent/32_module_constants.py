"""I32: Module constants, one of them read from the environment for activities only."""

# expect: innocent

import os
from types import MappingProxyType

DATABASE_URL = os.environ.get("DATABASE_URL", "sqlite://")
PRICES = MappingProxyType({"pear": 2, "apple": 1, "fig": 3})
SIZES = ("s", "m", "l")


def connect(ctx, order):
    return f"{DATABASE_URL}/{order}"


ACTIVITIES = [connect]


async def workflow(ctx, input):
    total = sum(PRICES[item] for item in input["items"])
    await ctx.call_activity(connect, input=input["order"])
    return await ctx.call_activity("charge", input=[total, SIZES[1]])
