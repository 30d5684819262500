"""I08: datetime.fromtimestamp with a number and UTC."""

# expect: innocent

from datetime import datetime, timezone

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    then = datetime.fromtimestamp(1_700_000_000, tz=timezone.utc)
    return await ctx.call_activity("stamp", input=then.isoformat())
