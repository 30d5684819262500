from durabletask.aio import AsyncWorkflowContext
from durabletask.task import ActivityContext


def charge(ctx: ActivityContext, amount: int) -> str:
    return f"receipt for {amount} euros"


def ship(ctx: ActivityContext, receipt: str) -> str:
    return f"shipped, {receipt}"


async def order(ctx: AsyncWorkflowContext, amount: int) -> str:
    receipt = await ctx.call_activity(charge, input=amount)
    return await ctx.call_activity(ship, input=receipt)
