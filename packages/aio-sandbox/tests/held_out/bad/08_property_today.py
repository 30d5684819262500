"""B08: A property compares with today's date."""

# expect: bad: clock

from datetime import date

from durabletask.aio import AsyncWorkflowContext


class Contract:
    def __init__(self, until):
        self._until = date.fromisoformat(until)

    @property
    def expired(self) -> bool:
        return self._until < date.today()


async def workflow(ctx: AsyncWorkflowContext, input):
    contract = Contract("2026-06-30")
    if contract.expired:
        return await ctx.call_activity("renew", input=input["order"])
    return await ctx.call_activity("keep", input=input["order"])
