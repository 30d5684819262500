"""B61: A work list that is a set, emptied with pop."""

# expect: bad: set order

async def workflow(ctx, input):
    pending = set(input["items"])
    trail = []
    while pending:
        item = pending.pop()
        trail.append(await ctx.call_activity("visit", input=item))
    return trail
