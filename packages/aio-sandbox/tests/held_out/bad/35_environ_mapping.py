"""B35: The whole environment is filtered with a comprehension."""

# expect: bad: environment

from os import environ


async def workflow(ctx, input):
    flags = {key: value for key, value in environ.items() if key.startswith("P")}
    return await ctx.call_activity("configure", input=flags)
