"""Queues, events, locks, semaphores, conditions, barriers; asynchronous generators and context variables."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading

import pytest
from surface import complete, result_of, seconds

aclosing = contextlib.aclosing


async def doubled(ctx, n):
    return await ctx.call_activity("double", input=n)


class TestQueues:
    @pytest.mark.parametrize(
        ("make", "expected"),
        [(asyncio.Queue, [3, 1, 2]), (asyncio.LifoQueue, [2, 1, 3]), (asyncio.PriorityQueue, [1, 2, 3])],
    )
    def test_give_back_what_they_were_given_in_their_order(self, make, expected):
        async def workflow(ctx):
            queue = make()
            for item in (3, 1, 2):
                queue.put_nowait(item)
            return [await queue.get() for _ in range(3)]

        assert result_of(workflow) == expected

    def test_connect_producers_and_consumers_across_turns(self):
        async def workflow(ctx):
            queue = asyncio.Queue(maxsize=2)
            received = []

            async def produce():
                for n in range(6):
                    await queue.put(await doubled(ctx, n))

            async def consume():
                while True:
                    received.append(await queue.get())
                    await asyncio.sleep(1)
                    queue.task_done()

            consumers = [asyncio.create_task(consume()) for _ in range(2)]
            await produce()
            await queue.join()
            for consumer in consumers:
                consumer.cancel()
            return received

        assert result_of(workflow) == [0, 2, 4, 6, 8, 10]

    def test_full_and_empty_raise_without_waiting(self):
        async def workflow(ctx):
            queue = asyncio.Queue(maxsize=1)
            raised = []
            try:
                queue.get_nowait()
            except asyncio.QueueEmpty:
                raised.append("empty")
            queue.put_nowait(1)
            try:
                queue.put_nowait(2)
            except asyncio.QueueFull:
                raised.append("full")
            return raised

        assert result_of(workflow) == ["empty", "full"]

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="shutdown came with Python 3.13")
    def test_shutdown_wakes_who_waits(self):
        async def workflow(ctx):
            queue = asyncio.Queue()

            async def consume():
                try:
                    await queue.get()
                except asyncio.QueueShutDown:
                    return "shut down"

            consumer = asyncio.create_task(consume())
            await asyncio.sleep(1)
            queue.shutdown()
            return await consumer

        assert result_of(workflow) == "shut down"


class TestEvent:
    def test_wakes_all_who_wait_in_their_order(self):
        async def workflow(ctx):
            event, woken = asyncio.Event(), []

            async def wait(n):
                await event.wait()
                woken.append(n)

            tasks = [asyncio.create_task(wait(n)) for n in range(5)]
            await doubled(ctx, 1)
            was_set = event.is_set()
            event.set()
            await asyncio.gather(*tasks)
            event.clear()
            return [was_set, woken, event.is_set()]

        assert result_of(workflow) == [False, [0, 1, 2, 3, 4], False]


class TestLock:
    def test_lets_one_in_at_a_time_in_the_order_of_asking(self):
        async def workflow(ctx):
            lock, order, inside = asyncio.Lock(), [], 0

            async def member(n):
                nonlocal inside
                async with lock:
                    inside += 1
                    assert inside == 1
                    order.append(await doubled(ctx, n))
                    inside -= 1

            await asyncio.gather(*(member(n) for n in range(4)))
            return [order, lock.locked()]

        assert result_of(workflow, seed=3) == [[0, 2, 4, 6], False]

    def test_a_waiter_that_is_cancelled_leaves_the_queue(self):
        async def workflow(ctx):
            lock = asyncio.Lock()
            await lock.acquire()
            waiter = asyncio.create_task(lock.acquire())
            next_one = asyncio.create_task(lock.acquire())
            await asyncio.sleep(1)
            waiter.cancel()
            await asyncio.sleep(1)
            lock.release()
            return [waiter.cancelled(), await next_one]

        assert result_of(workflow) == [True, True]


class TestSemaphores:
    def test_bound_how_many_run_at_once(self):
        async def workflow(ctx):
            semaphore, running, most = asyncio.Semaphore(3), 0, 0

            async def limited(n):
                nonlocal running, most
                async with semaphore:
                    running += 1
                    most = max(most, running)
                    result = await doubled(ctx, n)
                    running -= 1
                    return result

            results = await asyncio.gather(*(limited(n) for n in range(10)))
            return [results, most, semaphore.locked()]

        assert result_of(workflow, seed=1) == [[n * 2 for n in range(10)], 3, False]

    def test_bounded_refuses_a_release_too_many(self):
        async def workflow(ctx):
            semaphore = asyncio.BoundedSemaphore(1)
            async with semaphore:
                await asyncio.sleep(1)
            try:
                semaphore.release()
            except ValueError as error:
                return str(error)

        assert result_of(workflow) == "BoundedSemaphore released too many times"


class TestCondition:
    def test_notifies_as_many_as_it_is_told(self):
        async def workflow(ctx):
            condition, woken = asyncio.Condition(), []

            async def wait(n):
                async with condition:
                    await condition.wait()
                    woken.append(n)

            tasks = [asyncio.create_task(wait(n)) for n in range(4)]
            await asyncio.sleep(1)
            async with condition:
                condition.notify(1)
            await asyncio.sleep(1)
            first = list(woken)
            async with condition:
                condition.notify_all()
            await asyncio.gather(*tasks)
            return [first, woken]

        assert result_of(workflow) == [[0], [0, 1, 2, 3]]

    def test_wait_for_waits_for_what_it_is_told(self):
        async def workflow(ctx):
            condition, state = asyncio.Condition(), []

            async def fill():
                for n in range(3):
                    await asyncio.sleep(1)
                    async with condition:
                        state.append(n)
                        condition.notify_all()

            filling = asyncio.create_task(fill())
            async with condition:
                await condition.wait_for(lambda: len(state) == 3)
            await filling
            return [state, seconds()]

        assert result_of(workflow) == [[0, 1, 2], 3.0]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="barriers came with Python 3.11")
class TestBarrier:
    def test_lets_all_through_when_all_are_there(self):
        async def workflow(ctx):
            barrier, through = asyncio.Barrier(3), []

            async def member(n):
                await asyncio.sleep(n)
                async with barrier as position:
                    through.append([position, seconds()])

            await asyncio.gather(*(member(n) for n in (1, 2, 3)))
            return through

        assert sorted(result_of(workflow)) == [[0, 3.0], [1, 3.0], [2, 3.0]]

    def test_broken_it_raises(self):
        async def workflow(ctx):
            barrier = asyncio.Barrier(2)
            waiter = asyncio.create_task(barrier.wait())
            await asyncio.sleep(1)
            await barrier.abort()
            try:
                await waiter
            except asyncio.BrokenBarrierError:
                return barrier.broken

        assert result_of(workflow) is True


class TestAsyncGenerators:
    def test_yield_across_turns(self):
        async def workflow(ctx):
            async def numbers():
                for n in range(3):
                    yield await doubled(ctx, n)
                    await asyncio.sleep(1)

            return [n async for n in numbers()]

        assert result_of(workflow) == [0, 2, 4]

    def test_with_aclosing_run_their_end_where_they_are_left(self):
        async def workflow(ctx):
            log = []

            async def numbers():
                try:
                    for n in range(10):
                        yield n
                finally:
                    log.append(await doubled(ctx, 50))

            async with aclosing(numbers()) as generator:
                async for n in generator:
                    log.append(n)
                    if n == 2:
                        break
            return log

        assert result_of(workflow) == [0, 1, 2, 100]

    def test_abandoned_ones_run_their_end_with_their_instance_and_not_whenever_the_collector_likes(self):
        log: list[str] = []

        async def workflow(ctx):
            async def numbers():
                try:
                    yield 1
                    yield 2
                finally:
                    log.append("ran")

            async for _ in numbers():
                break
            gc.collect()
            log.append("workflow")
            return "done"

        assert result_of(workflow) == "done"
        gc.collect()
        assert log == ["workflow", "ran"] * (len(log) // 2)

    def test_async_with_and_exit_stacks_work(self):
        async def workflow(ctx):
            log = []

            @contextlib.asynccontextmanager
            async def resource(n):
                log.append(await doubled(ctx, n))
                try:
                    yield n
                finally:
                    await asyncio.sleep(1)
                    log.append(-n)

            async with contextlib.AsyncExitStack() as stack:
                for n in (1, 2):
                    await stack.enter_async_context(resource(n))
            return log

        assert result_of(workflow) == [2, 4, -2, -1]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="untouched")


class TestContextVariables:
    def test_belong_to_each_task(self):
        async def workflow(ctx):
            async def member(n):
                variable.set(n)
                await doubled(ctx, 1)
                return variable.get()

            variable.set("main")
            return [*await asyncio.gather(*(member(str(n)) for n in range(3))), variable.get()]

        assert result_of(workflow) == ["0", "1", "2", "main"]

    def test_outlive_an_await(self):
        async def workflow(ctx):
            variable.set("set before")
            await asyncio.sleep(1)
            return variable.get()

        assert result_of(workflow) == "set before"

    def test_do_not_leak_into_the_thread_that_runs_the_turn(self):
        async def workflow(ctx):
            variable.set("leaked")
            await asyncio.sleep(1)
            variable.set("leaked again")

        complete(workflow)
        assert variable.get() == "untouched"

    def test_do_not_leak_between_instances_on_one_thread(self):
        seen = []

        async def workflow(ctx):
            seen.append(variable.get())
            variable.set("mine")
            await asyncio.sleep(1)

        complete(workflow)
        assert set(seen) == {"untouched"}


class TestTheThread:
    def test_has_no_running_loop_before_or_after_workflow_code(self):
        async def workflow(ctx):
            await asyncio.sleep(1)
            return asyncio.get_running_loop() is asyncio.get_event_loop()

        assert result_of(workflow) is True
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()

    def test_keeps_its_own_running_loop_and_task(self):
        async def workflow(ctx):
            await asyncio.sleep(1)
            return asyncio.current_task().get_name()

        async def application():
            before = asyncio.get_running_loop(), asyncio.current_task()
            result = result_of(workflow)
            return result, before == (asyncio.get_running_loop(), asyncio.current_task())

        assert asyncio.run(application()) == ("workflow", True)

    def test_keeps_its_hooks_for_asynchronous_generators(self):
        async def workflow(ctx):
            await asyncio.sleep(1)

        before = sys.get_asyncgen_hooks()
        complete(workflow)
        assert sys.get_asyncgen_hooks() == before

    def test_may_be_any(self):
        async def workflow(ctx):
            await asyncio.sleep(1)
            return await doubled(ctx, 2)

        results = []
        thread = threading.Thread(target=lambda: results.append(result_of(workflow)))
        thread.start()
        thread.join(60)
        assert results == [4]
