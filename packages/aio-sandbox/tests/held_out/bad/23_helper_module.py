"""B23: The helper that asks for the time lives in another module."""

# expect: bad: clock

from shop_helpers import age_in_days


async def workflow(ctx, input):
    return await ctx.call_activity("age", input=age_in_days("2020-02-29"))
