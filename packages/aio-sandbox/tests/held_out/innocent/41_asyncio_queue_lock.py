"""I41: asyncio.Queue, Lock and Event between tasks."""

# expect: innocent

import asyncio


async def workflow(ctx, input):
    queue = asyncio.Queue()
    lock = asyncio.Lock()
    results = []

    async def consume():
        while True:
            item = await queue.get()
            if item is None:
                return
            async with lock:
                results.append(await ctx.call_activity("load", input=item))

    consumers = [asyncio.create_task(consume()) for _ in range(2)]
    for item in input["items"]:
        await queue.put(item)
    for _ in consumers:
        await queue.put(None)
    await asyncio.gather(*consumers)
    return results
