"""B68: A module dict remembers which orders were seen."""

# expect: bad: module state

from durabletask.aio import AsyncWorkflowContext

SEEN = {}


async def workflow(ctx: AsyncWorkflowContext, input):
    order = input["order"]
    if order in SEEN:
        return SEEN[order]
    SEEN[order] = await ctx.call_activity("charge", input=input["amount"])
    return SEEN[order]
