"""I17: Fan-out over a dict and unique values with dict.fromkeys."""

# expect: innocent

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    stock = {item: len(item) for item in input["items"]}
    for item, count in stock.items():
        await ctx.call_activity("reserve", input=[item, count])
    return await ctx.when_all([ctx.call_activity("load", input=key) for key in dict.fromkeys(input["items"])])
