"""I18: os.path.join and PurePath."""

# expect: innocent

import os
import os.path
from pathlib import PurePosixPath


async def workflow(ctx, input):
    key = os.path.join("orders", input["order"] + ".json")
    stem, extension = os.path.splitext(key)
    path = PurePosixPath("/data") / os.path.basename(stem)
    return await ctx.call_activity("upload", input=[str(path.with_suffix(extension)), os.sep, path.parent.name])
