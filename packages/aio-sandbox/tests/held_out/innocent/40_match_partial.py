"""I40: match, functools.partial and singledispatch without anything else."""

# expect: innocent

from functools import partial, singledispatch

from durabletask.aio import AsyncWorkflowContext


@singledispatch
def describe(value):
    return str(value)


@describe.register
def _(value: list):
    return ", ".join(value)


def scaled(factor, value):
    return factor * value


async def workflow(ctx: AsyncWorkflowContext, input):
    double = partial(scaled, 2)
    match input:
        case {"items": list() as items, "amount": int(amount)}:
            return await ctx.call_activity("store", input=[describe(items), double(amount)])
    return None
