"""B66: A global counter numbers the invoices."""

# expect: bad: module state

from durabletask.aio import AsyncWorkflowContext

_count = 0


def next_number():
    global _count
    _count += 1
    return f"INV-{_count:05}"


async def workflow(ctx: AsyncWorkflowContext, input):
    return await ctx.call_activity("invoice", input=next_number())
