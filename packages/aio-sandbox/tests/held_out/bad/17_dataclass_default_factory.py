"""B17: A dataclass field has uuid4 as default_factory."""

# expect: bad: uuid

import uuid
from dataclasses import asdict, dataclass, field

from durabletask.aio import AsyncWorkflowContext


@dataclass
class Message:
    text: str
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


async def workflow(ctx: AsyncWorkflowContext, input):
    return await ctx.call_activity("publish", input=asdict(Message(input["order"])))
