"""B65: The default repr, with an address, in a message."""

# expect: bad: host identity

class Basket:
    def __init__(self, items):
        self.items = items


async def workflow(ctx, input):
    basket = Basket(input["items"])
    return await ctx.call_activity("log", input=f"packed {basket!r}")
