"""Fan out, fan in: process many items concurrently, at most three at a time, each in its own sub-workflow."""

import asyncio

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.testing import WorkflowEnvironment
from durabletask.task import ActivityContext


def shrink(ctx: ActivityContext, photo: str) -> int:
    return 100 * len(photo)


def store(ctx: ActivityContext, size: int) -> int:
    return size


async def photo(ctx: AsyncWorkflowContext, name: str) -> int:
    size = await ctx.call_activity(shrink, input=name)
    return await ctx.call_activity(store, input=size)


async def album(ctx: AsyncWorkflowContext, names: list[str]) -> str:
    slots = asyncio.Semaphore(3)

    async def one(name: str) -> int:
        async with slots:
            return await ctx.call_sub_orchestrator(photo, input=name)

    sizes = await asyncio.gather(*(one(name) for name in names))
    return f"{len(sizes)} photos, {sum(sizes)} bytes"


async def main() -> None:
    async with WorkflowEnvironment(orchestrators=[album, photo], activities=[shrink, store]) as env:
        print(await env.execute(album, input=["sea", "hill", "cloud", "river", "garden"]))


if __name__ == "__main__":
    asyncio.run(main())
