"""I39: A context variable of one's own."""

# expect: innocent

from contextvars import ContextVar

tenant = ContextVar("tenant", default="none")


def tagged(value):
    return {"tenant": tenant.get(), "value": value}


async def workflow(ctx, input):
    token = tenant.set("acme")
    try:
        return await ctx.call_activity("store", input=tagged(input["order"]))
    finally:
        tenant.reset(token)
