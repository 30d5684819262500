"""I23: traceback.format_exc for the log."""

# expect: innocent

import logging
import traceback

from durabletask.aio import AsyncWorkflowContext

log = logging.getLogger("shop")


async def workflow(ctx: AsyncWorkflowContext, input):
    try:
        return input["missing"]
    except KeyError as error:
        log.warning("no such field\n%s", traceback.format_exc())
        return await ctx.call_activity("report", input=repr(error))
