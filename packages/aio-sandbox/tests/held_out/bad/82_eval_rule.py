"""B82: A rule from the input is evaluated."""

# expect: bad: clock

import time


async def workflow(ctx, input):
    rule = input.get("rule", "time.time() % 2 < 1")
    branch = "even" if eval(rule, {"time": time}) else "odd"
    return await ctx.call_activity(branch, input=input["order"])
