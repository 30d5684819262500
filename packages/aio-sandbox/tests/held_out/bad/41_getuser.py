"""B41: The name of the user the worker runs as."""

# expect: bad: host identity

from getpass import getuser

from durabletask.aio import AsyncWorkflowContext


def requested_by(data):
    return data.get("user") or getuser()


async def workflow(ctx: AsyncWorkflowContext, input):
    return await ctx.call_activity("approve", input=requested_by(input))
