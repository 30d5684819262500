"""Approval: ask one person, and another if there is no answer within three days."""

import asyncio
from datetime import timedelta

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.testing import WorkflowEnvironment
from durabletask.task import ActivityContext


def ask(ctx: ActivityContext, whom: str) -> None:
    print(f"asked {whom}")


async def expense(ctx: AsyncWorkflowContext, amount: int) -> str:
    for whom in ("the manager", "the director"):
        await ctx.call_activity(ask, input=whom)
        ctx.set_custom_status(f"waiting for {whom}")
        answer = ctx.wait_for_external_event("answer", data_type=bool)
        try:
            approved = await ctx.with_timeout(answer, timedelta(days=3))
        except TimeoutError:
            continue
        return f"{amount} euros {'approved' if approved else 'refused'} by {whom}"
    return f"{amount} euros: no answer"


async def main() -> None:
    async with WorkflowEnvironment(orchestrators=[expense], activities=[ask]) as env:
        handle = await env.start(expense, input=120)
        await env.advance(timedelta(days=4))
        print(handle.custom_status)
        await handle.raise_event("answer", True)
        print(await handle.result())


if __name__ == "__main__":
    asyncio.run(main())
