"""I12: hashlib and hmac with a constant."""

# expect: innocent

import hashlib
import hmac

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    digest = hashlib.sha256(input["order"].encode()).hexdigest()
    mac = hmac.new(b"not a secret", digest.encode(), "sha256").hexdigest()
    return await ctx.call_activity("verify", input={"digest": digest, "mac": mac})
