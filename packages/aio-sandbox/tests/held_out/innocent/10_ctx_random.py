"""I10: The context's own random and uuid4."""

# expect: innocent

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    random = ctx.random()
    winner = random.choice(input["items"])
    return await ctx.call_activity("award", input={"winner": winner, "id": str(ctx.uuid4())})
