"""B69: A class attribute counts instances."""

# expect: bad: module state

class Ticket:
    issued = 0

    def __init__(self):
        type(self).issued += 1
        self.number = Ticket.issued


async def workflow(ctx, input):
    ticket = Ticket()
    return await ctx.call_activity("print", input=ticket.number)
