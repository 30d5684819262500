"""B54: os.urandom through base64."""

# expect: bad: secrets

import base64
import os


def nonce(size=12):
    return base64.b64encode(os.urandom(size)).decode()


async def workflow(ctx, input):
    return await ctx.call_activity("encrypt", input={"nonce": nonce(), "text": input["order"]})
