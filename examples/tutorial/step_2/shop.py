from datetime import timedelta

from durabletask.aio import AsyncWorkflowContext, RetryPolicy, raises
from durabletask.task import ActivityContext


class CardDeclined(Exception):
    """The bank has refused. Another attempt does not help."""


@raises(CardDeclined)
def charge(ctx: ActivityContext, amount: int) -> str:
    if amount > 100:
        raise CardDeclined("the limit is 100 euros")
    return f"receipt for {amount} euros"


def ship(ctx: ActivityContext, receipt: str) -> str:
    return f"shipped, {receipt}"


patient = RetryPolicy(
    first_retry_interval=timedelta(seconds=5),
    max_number_of_attempts=4,
    backoff_coefficient=2,
    non_retryable=[CardDeclined],
)


async def order(ctx: AsyncWorkflowContext, amount: int) -> str:
    try:
        receipt = await ctx.call_activity(charge, input=amount, retry_policy=patient)
    except CardDeclined:
        return "declined"
    return await ctx.call_activity(ship, input=receipt)
