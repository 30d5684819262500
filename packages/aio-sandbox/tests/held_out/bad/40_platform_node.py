"""B40: platform.node in a tags dict."""

# expect: bad: host identity

import platform


async def workflow(ctx, input):
    tags = {"host": platform.node(), "system": platform.system()}
    return await ctx.call_activity("charge", input=tags)
