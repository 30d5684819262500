"""I21: Enums with auto values and a flag."""

# expect: innocent

from enum import Enum, Flag, auto

from durabletask.aio import AsyncWorkflowContext


class State(Enum):
    NEW = auto()
    PAID = auto()


class Option(Flag):
    GIFT = auto()
    FAST = auto()


async def workflow(ctx: AsyncWorkflowContext, input):
    options = Option.GIFT | Option.FAST
    return await ctx.call_activity("store", input={"state": State.PAID.name, "options": options.value})
