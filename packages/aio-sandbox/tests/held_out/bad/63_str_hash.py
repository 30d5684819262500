"""B63: hash() of a string picks the shard."""

# expect: bad: set order

async def workflow(ctx, input):
    shard = hash(input["order"]) % 8
    return await ctx.call_activity("write", input={"shard": shard})
