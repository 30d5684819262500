"""B73: A coroutine helper called without await."""

# expect: bad: un-awaited

async def notify(ctx, text):
    await ctx.call_activity("mail", input=text)


async def workflow(ctx, input):
    paid = await ctx.call_activity("charge", input=input["amount"])
    notify(ctx, f"paid {paid}")
    return paid
