"""B76: contextlib.suppress(BaseException)."""

# expect: bad: swallowing

from contextlib import suppress


async def workflow(ctx, input):
    with suppress(BaseException):
        await ctx.call_activity("mail", input=input["order"])
    return "sent"
