"""Chaining: each step uses the result of the previous one; a step that may fail is retried."""

import asyncio
from datetime import timedelta

from durabletask.aio import AsyncWorkflowContext, RetryPolicy
from durabletask.aio.testing import WorkflowEnvironment
from durabletask.task import ActivityContext

BACKOFF = RetryPolicy(
    first_retry_interval=timedelta(seconds=5),
    max_number_of_attempts=3,
    backoff_coefficient=2,
)


def fetch(ctx: ActivityContext, page: str) -> str:
    return f"a long text about {page}"


def summarise(ctx: ActivityContext, text: str) -> str:
    return text.replace("a long text", "a word")


def publish(ctx: ActivityContext, summary: str) -> str:
    return f"published {summary}"


async def digest(ctx: AsyncWorkflowContext, page: str) -> str:
    text = await ctx.call_activity(fetch, input=page, retry_policy=BACKOFF)
    summary = await ctx.call_activity(summarise, input=text)
    return await ctx.call_activity(publish, input=summary)


async def main() -> None:
    activities = [fetch, summarise, publish]
    async with WorkflowEnvironment(orchestrators=[digest], activities=activities) as env:
        print(await env.execute(digest, input="tea"))


if __name__ == "__main__":
    asyncio.run(main())
