"""I34: async with ctx, a cleanup that prints, as in the manual."""

# expect: innocent

async def workflow(ctx, input):
    async with ctx:
        ctx.add_cleanup(lambda: print("workflow completed"))
        return await ctx.call_activity("charge", input=input["amount"])
