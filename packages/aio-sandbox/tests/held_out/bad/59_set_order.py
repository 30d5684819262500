"""B59: A fan-out over a set."""

# expect: bad: set order

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    unique = set(input["items"])
    return await ctx.when_all([ctx.call_activity("load", input=item) for item in unique])
