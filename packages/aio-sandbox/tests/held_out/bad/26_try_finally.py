"""B26: The time is taken in a finally block."""

# expect: bad: clock

from datetime import datetime, timezone

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    summary = {"order": input["order"]}
    try:
        summary["result"] = await ctx.call_activity("charge", input=input["amount"])
    finally:
        summary["finished"] = datetime.now(timezone.utc).timestamp()
        await ctx.call_activity("audit", input=summary)
    return summary
