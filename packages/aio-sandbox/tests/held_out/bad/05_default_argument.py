"""B05: A default argument is an id made when the module is imported."""

# expect: bad: uuid

import uuid

from durabletask.aio import AsyncWorkflowContext


def envelope(body, correlation=str(uuid.uuid4())):
    return {"body": body, "correlation": correlation}


async def workflow(ctx: AsyncWorkflowContext, input):
    return await ctx.call_activity("send", input=envelope(input["order"]))
