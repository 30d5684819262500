"""I37: A pydantic model with validators and a list default."""

# expect: innocent

from datetime import datetime

from pydantic import BaseModel, Field, field_validator


class Order(BaseModel):
    number: str
    items: list[str] = Field(default_factory=list)
    placed: datetime = datetime(2026, 1, 1)

    @field_validator("number")
    @classmethod
    def upper(cls, value):
        return value.upper()


async def workflow(ctx, input):
    order = Order(number=input["order"], items=input["items"])
    return await ctx.call_activity("store", input=order.model_dump(mode="json"))
