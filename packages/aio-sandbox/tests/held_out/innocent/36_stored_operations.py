"""I36: Operations started first and awaited later."""

# expect: innocent

async def workflow(ctx, input):
    stock = ctx.call_activity("stock", input=input["items"])
    price = ctx.call_activity("price", input=input["amount"])
    timer = ctx.sleep(60)
    winner = await ctx.when_any_with_result([stock, timer])
    ctx.set_custom_status(f"winner {winner[0]}")
    return [await stock, await price]
