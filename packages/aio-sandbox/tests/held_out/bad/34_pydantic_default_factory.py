"""B34: A pydantic model has a clock as default_factory."""

# expect: bad: clock

from datetime import datetime

from pydantic import BaseModel, Field

from durabletask.aio import AsyncWorkflowContext


class Event(BaseModel):
    name: str
    at: datetime = Field(default_factory=datetime.now)


async def workflow(ctx: AsyncWorkflowContext, input):
    event = Event(name=input["order"])
    return await ctx.call_activity("emit", input=event.model_dump(mode="json"))
