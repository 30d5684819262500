"""I20: textwrap and string.Template."""

# expect: innocent

import textwrap
from string import Template

LETTER = Template("Dear customer, your order $order of $amount has arrived and can be fetched at any time.")


async def workflow(ctx, input):
    letter = textwrap.fill(LETTER.substitute(order=input["order"], amount=input["amount"]), 40)
    return await ctx.call_activity("mail", input=letter)
