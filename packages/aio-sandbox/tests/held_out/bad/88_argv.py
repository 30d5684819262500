"""B88: The command line decides the mode."""

# expect: bad: processes

import sys


async def workflow(ctx, input):
    dry = "--dry-run" in sys.argv
    return await ctx.call_activity("charge", input={"amount": input["amount"], "dry": dry})
