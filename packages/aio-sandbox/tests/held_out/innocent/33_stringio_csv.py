"""I33: csv and io.StringIO in memory."""

# expect: innocent

import csv
import io

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["item", "size"])
    writer.writerows([item, len(item)] for item in input["items"])
    return await ctx.call_activity("upload", input=buffer.getvalue())
