"""B20: A base class names the host."""

# expect: bad: host identity

import socket

from durabletask.aio import AsyncWorkflowContext


class Step:
    def owner(self):
        return f"{type(self).__name__}@{socket.gethostname()}"


class Ship(Step):
    def payload(self, order):
        return {"order": order, "owner": self.owner()}


async def workflow(ctx: AsyncWorkflowContext, input):
    return await ctx.call_activity("ship", input=Ship().payload(input["order"]))
