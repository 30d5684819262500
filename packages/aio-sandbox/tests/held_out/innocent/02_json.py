"""I02: A round trip through json."""

# expect: innocent

import json

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    text = json.dumps(input, sort_keys=True, indent=2)
    return await ctx.call_activity("store", input=json.loads(text))
