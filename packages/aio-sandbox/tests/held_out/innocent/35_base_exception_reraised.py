"""I35: except BaseException that raises again, and CancelledError too."""

# expect: innocent

import asyncio

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    try:
        return await ctx.call_activity("charge", input=input["amount"])
    except asyncio.CancelledError:
        raise
    except BaseException:
        await ctx.call_activity("refund", input=input["amount"])
        raise
