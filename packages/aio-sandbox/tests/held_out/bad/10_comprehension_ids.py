"""B10: A comprehension gives each line an id."""

# expect: bad: uuid

from uuid import uuid4


async def workflow(ctx, input):
    lines = [{"id": str(uuid4()), "item": item} for item in input["items"]]
    return await ctx.when_all([ctx.call_activity("pick", input=line) for line in lines])
