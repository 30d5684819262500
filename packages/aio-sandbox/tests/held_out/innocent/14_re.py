"""I14: Regular expressions with a callable replacement."""

# expect: innocent

import re

ORDER = re.compile(r"(?P<letter>[A-Z])-(?P<number>\d+)")


async def workflow(ctx, input):
    found = ORDER.fullmatch(input["order"])
    masked = re.sub(r"\d", lambda match: "*", input["order"])
    return await ctx.call_activity("store", input={**found.groupdict(), "masked": masked})
