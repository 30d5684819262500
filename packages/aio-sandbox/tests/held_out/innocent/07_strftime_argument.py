"""I07: time.strftime and gmtime with arguments."""

# expect: innocent

import calendar
import time


async def workflow(ctx, input):
    text = time.strftime("%Y-%m-%d", time.gmtime(0))
    seconds = calendar.timegm(time.strptime(text, "%Y-%m-%d"))
    return await ctx.call_activity("stamp", input=[text, seconds])
