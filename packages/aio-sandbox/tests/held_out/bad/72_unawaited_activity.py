"""B72: An activity call without await."""

# expect: bad: un-awaited

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    ctx.call_activity("audit", input=input["order"])
    return await ctx.call_activity("charge", input=input["amount"])
