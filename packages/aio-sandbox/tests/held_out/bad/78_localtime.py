"""B78: strftime and localtime without arguments."""

# expect: bad: clock

import time


async def workflow(ctx, input):
    folder = time.strftime("%Y/%m")
    hour = time.localtime().tm_hour
    return await ctx.call_activity("store", input=[folder, hour])
