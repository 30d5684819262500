"""An order that survives the death of its process: the program of README.md and docs/quick-start.md.

`python3 scripts/quickstart.py` sets everything up and shows it.
"""

import asyncio
import os
import sys

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.engine import Engine
from durabletask.task import ActivityContext


def charge(ctx: ActivityContext, amount: int) -> str:
    print(f"charging {amount} euros", flush=True)
    return f"receipt for {amount} euros"


def ship(ctx: ActivityContext, receipt: str) -> str:
    print("shipping", flush=True)
    if "--crash" in sys.argv:
        os.kill(os.getpid(), 9)  # kill -9: no handler runs, nothing is cleaned up
    return f"shipped, {receipt}"


async def order(ctx: AsyncWorkflowContext, amount: int) -> str:
    receipt = await ctx.call_activity(charge, input=amount)
    await asyncio.sleep(1)  # a durable timer
    return await ctx.call_activity(ship, input=receipt)


async def main() -> None:
    async with Engine("orders.db") as engine, engine.worker() as worker:
        worker.add_orchestrator(order)
        worker.add_activity(charge)
        worker.add_activity(ship)
        worker.start()
        client = engine.async_client()
        if await client.get_orchestration_state("order-1") is None:
            await client.schedule_new_orchestration("order", input=5, instance_id="order-1")
        state = await client.wait_for_orchestration_completion("order-1")
        print(state.get_output() if state else "lost")


if __name__ == "__main__":
    asyncio.run(main())
