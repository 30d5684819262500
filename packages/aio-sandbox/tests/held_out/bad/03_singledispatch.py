"""B03: A singledispatch overload makes up an id for dicts."""

# expect: bad: uuid

import uuid
from functools import singledispatch


@singledispatch
def key_of(value):
    return str(value)


@key_of.register
def _(value: dict):
    return value.get("key") or str(uuid.uuid4())


async def workflow(ctx, input):
    return await ctx.call_activity("store", input=key_of(input))
