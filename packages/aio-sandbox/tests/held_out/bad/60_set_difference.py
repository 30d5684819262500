"""B60: A loop over what is left of two sets."""

# expect: bad: set order

async def workflow(ctx, input):
    done = {"fig"}
    todo = {item for item in input["items"]} - done
    results = []
    for item in todo:
        results.append(await ctx.call_activity("load", input=item))
    return results
