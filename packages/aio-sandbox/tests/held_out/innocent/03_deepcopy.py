"""I03: copy.deepcopy of the input."""

# expect: innocent

import copy


async def workflow(ctx, input):
    draft = copy.deepcopy(input)
    draft["items"].append("plum")
    return await ctx.call_activity("store", input=draft)
