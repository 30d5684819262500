"""I26: The context's time in a named zone."""

# expect: innocent

from zoneinfo import ZoneInfo

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    local = ctx.now().astimezone(ZoneInfo("Europe/Berlin"))
    return await ctx.call_activity("greet", input="morning" if local.hour < 12 else "day")
