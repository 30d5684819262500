"""B25: The clock is imported inside the workflow, one or the other."""

# expect: bad: clock

async def workflow(ctx, input):
    if input.get("precise"):
        from time import perf_counter_ns as clock
    else:
        from time import monotonic_ns as clock
    return await ctx.call_activity("save", input=clock())
