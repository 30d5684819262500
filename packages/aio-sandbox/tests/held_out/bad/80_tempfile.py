"""B80: A temporary directory for a scratch file."""

# expect: bad: files

import tempfile
from pathlib import Path

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "order.txt"
        path.write_text(input["order"])
        return await ctx.call_activity("upload", input=str(path))
