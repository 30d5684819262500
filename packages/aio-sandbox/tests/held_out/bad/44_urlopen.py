"""B44: urlopen with a fallback."""

# expect: bad: network

import json
from urllib.error import URLError
from urllib.request import urlopen

from durabletask.aio import AsyncWorkflowContext


def exchange_rate():
    try:
        with urlopen("http://127.0.0.1:9/rate", timeout=0.2) as response:
            return json.load(response)["rate"]
    except URLError:
        return 1.0


async def workflow(ctx: AsyncWorkflowContext, input):
    return await ctx.call_activity("charge", input=input["amount"] * exchange_rate())
