"""I13: Activities in the same module use clock, random, files and network."""

# expect: innocent

import os
import random
import time
import urllib.request
import uuid

from durabletask.aio import AsyncWorkflowContext


def charge(ctx, amount):
    started = time.time()
    if os.environ.get("SHOP_LIVE"):
        urllib.request.urlopen("http://127.0.0.1:9/charge")
    return {"id": str(uuid.uuid4()), "at": started, "amount": amount, "lot": random.random()}


async def load(ctx, name):
    with open(name) as file:
        return file.read()


ACTIVITIES = [charge]


async def workflow(ctx: AsyncWorkflowContext, input):
    receipt = await ctx.call_activity(charge, input=input["amount"])
    return receipt["amount"]
