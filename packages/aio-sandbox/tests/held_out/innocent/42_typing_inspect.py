"""I42: inspect.signature and typing.get_type_hints over a helper."""

# expect: innocent

import inspect
import typing

from durabletask.aio import AsyncWorkflowContext


def price(item: str, count: int = 1) -> int:
    return len(item) * count


async def workflow(ctx: AsyncWorkflowContext, input):
    names = list(inspect.signature(price).parameters)
    hints = sorted(typing.get_type_hints(price))
    return await ctx.call_activity("describe", input=[names, hints, price("fig", 2)])
