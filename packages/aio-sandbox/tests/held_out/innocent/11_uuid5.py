"""I11: uuid5, uuid3 and UUID from text."""

# expect: innocent

import uuid


async def workflow(ctx, input):
    shop = uuid.UUID("12345678-1234-5678-1234-567812345678")
    ids = [str(uuid.uuid5(shop, item)) for item in input["items"]]
    return await ctx.call_activity("reserve", input=ids + [str(uuid.uuid3(uuid.NAMESPACE_DNS, "shop.example"))])
