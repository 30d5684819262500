"""B50: A pool maps, results in the order they finish."""

# expect: bad: threads

from concurrent.futures import ThreadPoolExecutor, as_completed


def price(item):
    return {"item": item, "price": len(item)}


async def workflow(ctx, input):
    with ThreadPoolExecutor(4) as pool:
        prices = [future.result() for future in as_completed(pool.submit(price, item) for item in input["items"])]
    return await ctx.call_activity("offer", input=prices)
