"""B53: A token for the customer."""

# expect: bad: secrets

import secrets

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    token = secrets.token_urlsafe(16)
    await ctx.call_activity("mail_token", input=token)
    return token
