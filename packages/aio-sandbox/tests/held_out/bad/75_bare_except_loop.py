"""B75: A bare except in a retry loop."""

# expect: bad: swallowing

async def workflow(ctx, input):
    for attempt in range(3):
        try:
            return await ctx.call_activity("charge", input=attempt)
        except:
            continue
    return None
