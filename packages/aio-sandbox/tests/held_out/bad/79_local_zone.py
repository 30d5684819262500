"""B79: A timestamp converted to the host's time zone."""

# expect: bad: environment

from datetime import datetime

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    local = datetime.fromtimestamp(1_700_000_000)
    return await ctx.call_activity("print", input=f"{local:%H:%M}")
