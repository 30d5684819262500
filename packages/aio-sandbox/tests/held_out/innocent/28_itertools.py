"""I28: itertools, also a count that is local."""

# expect: innocent

import itertools
from operator import itemgetter

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    numbers = itertools.count(1)
    lines = [{"number": next(numbers), "item": item, "size": len(item)} for item in input["items"]]
    by_size = itertools.groupby(sorted(lines, key=itemgetter("size")), key=itemgetter("size"))
    return await ctx.call_activity("store", input={str(size): list(group) for size, group in by_size})
