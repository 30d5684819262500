"""B07: A class stamps itself in __init__."""

# expect: bad: clock

import datetime as dt


class Invoice:
    def __init__(self, order, amount):
        self.order = order
        self.amount = amount
        self.issued = dt.datetime.utcnow().isoformat()


async def workflow(ctx, input):
    invoice = Invoice(input["order"], input["amount"])
    return await ctx.call_activity("mail", input=vars(invoice))
