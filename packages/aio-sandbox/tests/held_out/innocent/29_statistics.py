"""I29: statistics, math and fractions."""

# expect: innocent

import math
import statistics
from fractions import Fraction


async def workflow(ctx, input):
    sizes = [len(item) for item in input["items"]]
    summary = [statistics.mean(sizes), statistics.pstdev(sizes), math.isqrt(120), str(Fraction(1, 3) + Fraction(1, 6))]
    return await ctx.call_activity("report", input=summary)
