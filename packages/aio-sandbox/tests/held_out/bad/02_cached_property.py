"""B02: A cached_property remembers when it was first read."""

# expect: bad: clock

from datetime import datetime
from functools import cached_property


class Order:
    def __init__(self, number):
        self.number = number

    @cached_property
    def placed(self):
        return datetime.now()


async def workflow(ctx, input):
    order = Order(input["order"])
    await ctx.call_activity("reserve", input=order.number)
    return order.placed.isoformat()
