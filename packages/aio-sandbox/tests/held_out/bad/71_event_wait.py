"""B71: A threading.Event as a pause."""

# expect: bad: blocking

from threading import Event


async def workflow(ctx, input):
    Event().wait(0.01)
    return await ctx.call_activity("poll", input=input["order"])
