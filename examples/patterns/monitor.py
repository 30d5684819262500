"""Monitor: poll a status with increasing intervals; `continue_as_new` keeps the history short."""

import asyncio
from dataclasses import dataclass

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.testing import WorkflowEnvironment
from durabletask.task import ActivityContext

statuses = iter(["queued", "running", "running", "running", "done"])


@dataclass
class Poll:
    job: str
    interval: int = 60
    number: int = 1


def status(ctx: ActivityContext, job: str) -> str:
    return next(statuses)


async def monitor(ctx: AsyncWorkflowContext, poll: Poll) -> str | None:
    if await ctx.call_activity(status, input=poll.job) == "done":
        return f"{poll.job} was done at poll {poll.number}"
    await ctx.sleep(poll.interval)
    ctx.continue_as_new(Poll(poll.job, min(2 * poll.interval, 3600), poll.number + 1))
    return None


async def main() -> None:
    async with WorkflowEnvironment(orchestrators=[monitor], activities=[status]) as env:
        began = env.now
        print(await env.execute(monitor, input=Poll("backup")))
        print(f"after {round((env.now - began).total_seconds() / 60)} minutes")


if __name__ == "__main__":
    asyncio.run(main())
