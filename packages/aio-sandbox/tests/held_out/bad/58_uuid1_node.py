"""B58: uuid1, of host and clock."""

# expect: bad: uuid

import uuid


async def workflow(ctx, input):
    ids = (uuid.uuid1() for _ in range(2))
    return await ctx.call_activity("reserve", input=[str(i) for i in ids])
