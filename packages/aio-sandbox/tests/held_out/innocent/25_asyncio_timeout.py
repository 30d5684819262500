"""I25: asyncio.timeout and a task group."""

# expect: innocent
# needs: Python 3.11

import asyncio

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    async with asyncio.timeout(60):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(ctx, item)) for item in input["items"]]
    return [task.result() for task in tasks]


async def one(ctx, item):
    return await ctx.call_activity("load", input=item)
