"""B46: http.client inside a broad except."""

# expect: bad: network

import http.client

from durabletask.aio import AsyncWorkflowContext


class Flags:
    def enabled(self, name):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", 9, timeout=0.2)
            connection.request("GET", f"/flags/{name}")
            return connection.getresponse().status == 200
        except Exception:
            return False


async def workflow(ctx: AsyncWorkflowContext, input):
    if Flags().enabled("new-checkout"):
        return await ctx.call_activity("checkout_v2", input=input["order"])
    return await ctx.call_activity("checkout", input=input["order"])
