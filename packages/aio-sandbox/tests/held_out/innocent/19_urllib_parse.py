"""I19: urllib.parse and html."""

# expect: innocent

import html
from urllib.parse import urlencode, urljoin, urlsplit

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    link = urljoin("https://shop.example/a/", "b") + "?" + urlencode({"order": input["order"]})
    return await ctx.call_activity("mail", input={"host": urlsplit(link).hostname, "text": html.escape(f"<{link}>")})
