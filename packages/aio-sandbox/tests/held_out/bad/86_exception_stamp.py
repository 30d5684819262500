"""B86: An exception notes when it was made."""

# expect: bad: clock

import time

from durabletask.aio import AsyncWorkflowContext


class Declined(Exception):
    def __init__(self, reason):
        super().__init__(reason)
        self.at = time.time()


async def workflow(ctx: AsyncWorkflowContext, input):
    try:
        if input["amount"] > 100:
            raise Declined("limit")
    except Declined as declined:
        return await ctx.call_activity("report", input={"why": str(declined), "at": declined.at})
    return "ok"
