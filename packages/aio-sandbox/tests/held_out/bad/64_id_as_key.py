"""B64: id() of an object as a key."""

# expect: bad: host identity

async def workflow(ctx, input):
    job = {"order": input["order"]}
    handles = {str(id(job)): job}
    return await ctx.call_activity("enqueue", input=handles)
