"""Stop on request: an event cancels the work at its next step, and an activity cleans up."""

import asyncio
from datetime import timedelta

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.testing import WorkflowEnvironment
from durabletask.task import ActivityContext


def copy(ctx: ActivityContext, part: int) -> None:
    print(f"copied part {part}")


def tidy_up(ctx: ActivityContext, _: None) -> None:
    print("tidied up")


async def copy_all(ctx: AsyncWorkflowContext, parts: int) -> str:
    for part in range(parts):
        await ctx.call_activity(copy, input=part)
        await ctx.sleep(timedelta(minutes=1))
    return "all copied"


async def backup(ctx: AsyncWorkflowContext, parts: int) -> str:
    work = asyncio.create_task(copy_all(ctx, parts))
    stop: asyncio.Future[str] = ctx.wait_for_external_event("stop", data_type=str)
    index, value = await ctx.when_any_with_result([work, stop])
    if index == 0:
        return value
    work.cancel()
    await ctx.call_activity(tidy_up)
    return f"stopped: {value}"


async def main() -> None:
    async with WorkflowEnvironment(orchestrators=[backup], activities=[copy, tidy_up]) as env:
        handle = await env.start(backup, input=100)
        await env.advance(timedelta(seconds=90))
        await handle.raise_event("stop", "the disk is wanted")
        print(await handle.result())


if __name__ == "__main__":
    asyncio.run(main())
