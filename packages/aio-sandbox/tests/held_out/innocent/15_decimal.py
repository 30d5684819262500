"""I15: Decimals in a local context."""

# expect: innocent

from decimal import ROUND_HALF_UP, Decimal, localcontext

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    with localcontext() as arithmetic:
        arithmetic.prec = 20
        price = (Decimal(input["amount"]) / 7).quantize(Decimal("0.01"), ROUND_HALF_UP)
    return await ctx.call_activity("charge", input=str(price))
