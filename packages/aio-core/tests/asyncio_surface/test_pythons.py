"""Where asyncio differs between Python versions, and what this project keeps the same on all of them."""

from __future__ import annotations

import asyncio
import sys

from surface import complete, kinds, result_of, seconds

SINCE_3_12 = sys.version_info >= (3, 12)


async def work(ctx, n):
    return await ctx.call_activity("double", input=n)


def actions_of_the_first_turn(workflow):
    return kinds(complete(workflow).turns[0])


def inputs_of(workflow):
    instance = complete(workflow)
    return [
        action.scheduleTask.input.value for turn in instance.turns for action in turn if action.HasField("scheduleTask")
    ]


class TestWaitFor:
    def test_starts_a_coroutine_at_once_since_3_12_and_one_step_later_before(self):
        async def workflow(ctx):
            return await asyncio.gather(*(asyncio.wait_for(work(ctx, n), 5) for n in (1, 2)))

        before = ["createTimer", "createTimer", "scheduleTask", "scheduleTask"]
        since = ["createTimer", "scheduleTask", "createTimer", "scheduleTask"]
        assert actions_of_the_first_turn(workflow) == (since if SINCE_3_12 else before)

    def test_of_the_context_is_the_same_on_all(self):
        async def workflow(ctx):
            return await asyncio.gather(*(ctx.with_timeout(work(ctx, n), 5) for n in (1, 2)))

        assert actions_of_the_first_turn(workflow) == ["createTimer", "createTimer", "scheduleTask", "scheduleTask"]


class TestGatherOfWhatIsDone:
    async def two_tasks(self, ctx, gather):
        done = ctx.call_activity("double", input=0)
        await done

        async def one():
            await gather(ctx)(done, done)
            await work(ctx, "gathered")

        async def another():
            await asyncio.sleep(0)
            await work(ctx, "slept")

        await asyncio.gather(one(), another())

    def test_is_done_at_once_since_3_12_and_one_step_later_before(self):
        async def workflow(ctx):
            await self.two_tasks(ctx, lambda ctx: asyncio.gather)

        expected = ["0", '"gathered"', '"slept"'] if SINCE_3_12 else ["0", '"slept"', '"gathered"']
        assert inputs_of(workflow) == expected

    def test_of_the_context_is_done_at_once_on_all(self):
        async def workflow(ctx):
            await self.two_tasks(ctx, lambda ctx: ctx.gather)

        assert inputs_of(workflow) == ["0", '"gathered"', '"slept"']


class TestCondition:
    def test_a_wait_that_timed_out_goes_on_when_it_has_the_lock_again_on_all(self):
        async def workflow(ctx):
            condition = asyncio.Condition()

            async def waiter():
                async with condition:
                    try:
                        await ctx.with_timeout(condition.wait(), 5)
                    except TimeoutError:
                        return seconds()

            async def holder():
                await ctx.sleep(1)
                async with condition:
                    await ctx.sleep(100)

            return (await asyncio.gather(waiter(), holder()))[0]

        assert result_of(workflow) == 101.0

    def test_the_notification_of_a_waiter_that_is_cancelled_is_lost_before_3_13(self):
        async def workflow(ctx):
            condition = asyncio.Condition()

            async def waiter():
                async with condition:
                    await condition.wait()

            first, second = asyncio.create_task(waiter()), asyncio.create_task(waiter())
            await ctx.sleep(1)
            async with condition:
                condition.notify(1)
            first.cancel()
            await ctx.sleep(1)
            passed_on = second.done()
            second.cancel()
            return passed_on

        passed_on = result_of(workflow)
        if sys.version_info[:2] != (3, 12):  # where it depends on the patch release
            assert passed_on == (sys.version_info >= (3, 13))
