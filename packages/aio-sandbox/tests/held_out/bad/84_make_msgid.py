"""B84: The standard library makes a message id."""

# expect: bad: host identity

from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    message = EmailMessage()
    message["Subject"] = input["order"]
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="shop.example")
    return await ctx.call_activity("mail", input=message.as_string())
