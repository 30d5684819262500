"""B83: importlib picks the strategy module."""

# expect: bad: random

import importlib


def strategy(path):
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


async def workflow(ctx, input):
    pick = strategy("random:choice")
    return await ctx.call_activity("assign", input=pick(input["items"]))
