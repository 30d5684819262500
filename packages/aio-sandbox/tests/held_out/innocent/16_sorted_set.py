"""I16: Sets that are sorted, counted or asked, never iterated into operations."""

# expect: innocent

async def workflow(ctx, input):
    unique = set(input["items"])
    allowed = {"pear", "apple"}
    if "fig" in allowed or not unique & allowed:
        return None
    for item in sorted(unique - allowed):
        await ctx.call_activity("return", input=item)
    return await ctx.call_activity("count", input=[len(unique), max(unique), sorted(allowed)])
