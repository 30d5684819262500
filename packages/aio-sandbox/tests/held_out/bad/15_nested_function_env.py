"""B15: A nested function reads an environment variable."""

# expect: bad: environment

import os


async def workflow(ctx, input):
    def endpoint():
        return os.getenv("SHOP_ENDPOINT", "http://localhost") + "/orders"

    return await ctx.call_activity("post", input=endpoint())
