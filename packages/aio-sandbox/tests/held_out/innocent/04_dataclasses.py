"""I04: Dataclasses with replace, asdict and a list default."""

# expect: innocent

from dataclasses import asdict, dataclass, field, replace

from durabletask.aio import AsyncWorkflowContext


@dataclass(frozen=True)
class Order:
    number: str
    items: list = field(default_factory=list)


async def workflow(ctx: AsyncWorkflowContext, input):
    order = replace(Order(input["order"]), items=input["items"])
    return await ctx.call_activity("store", input=asdict(order))
