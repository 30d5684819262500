"""B36: A config file is read with open()."""

# expect: bad: files

import json

from durabletask.aio import AsyncWorkflowContext


def load_limits():
    try:
        with open("limits.json", encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return {"max": 100}


async def workflow(ctx: AsyncWorkflowContext, input):
    limits = load_limits()
    return await ctx.call_activity("charge", input=min(input["amount"], limits["max"]))
