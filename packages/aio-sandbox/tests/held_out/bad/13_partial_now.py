"""B13: A partial of datetime.now."""

# expect: bad: clock

from datetime import datetime, timezone
from functools import partial

utc_now = partial(datetime.now, timezone.utc)


async def workflow(ctx, input):
    return await ctx.call_activity("stamp", input=utc_now().isoformat())
