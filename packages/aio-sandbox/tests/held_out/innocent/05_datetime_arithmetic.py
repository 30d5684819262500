"""I05: Arithmetic on ctx.now()."""

# expect: innocent

from datetime import datetime, timedelta, timezone

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    now = ctx.now()
    midnight = datetime.combine(now.date(), datetime.min.time(), tzinfo=timezone.utc) + timedelta(days=1)
    await ctx.create_timer(midnight)
    return (midnight - now).total_seconds()
