"""I27: base64, zlib and struct."""

# expect: innocent

import base64
import struct
import zlib


async def workflow(ctx, input):
    packed = zlib.compress(struct.pack("<I", input["amount"]) + input["order"].encode())
    return await ctx.call_activity("store", input=base64.b64encode(packed).decode())
