"""B32: A metaclass stamps every instance it makes."""

# expect: bad: clock

import time


class Stamped(type):
    def __call__(cls, *args, **kwargs):
        instance = super().__call__(*args, **kwargs)
        instance.created = time.time()
        return instance


class Parcel(metaclass=Stamped):
    def __init__(self, order):
        self.order = order


async def workflow(ctx, input):
    parcel = Parcel(input["order"])
    return await ctx.call_activity("hand_over", input=parcel.created)
