import asyncio
import os
from datetime import timedelta

from durabletask.aio import AsyncWorkflowContext, RetryPolicy, raises
from durabletask.aio.engine import Engine
from durabletask.task import ActivityContext


class CardDeclined(Exception):
    """The bank has refused. Another attempt does not help."""


@raises(CardDeclined)
def charge(ctx: ActivityContext, amount: int) -> str:
    print(f"charging {amount} euros", flush=True)
    if amount > 100:
        raise CardDeclined("the limit is 100 euros")
    return f"receipt for {amount} euros"


def refund(ctx: ActivityContext, receipt: str) -> str:
    print(f"refunding: {receipt}", flush=True)
    return "refunded"


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
    ctx.set_custom_status("waiting for pickup")
    try:
        van = await ctx.with_timeout(ctx.wait_for_external_event("picked-up", data_type=str), timedelta(days=3))
    except TimeoutError:
        return await ctx.call_activity(refund, input=receipt)
    return f"on its way with {van}, {receipt}"


async def main() -> None:
    async with Engine("shop.db") as engine, engine.worker() as worker:
        worker.add_orchestrator(order)
        worker.add_activity(charge)
        worker.add_activity(refund)
        worker.start()
        engine.listen(int(os.environ.get("PORT", "4001")))
        client = engine.async_client()
        if await client.get_orchestration_state("order-1") is None:
            await client.schedule_new_orchestration("order", input=5, instance_id="order-1")
        state = await client.wait_for_orchestration_completion("order-1", timeout=600)
        print(state.get_output() if state else "lost")


if __name__ == "__main__":
    asyncio.run(main())
