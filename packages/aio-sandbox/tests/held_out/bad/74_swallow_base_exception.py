"""B74: except BaseException around an await."""

# expect: bad: swallowing

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    try:
        return await ctx.call_activity("charge", input=input["amount"])
    except BaseException:
        return "failed"
