"""B37: A flag file is looked for with pathlib."""

# expect: bad: files

from pathlib import Path


async def workflow(ctx, input):
    if (Path.home() / ".shop-dry-run").exists():
        return "dry"
    return await ctx.call_activity("charge", input=input["amount"])
