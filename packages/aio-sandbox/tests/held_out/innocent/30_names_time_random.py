"""I30: Functions of one's own called time, random, now and open."""

# expect: innocent

def time(distance, speed):
    return distance / speed


def random(seed):
    return (seed * 1103515245 + 12345) % 2**31


def open(order):
    return {"state": "open", "order": order}


async def workflow(ctx, input):
    payload = {"hours": time(120, 60), "lot": random(7), **open(input["order"])}
    return await ctx.call_activity("plan", input=payload)
