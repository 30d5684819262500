"""B62: A helper returns list(set(...)), the usual way to remove duplicates."""

# expect: bad: set order

from durabletask.aio import AsyncWorkflowContext


def unique(values):
    return list(set(values))


async def workflow(ctx: AsyncWorkflowContext, input):
    return await ctx.call_activity("mail_all", input=unique(input["items"]))
