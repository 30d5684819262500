"""Tasks: making them, naming them, asking for them, gathering, waiting for and shielding them."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from durabletask.aio import ActivityFailedError
from surface import complete, failure_of, kinds, result_of, seconds

if sys.version_info >= (3, 11):
    from builtins import ExceptionGroup
else:
    from exceptiongroup import ExceptionGroup

NEEDS_EAGER = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
NEEDS_UNCANCEL = pytest.mark.skipif(sys.version_info < (3, 11), reason="uncancel came with Python 3.11")


async def doubled(ctx, n):
    return await ctx.call_activity("double", input=n)


class TestCreateTask:
    def test_runs_concurrently_with_its_creator(self):
        async def workflow(ctx):
            tasks = [asyncio.create_task(doubled(ctx, n)) for n in range(3)]
            await ctx.call_activity("double", input=9)
            return [await task for task in tasks]

        instance = complete(workflow)
        assert instance.result == [0, 2, 4]
        # The creator's own call comes first; its tasks start in the order of creation once it waits.
        assert [action.scheduleTask.input.value for action in instance.turns[0]] == ["9", "0", "1", "2"]

    def test_takes_an_operation_too(self):
        async def workflow(ctx):
            task = asyncio.create_task(ctx.call_activity("double", input=4))
            return [await task, isinstance(task, asyncio.Task)]

        assert result_of(workflow) == [8, True]

    def test_numbers_names_per_instance_and_keeps_given_ones(self):
        async def workflow(ctx):
            async def nothing():
                pass

            tasks = [asyncio.create_task(nothing()), asyncio.create_task(nothing(), name="mine")]
            await asyncio.wait(tasks)
            return [asyncio.current_task().get_name(), *(task.get_name() for task in tasks)]

        first, second = result_of(workflow), result_of(workflow)
        assert first == second
        assert first[0] == "workflow"
        assert first[1].startswith("Task-")
        assert first[2] == "mine"

    def test_keeps_a_task_alive_that_nobody_else_refers_to(self):
        import gc

        async def workflow(ctx):
            done = []

            async def background():
                await asyncio.sleep(1)
                gc.collect()
                await asyncio.sleep(1)
                done.append("background")

            asyncio.create_task(background())
            gc.collect()
            await asyncio.sleep(5)
            return done

        gc.freeze()  # What other tests have left need not be looked through each time.
        try:
            assert result_of(workflow) == ["background"]
        finally:
            gc.unfreeze()

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="the parameter came with Python 3.11")
    def test_runs_in_the_context_it_is_given(self):
        import contextvars

        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

        async def workflow(ctx):
            async def look():
                await asyncio.sleep(1)
                return variable.get()

            context = contextvars.copy_context()
            context.run(variable.set, "given")
            return [await asyncio.create_task(look(), context=context), await asyncio.create_task(look())]

        assert result_of(workflow) == ["given", "unset"]

    @NEEDS_EAGER
    def test_starts_eagerly_on_request(self):
        async def workflow(ctx):
            order = []

            async def eager():
                order.append("task")
                result = await ctx.call_activity("double", input=1)
                order.append("end")
                return result

            task = asyncio.Task(eager(), loop=asyncio.get_running_loop(), eager_start=True)
            order.append("creator")
            await task
            return order

        assert result_of(workflow) == ["task", "creator", "end"]

    @NEEDS_EAGER
    def test_of_the_loop_starts_eagerly_on_request_and_may_be_done_at_once(self):
        async def workflow(ctx):
            async def immediate():
                return "done"

            loop = asyncio.get_running_loop()
            task = loop.create_task(immediate(), eager_start=True)
            later = loop.create_task(doubled(ctx, 4), eager_start=True)
            return [task.done(), later.done(), await task, await later, len(asyncio.all_tasks())]

        assert result_of(workflow) == [True, False, "done", 8, 1]

    def test_ensure_future_makes_tasks_of_coroutines_and_leaves_futures_alone(self):
        async def workflow(ctx):
            operation = ctx.call_activity("double", input=1)
            task = asyncio.ensure_future(doubled(ctx, 2))
            return [asyncio.ensure_future(operation) is operation, await task, await operation]

        assert result_of(workflow) == [True, 4, 2]

    def test_ensure_future_takes_anything_that_can_be_awaited(self):
        class Awaitable:
            def __init__(self, ctx):
                self.ctx = ctx

            def __await__(self):
                return self.ctx.call_activity("double", input=3).__await__()

        async def workflow(ctx):
            return await asyncio.ensure_future(Awaitable(ctx))

        assert result_of(workflow) == 6


class TestCurrentTask:
    def test_is_a_real_task_of_the_running_loop(self):
        async def workflow(ctx):
            task = asyncio.current_task()
            return [
                isinstance(task, asyncio.Task),
                task is asyncio.current_task(asyncio.get_running_loop()),
                task.get_loop() is asyncio.get_running_loop(),
                task.get_coro() is not None,
                task.done(),
            ]

        assert result_of(workflow) == [True, True, True, True, False]

    def test_is_the_one_that_runs(self):
        async def workflow(ctx):
            async def name():
                before = asyncio.current_task().get_name()
                await asyncio.sleep(1)
                return before == asyncio.current_task().get_name(), before

            return await asyncio.gather(
                asyncio.create_task(name(), name="first"), asyncio.create_task(name(), name="second")
            )

        assert result_of(workflow) == [[True, "first"], [True, "second"]]

    def test_there_is_none_outside_of_workflow_code(self):
        async def workflow(ctx):
            await asyncio.sleep(1)

        complete(workflow)
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.current_task()

    def test_all_tasks_are_those_of_the_instance_and_can_be_sorted_by_name(self):
        async def workflow(ctx):
            for number in range(20):
                asyncio.create_task(asyncio.sleep(100), name=str(number))
            await asyncio.sleep(1)
            return [task.get_name() for task in sorted(asyncio.all_tasks(), key=asyncio.Task.get_name)]

        assert result_of(workflow) == sorted([*map(str, range(20)), "workflow"])


class TestGather:
    def test_gives_results_in_the_order_asked_whatever_comes_first(self):
        async def workflow(ctx):
            return await asyncio.gather(*(ctx.call_activity("double", input=n) for n in range(10)))

        for seed in range(5):
            assert result_of(workflow, seed=seed) == [n * 2 for n in range(10)]

    def test_runs_helpers_concurrently(self):
        async def workflow(ctx):
            async def twice(n):
                return await doubled(ctx, await doubled(ctx, n))

            return await asyncio.gather(*(twice(n) for n in range(3)))

        instance = complete(workflow)
        assert instance.result == [0, 4, 8]
        assert kinds(instance.turns[0]) == ["scheduleTask"] * 3

    def test_of_nothing_is_nothing(self):
        async def workflow(ctx):
            return await asyncio.gather()

        assert result_of(workflow) == []

    def test_of_the_same_twice_has_it_twice(self):
        async def workflow(ctx):
            operation = ctx.call_activity("double", input=1)
            return await asyncio.gather(operation, operation)

        assert result_of(workflow) == [2, 2]

    def test_raises_the_first_failure_and_lets_the_others_go_on(self):
        async def workflow(ctx):
            other = asyncio.create_task(asyncio.sleep(5, "went on"))
            try:
                await asyncio.gather(ctx.call_activity("fail", input="broken"), other)
            except ActivityFailedError:
                return [seconds() < 1, await other]

        assert result_of(workflow) == [True, "went on"]

    def test_returns_exceptions_on_request(self):
        async def workflow(ctx):
            results = await asyncio.gather(
                ctx.call_activity("fail", input="broken"), doubled(ctx, 2), return_exceptions=True
            )
            return [type(results[0]).__name__, results[1]]

        assert result_of(workflow) == ["ActivityFailedError", 4]

    def test_cancelled_it_cancels_its_parts(self):
        async def workflow(ctx):
            timer, task = ctx.create_timer(100), asyncio.create_task(asyncio.sleep(100))
            gathering = asyncio.gather(timer, task)
            await asyncio.sleep(1)
            gathering.cancel()
            try:
                await gathering
            except asyncio.CancelledError:
                return [timer.cancelled(), task.cancelled()]

        assert result_of(workflow) == [True, True]

    def test_a_failure_without_a_catcher_fails_the_instance(self):
        async def workflow(ctx):
            await asyncio.gather(doubled(ctx, 1), ctx.call_activity("fail", input="broken"))

        failure = failure_of(workflow)
        assert failure.errorType == "durabletask.task.TaskFailedError"
        assert "broken" in failure.errorMessage


class TestWait:
    def test_all_completed(self):
        async def workflow(ctx):
            tasks = [asyncio.create_task(asyncio.sleep(n, n)) for n in (3, 1, 2)]
            done, pending = await asyncio.wait(tasks)
            return [sorted(task.result() for task in done), len(pending), seconds()]

        assert result_of(workflow) == [[1, 2, 3], 0, 3.0]

    def test_first_completed(self):
        async def workflow(ctx):
            operations = [ctx.create_timer(n) for n in (3, 1, 2)]
            done, pending = await asyncio.wait(operations, return_when=asyncio.FIRST_COMPLETED)
            return [[operations.index(each) for each in done], len(pending), seconds()]

        assert result_of(workflow) == [[1], 2, 1.0]

    def test_first_exception(self):
        async def workflow(ctx):
            async def fail_after(delay):
                await asyncio.sleep(delay)
                raise ValueError(delay)

            tasks = [asyncio.create_task(fail_after(2)), *(asyncio.create_task(asyncio.sleep(n)) for n in (1, 3))]
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            return [len(done), len(pending), seconds(), repr(tasks[0].exception())]

        assert result_of(workflow) == [2, 1, 2.0, "ValueError(2)"]

    def test_timeout_ends_the_wait_and_cancels_nothing(self):
        async def workflow(ctx):
            tasks = [asyncio.create_task(asyncio.sleep(n, n)) for n in (1, 10)]
            done, pending = await asyncio.wait(tasks, timeout=2)
            first = [len(done), len(pending), seconds()]
            done, pending = await asyncio.wait(tasks, timeout=0)
            return [*first, len(done), len(pending), await tasks[1]]

        assert result_of(workflow) == [1, 1, 2.0, 1, 1, 10]

    def test_its_sets_iterate_in_the_same_order_each_time(self):
        async def workflow(ctx):
            tasks = [asyncio.create_task(asyncio.sleep(1, n)) for n in range(30)]
            operations = [ctx.create_timer(1) for _ in range(10)]
            done, _ = await asyncio.wait([*tasks, *operations])
            everything = [*tasks, *operations]
            return [everything.index(each) for each in done]

        first = result_of(workflow)
        assert sorted(first) == list(range(40))
        ballast = [object() for _ in range(5_000)]
        assert result_of(workflow) == first
        del ballast


class TestAsCompleted:
    def test_of_operations_comes_in_the_order_of_completion(self):
        async def workflow(ctx):
            timers = [ctx.call_activity("double", input=n) for n in range(6)]
            return [await each for each in asyncio.as_completed(timers)]

        seen = {tuple(result_of(workflow, seed=seed)) for seed in range(6)}
        assert len(seen) > 1, "a random order of completion must show"
        assert all(sorted(each) == [0, 2, 4, 6, 8, 10] for each in seen)

    def test_of_tasks_comes_in_the_order_of_completion(self):
        async def workflow(ctx):
            tasks = [asyncio.create_task(asyncio.sleep(n, n)) for n in (3, 1, 2)]
            return [await each for each in asyncio.as_completed(tasks)]

        assert result_of(workflow) == [1, 2, 3]

    def test_with_a_timeout_raises_for_what_is_late(self):
        async def workflow(ctx):
            tasks = [asyncio.create_task(asyncio.sleep(n, n)) for n in (1, 100)]
            results: list[Any] = []
            try:
                for each in asyncio.as_completed(tasks, timeout=5):
                    results.append(await each)
            except asyncio.TimeoutError:
                results.append("late")
            return results

        assert result_of(workflow) == [1, "late"]

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="the asynchronous form came with Python 3.13")
    def test_asynchronously_gives_back_the_very_tasks_and_operations(self):
        async def workflow(ctx):
            names = {asyncio.create_task(asyncio.sleep(2)): "task", ctx.create_timer(1): "timer"}
            return [names[each] async for each in asyncio.as_completed(list(names))]

        assert result_of(workflow) == ["timer", "task"]


class TestShield:
    def test_protects_what_it_shields_from_the_cancellation_of_the_waiter(self):
        async def workflow(ctx):
            inner = asyncio.create_task(asyncio.sleep(5, "survived"))

            async def waiter():
                await asyncio.shield(inner)

            task = asyncio.create_task(waiter())
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.wait([task])
            return [task.cancelled(), inner.done(), await inner]

        assert result_of(workflow) == [True, False, "survived"]

    def test_of_an_operation_that_is_raced_keeps_the_operation(self):
        async def workflow(ctx):
            operation = ctx.wait_for_external_event("go")
            try:
                await asyncio.wait_for(asyncio.shield(operation), 1)
            except asyncio.TimeoutError:
                return [operation.done(), await operation]

        assert result_of(workflow, events=[(5, "go", "later")]) == [False, "later"]

    def test_passes_on_a_cancellation_of_what_it_shields(self):
        async def workflow(ctx):
            inner = asyncio.create_task(asyncio.sleep(5))
            shielded = asyncio.shield(inner)
            await asyncio.sleep(1)
            inner.cancel()
            try:
                await shielded
            except asyncio.CancelledError:
                return "cancelled"

        assert result_of(workflow) == "cancelled"


class TestFutures:
    def test_of_the_loop_pass_values_between_tasks(self):
        async def workflow(ctx):
            future = asyncio.get_running_loop().create_future()

            async def answer():
                future.set_result(await doubled(ctx, 21))

            asyncio.create_task(answer())
            return [await future, await future, asyncio.isfuture(future)]

        assert result_of(workflow) == [42, 42, True]

    def test_an_operation_is_one(self):
        async def workflow(ctx):
            operation = ctx.call_activity("double", input=1)
            called = []
            operation.add_done_callback(lambda future: called.append(future.result()))
            before = operation.done()
            await operation
            await asyncio.sleep(0)
            return [isinstance(operation, asyncio.Future), before, operation.done(), called]

        assert result_of(workflow) == [True, False, True, [2]]

    def test_of_threads_cannot_be_wrapped(self):
        import concurrent.futures

        async def workflow(ctx):
            await asyncio.wrap_future(concurrent.futures.Future())

        failure = failure_of(workflow)
        assert failure.errorType == "durabletask.aio.DeadlockError"
        assert "nothing durable is outstanding" in failure.errorMessage
        assert f"{__file__}:" in failure.errorMessage


@NEEDS_UNCANCEL
class TestUncancel:
    def test_counts_requests_as_in_asyncio(self):
        async def workflow(ctx):
            task = asyncio.current_task()
            counts = [task.cancelling()]
            task.cancel()
            counts.append(task.cancelling())
            try:
                await ctx.create_timer(100)
            except asyncio.CancelledError:
                counts.append(task.uncancel())
            await asyncio.sleep(1)
            return [*counts, task.cancelling(), seconds()]

        assert result_of(workflow) == [0, 1, 0, 0, 1.0]

    def test_a_group_that_caught_its_own_cancellation_leaves_none_behind(self):
        async def workflow(ctx):
            async def fail():
                await asyncio.sleep(1)
                raise ValueError

            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(fail())
                    await asyncio.sleep(100)
            except ExceptionGroup:
                return asyncio.current_task().cancelling()

        assert result_of(workflow) == 0


@pytest.mark.skipif(sys.version_info < (3, 11), reason="task groups came with Python 3.11")
class TestTaskGroup:
    def test_waits_for_all_and_gives_their_results(self):
        async def workflow(ctx):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(doubled(ctx, n)) for n in range(5)]
            return [task.result() for task in tasks]

        instance = complete(workflow)
        assert instance.result == [0, 2, 4, 6, 8]
        assert kinds(instance.turns[0]) == ["scheduleTask"] * 5

    def test_takes_operations_too(self):
        async def workflow(ctx):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ctx.call_activity("double", input=n)) for n in range(3)]
            return [task.result() for task in tasks]

        assert result_of(workflow) == [0, 2, 4]

    def test_a_failure_cancels_the_others_in_the_same_order_each_time(self):
        async def workflow(ctx):
            cleaned = []

            async def member(n):
                try:
                    await asyncio.sleep(100)
                finally:
                    cleaned.append(n)
                    await doubled(ctx, n)

            async def fail():
                await asyncio.sleep(1)
                raise ValueError("first")

            try:
                async with asyncio.TaskGroup() as group:
                    for n in range(30):
                        group.create_task(member(n))
                    group.create_task(fail())
            except ExceptionGroup as error:
                return [str(error.exceptions[0]), cleaned]

        first = result_of(workflow)
        assert first[0] == "first"
        assert sorted(first[1]) == list(range(30))
        ballast = [object() for _ in range(5_000)]
        assert result_of(workflow) == first
        del ballast

    def test_an_uncaught_group_fails_the_instance_and_says_what_was_in_it(self):
        async def workflow(ctx):
            async def fail(message):
                raise ValueError(message)

            async with asyncio.TaskGroup() as group:
                group.create_task(fail("one"))
                group.create_task(fail("two"))

        failure = failure_of(workflow)
        assert failure.errorType == "builtins.ExceptionGroup"
        assert "ValueError: one" in failure.errorMessage
        assert "ValueError: two" in failure.errorMessage
        assert failure.innerFailure.errorMessage == "one"

    def test_nested_groups_and_timeouts_unwind_from_the_inside(self):
        async def workflow(ctx):
            order = []

            async def member(name):
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    order.append(name)
                    raise

            try:
                async with asyncio.timeout(1), asyncio.TaskGroup() as outer:
                    outer.create_task(member("outer"))
                    async with asyncio.TaskGroup() as inner:
                        inner.create_task(member("inner"))
            except TimeoutError:
                return [*order, seconds()]

        assert result_of(workflow) == ["inner", "outer", 1.0]
