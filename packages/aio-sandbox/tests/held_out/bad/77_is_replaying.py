"""B77: Branching on is_replaying to do a thing once."""

# expect: bad: module state

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    await ctx.call_activity("reserve", input=input["order"])
    if not ctx.is_replaying:
        await ctx.call_activity("mail", input=input["order"])
    return await ctx.call_activity("charge", input=input["amount"])
