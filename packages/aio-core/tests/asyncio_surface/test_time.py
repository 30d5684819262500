"""sleep, wait_for, timeout, timeout_at: everything of asyncio that takes time takes it from durable timers."""

from __future__ import annotations

import asyncio
import math
import sys
from typing import Any, cast

import pytest
from durabletask.aio import as_orchestrator
from surface import complete, failure_of, kinds, result_of, seconds

NEEDS_TIMEOUT = pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with Python 3.11")
TIMEOUTS = "builtins.TimeoutError" if sys.version_info >= (3, 11) else "asyncio.exceptions.TimeoutError"


class TestSleep:
    def test_zero_gives_way_to_other_tasks_without_a_timer(self):
        async def workflow(ctx):
            order = []

            async def other():
                order.append("other")

            task = asyncio.create_task(other())
            await asyncio.sleep(0)
            order.append("main")
            await task
            return order

        instance = complete(workflow)
        assert instance.result == ["other", "main"]
        assert kinds(instance.turns[0]) == ["completeOrchestration"]

    @pytest.mark.parametrize("delay", [0.000_001, 0.1, 1 / 3, 1.5])
    def test_a_fraction_of_a_second_is_exact_to_the_microsecond(self, delay):
        async def workflow(ctx):
            await asyncio.sleep(delay)

        instance = complete(workflow)
        fire_at = instance.turns[0][0].createTimer.fireAt.ToMicroseconds()
        assert fire_at - instance.history[0].timestamp.ToMicroseconds() == round(delay * 1e6)

    def test_ten_days_take_ten_days_though_the_engine_has_shorter_timers(self):
        async def workflow(ctx):
            await asyncio.sleep(10 * 86_400)
            return seconds()

        instance = complete(workflow)
        assert instance.result == 10 * 86_400
        assert sum(kinds(turn).count("createTimer") for turn in instance.turns) > 1

    def test_gives_its_result(self):
        async def workflow(ctx):
            return await asyncio.sleep(1, "rested")

        assert result_of(workflow) == "rested"

    def test_for_ever_sets_no_timer(self):
        async def workflow(ctx):
            asyncio.create_task(asyncio.sleep(math.inf))
            await asyncio.sleep(1)
            return "left it asleep"

        instance = complete(workflow)
        assert instance.result == "left it asleep"
        assert kinds(instance.turns[0]) == ["createTimer"]

    def test_less_than_a_microsecond_sets_no_timer(self):
        async def workflow(ctx):
            await asyncio.sleep(1e-7)

        assert kinds(complete(workflow).turns[0]) == ["completeOrchestration"]

    def test_a_time_that_has_passed_is_now(self):
        async def workflow(ctx):
            await asyncio.sleep(-1)

        assert kinds(complete(workflow).turns[0]) == ["completeOrchestration"]

    def test_is_the_same_action_as_a_timer_of_the_context(self):
        async def sleeps(ctx):
            await asyncio.sleep(2.5)

        async def waits(ctx):
            await ctx.create_timer(2.5)

        first, second = complete(sleeps), complete(waits)
        assert first.turns[0][0].SerializeToString() == second.turns[0][0].SerializeToString()


class TestWaitFor:
    def test_gives_the_result_in_time(self):
        async def workflow(ctx):
            return await asyncio.wait_for(ctx.call_activity("double", input=4), 10)

        assert result_of(workflow) == 8

    def test_takes_its_timer_back_when_it_is_not_needed(self):
        async def workflow(ctx):
            await asyncio.wait_for(asyncio.sleep(1), 100)
            await asyncio.sleep(1)
            return seconds()

        instance = complete(workflow)
        assert instance.result == 2.0
        # Upstream knows nothing of the long one any more; the engine will fire it into the void.
        assert len(instance.outstanding) == 1

    def test_raises_when_time_runs_out_and_cancels_what_it_waited_for(self):
        async def workflow(ctx):
            sleeping = asyncio.create_task(asyncio.sleep(100))
            try:
                await asyncio.wait_for(sleeping, 1)
            except asyncio.TimeoutError:
                return [seconds(), sleeping.cancelled()]

        assert result_of(workflow) == [1.0, True]

    def test_zero_takes_what_is_done_and_nothing_else(self):
        async def workflow(ctx):
            operation = ctx.call_activity("double", input=1)
            try:
                await asyncio.wait_for(asyncio.shield(operation), 0)
            except asyncio.TimeoutError:
                early = "too early"
            await operation
            return [early, await asyncio.wait_for(operation, 0)]

        assert result_of(workflow) == ["too early", 2]

    def test_none_waits_for_ever(self):
        async def workflow(ctx):
            return await asyncio.wait_for(asyncio.sleep(1000, "done"), None)

        assert result_of(workflow) == "done"

    def test_an_uncaught_timeout_fails_the_instance_as_such(self):
        async def workflow(ctx):
            await asyncio.wait_for(asyncio.sleep(10), 1)

        assert failure_of(workflow).errorType == TIMEOUTS

    def test_a_wait_for_an_event_that_timed_out_does_not_swallow_the_next_event(self):
        async def workflow(ctx):
            try:
                await asyncio.wait_for(ctx.wait_for_external_event("go"), 1)
            except asyncio.TimeoutError:
                return await ctx.wait_for_external_event("go")

        assert result_of(workflow, events=[(5, "go", "at last")]) == "at last"


@NEEDS_TIMEOUT
class TestTimeout:
    def test_raises_timeout_error_at_its_end(self):
        async def workflow(ctx):
            try:
                async with asyncio.timeout(2) as limit:
                    await ctx.call_activity("double", input=1)
                    await asyncio.sleep(100)
            except TimeoutError:
                return [seconds(), limit.expired(), asyncio.current_task().cancelling()]

        assert result_of(workflow) == [2.0, True, 0]

    def test_sets_a_timer_of_its_length_and_takes_it_back(self):
        async def workflow(ctx):
            async with asyncio.timeout(1000):
                await ctx.call_activity("double", input=1)
            return "in time"

        instance = complete(workflow)
        assert instance.result == "in time"
        assert kinds(instance.turns[0]) == ["createTimer", "scheduleTask"]

    def test_taken_back_in_the_turn_of_its_making_leaves_no_action(self):
        async def workflow(ctx):
            async with asyncio.timeout(1000):
                pass
            return await ctx.call_activity("double", input=1)

        instance = complete(workflow)
        assert [action.id for action in instance.turns[0]] == [2]  # the number 1 is gone, on replay too
        assert instance.result == 2

    def test_none_is_no_limit(self):
        async def workflow(ctx):
            async with asyncio.timeout(None) as limit:
                await asyncio.sleep(1)
            return [limit.when(), limit.expired()]

        assert result_of(workflow) == [None, False]

    def test_timeout_at_is_on_the_clock_of_the_loop(self):
        async def workflow(ctx):
            deadline = asyncio.get_running_loop().time() + 3
            try:
                async with asyncio.timeout_at(deadline) as limit:
                    await asyncio.sleep(100)
            except TimeoutError:
                return [seconds(), limit.when() == deadline]

        assert result_of(workflow) == [3.0, True]

    def test_reschedule_moves_the_end_both_ways(self):
        async def workflow(ctx):
            loop = asyncio.get_running_loop()
            ends = []
            for moved_to in (1, 20):
                begin = loop.time()
                try:
                    async with asyncio.timeout(10) as limit:
                        limit.reschedule(begin + moved_to)
                        await asyncio.sleep(100)
                except TimeoutError:
                    ends.append(round(loop.time() - begin, 1))
            return ends

        assert result_of(workflow) == [1.0, 20.0]

    def test_nested_the_inner_one_ends_first_and_alone(self):
        async def workflow(ctx):
            log = []
            async with asyncio.timeout(100) as outer:
                try:
                    async with asyncio.timeout(1) as inner:
                        await asyncio.sleep(50)
                except TimeoutError:
                    log.append("inner")
                await asyncio.sleep(1)
            return [*log, inner.expired(), outer.expired(), seconds()]

        assert result_of(workflow) == ["inner", True, False, 2.0]

    def test_nested_with_one_deadline_all_of_them_expire(self):
        async def workflow(ctx):
            deadline = asyncio.get_running_loop().time() + 1
            try:
                async with asyncio.timeout_at(deadline) as outer, asyncio.timeout_at(deadline) as inner:
                    await asyncio.sleep(100)
            except TimeoutError:
                return [outer.expired(), inner.expired()]

        assert result_of(workflow) == [True, True]

    def test_a_cancellation_from_outside_is_no_timeout(self):
        async def workflow(ctx):
            async def patient():
                async with asyncio.timeout(100):
                    await asyncio.sleep(50)

            task = asyncio.create_task(patient())
            await asyncio.sleep(1)
            task.cancel("enough")
            try:
                await task
            except asyncio.CancelledError as error:
                return [*error.args, task.cancelled()]

        assert result_of(workflow) == ["enough", True]


class TestTheClock:
    def test_stands_still_within_a_turn_and_starts_at_nought(self):
        async def workflow(ctx):
            loop = asyncio.get_running_loop()
            first, second = loop.time(), loop.time()
            await asyncio.sleep(7)
            return [first, second, seconds()]

        assert result_of(workflow) == [0.0, 0.0, 7.0]

    def test_call_later_and_call_at_are_durable_and_ordered_by_time(self):
        async def workflow(ctx):
            loop, called = asyncio.get_running_loop(), []
            loop.call_later(2, called.append, "later")
            loop.call_at(loop.time() + 1, called.append, "at")
            loop.call_soon(called.append, "soon")
            await asyncio.sleep(3)
            return called

        assert result_of(workflow) == ["soon", "at", "later"]

    def test_timers_of_one_moment_fire_in_the_order_of_their_creation(self):
        async def workflow(ctx):
            loop, called = asyncio.get_running_loop(), []
            for number in range(5):
                loop.call_later(1, called.append, number)
            await asyncio.sleep(2)
            return called

        # Also when the engine delivers their events the other way round.
        from turns import Instance

        instance = Instance(as_orchestrator(workflow)).start()
        assert result_of(workflow) == [0, 1, 2, 3, 4]
        for step in (5, 4, 3, 2, 1):
            instance.turn(instance.fired(step))
        instance.turn(instance.fired(6))
        assert instance.result == [0, 1, 2, 3, 4]

    def test_a_timer_handle_that_is_cancelled_sets_nothing_off(self):
        async def workflow(ctx):
            loop, called = asyncio.get_running_loop(), []
            handle = loop.call_later(1, called.append, "never")
            assert not handle.cancelled()
            handle.cancel()
            handle.cancel()
            await asyncio.sleep(5)
            return [called, handle.cancelled(), handle.when()]

        assert result_of(workflow) == [[], True, 1.0]


def test_the_handle_of_a_callback_tells_what_it_is_and_whether_it_was_cancelled():
    async def workflow(ctx):
        loop, called = asyncio.get_running_loop(), []
        handles = [loop.call_soon(called.append, "soon"), loop.call_later(0, called.append, "at once")]
        handles += [loop.call_soon(called.append, "never"), loop.call_later(0, called.append, "never")]
        seen = ["append" in repr(handle) for handle in handles]
        for handle in handles[2:]:
            handle.cancel()
            handle.cancel()
        seen += [handle.cancelled() for handle in handles]
        await asyncio.sleep(0)
        seen += ["cancelled" in repr(handle) for handle in handles]
        return [seen, called]

    assert result_of(workflow) == [[True] * 4 + [False, False, True, True] * 2, ["soon", "at once"]]


class TestCallSoon:
    def test_takes_the_callback_by_keyword_as_other_loops_do(self):
        async def workflow(ctx):
            done = asyncio.Event()
            asyncio.get_running_loop().call_soon(callback=done.set)
            await done.wait()
            return "called"

        assert result_of(workflow) == "called"

    def test_without_a_callback_it_fails_at_the_call(self):
        async def workflow(ctx):
            with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'callback'"):
                cast(Any, asyncio.get_running_loop()).call_soon()
            await ctx.sleep(1)
            return "went on"

        assert result_of(workflow) == "went on"
