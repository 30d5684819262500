"""Monitor: something is looked at again and again, with growing pauses, and never with a long history."""

import asyncio
from dataclasses import dataclass

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.testing import WorkflowEnvironment
from durabletask.task import ActivityContext

looks = iter(["queued", "running", "running", "running", "done"])


@dataclass
class Watch:
    job: str
    pause: int = 60
    look: int = 1


def status(ctx: ActivityContext, job: str) -> str:
    return next(looks)


async def monitor(ctx: AsyncWorkflowContext, watch: Watch) -> str | None:
    if await ctx.call_activity(status, input=watch.job) == "done":
        return f"{watch.job} was done at look {watch.look}"
    await ctx.sleep(watch.pause)
    ctx.continue_as_new(Watch(watch.job, min(2 * watch.pause, 3600), watch.look + 1))
    return None


async def main() -> None:
    async with WorkflowEnvironment(orchestrators=[monitor], activities=[status]) as env:
        began = env.now
        print(await env.execute(monitor, input=Watch("backup")))
        print(f"after {round((env.now - began).total_seconds() / 60)} minutes")


if __name__ == "__main__":
    asyncio.run(main())
