"""Combining operations, tasks and coroutines: values, failures, races, timeouts, and what becomes of the losers."""

import asyncio
import gc
import weakref
from datetime import timedelta

import pytest
from durabletask import task
from durabletask.aio import (
    ActivityFailedError,
    Operation,
    WorkflowTimeoutError,
    WorkflowValidationError,
    as_orchestrator,
)
from turns import Instance, canonical, replay
from workflows import boom, failure_of, finished, line_in, result_of, started

VALIDATION = "durabletask.aio.WorkflowValidationError"


async def coroutine(ctx, n):
    return await ctx.call_activity("echo", input=n)


def of_each_kind(ctx):
    return [ctx.call_activity("echo", input=0), asyncio.create_task(coroutine(ctx, 1)), coroutine(ctx, 2)]


# -- when_all and gather --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("combine", [lambda ctx, aws: ctx.when_all(aws), lambda ctx, aws: ctx.gather(*aws)])
class TestAll:
    def test_operations_tasks_and_coroutines_alike(self, combine):
        async def workflow(ctx):
            return await combine(ctx, of_each_kind(ctx))

        instance = finished(workflow)
        assert instance.result == [0, 1, 2]
        replay(instance)

    def test_results_are_in_the_order_given_not_in_that_of_completion(self, combine):
        async def workflow(ctx):
            return await combine(ctx, [ctx.call_activity("echo", input=n) for n in range(3)])

        instance = started(workflow)
        for step in (3, 1, 2):
            instance.turn(instance.completed(step, f"r{step}"))
        assert instance.result == ["r1", "r2", "r3"]

    def test_of_nothing_is_an_empty_list_at_once(self, combine):
        async def workflow(ctx):
            everything = combine(ctx, [])
            assert everything.done()
            return [await everything, await everything]

        instance = started(workflow)
        assert instance.result == [[], []]

    def test_it_is_an_operation_that_can_be_awaited_again_and_again(self, combine):
        async def workflow(ctx):
            everything = combine(ctx, of_each_kind(ctx))
            assert isinstance(everything, Operation)
            return [await everything, await everything, everything.result()]

        assert result_of(workflow) == [[0, 1, 2]] * 3

    @pytest.mark.parametrize("kind", ["coroutine", "awaitable"])
    def test_one_that_is_no_future_yet_is_started_once_if_it_is_given_twice(self, combine, kind):
        class Echo:
            def __init__(self, ctx):
                self.ctx = ctx

            def __await__(self):
                return coroutine(self.ctx, 1).__await__()

        async def workflow(ctx):
            twice = coroutine(ctx, 1) if kind == "coroutine" else Echo(ctx)
            return await combine(ctx, [twice, coroutine(ctx, 2), twice])

        instance = finished(workflow)
        assert instance.result == [1, 2, 1]
        assert len(instance.turns[0]) == 2

    def test_a_part_given_twice_counts_for_both_places(self, combine):
        async def workflow(ctx):
            part = ctx.call_activity("echo", input=5)
            return await combine(ctx, [part, part])

        assert result_of(workflow) == [5, 5]

    def test_parts_that_are_done_already_are_taken_as_they_are(self, combine):
        async def workflow(ctx):
            first, second = ctx.call_activity("echo", input=1), ctx.call_activity("echo", input=2)
            await first
            await second
            everything = combine(ctx, [second, first])
            return [everything.done(), await everything]

        assert result_of(workflow) == [True, [2, 1]]

    def test_cancelling_it_cancels_the_parts(self, combine):
        async def workflow(ctx):
            timer, event = ctx.sleep(60), ctx.wait_for_external_event("go")
            everything = combine(ctx, [timer, event])
            await asyncio.sleep(0)
            everything.cancel()
            with pytest.raises(asyncio.CancelledError):
                await everything
            return [timer.cancelled(), event.cancelled(), everything.cancel()]

        instance = started(workflow)
        assert instance.result == [True, True, False]
        assert not instance.outstanding, "the timer was taken back before it went out"

    def test_a_generator_expression_will_do(self, combine):
        async def workflow(ctx):
            return await combine(ctx, (ctx.call_activity("echo", input=n) for n in range(2)))

        assert result_of(workflow) == [0, 1]


def test_when_all_raises_the_first_failure_after_all_are_done():
    async def workflow(ctx):
        operations = [ctx.call_activity(name) for name in ("boom", "echo", "boom")]
        with pytest.raises(ActivityFailedError) as caught:
            await ctx.when_all(operations)
        return [caught.value.step, [operation.done() for operation in operations]]

    instance = started(workflow)
    for step, event in ((3, instance.failed), (1, instance.failed)):
        instance.turn(event(step, ValueError("boom")))
        assert instance.outcome is None
    instance.turn(instance.completed(2))
    assert instance.result == [3, [True, True, True]]


def test_gather_raises_the_first_failure_at_once():
    async def workflow(ctx):
        operations = [ctx.call_activity(name) for name in ("boom", "echo")]
        with pytest.raises(ActivityFailedError):
            await ctx.gather(*operations)
        return [operation.done() for operation in operations]

    instance = started(workflow)
    instance.turn(instance.failed(1, ValueError("boom")))
    assert instance.result == [True, False]


def test_gather_returns_an_exception_that_is_false_too():
    class NothingFoundError(Exception):
        def __len__(self):
            return 0

    async def search():
        raise NothingFoundError

    async def workflow(ctx):
        (outcome,) = await ctx.gather(search(), return_exceptions=True)
        return type(outcome).__name__

    assert result_of(workflow) == "NothingFoundError"


def test_gather_can_return_exceptions_as_values():
    async def workflow(ctx):
        cancelled = ctx.sleep(60)
        cancelled.cancel()
        results = await ctx.gather(
            ctx.call_activity("boom"), ctx.call_activity("echo", input=1), cancelled, return_exceptions=True
        )
        return [type(result).__name__ for result in results]

    assert result_of(workflow, None, {"boom": boom}) == ["ActivityFailedError", "int", "CancelledError"]


def test_a_mapping_whose_keys_are_operations_is_a_list_of_them():
    async def workflow(ctx):
        numbers = {ctx.call_activity("echo", input=n): n for n in (1, 2)}
        return [await ctx.when_all(numbers), await ctx.when_all({})]

    assert result_of(workflow) == [[1, 2], []]


def test_gather_returns_an_exception_that_is_empty_too():
    class Problems(Exception):
        def __len__(self):
            return 0

    async def failing():
        raise Problems

    async def workflow(ctx):
        results = await ctx.gather(failing(), ctx.call_activity("echo", input=1), return_exceptions=True)
        return [type(result).__name__ for result in results]

    assert result_of(workflow) == ["Problems", "int"]


def test_the_message_of_a_timeout_is_readable():
    async def workflow(ctx):
        await ctx.with_timeout(ctx.wait_for_external_event("never"), timedelta(days=30))

    assert "did not finish within 2592000 seconds (30 days, 0:00:00) [" in failure_of(workflow).errorMessage


def test_when_all_emits_the_generators_actions():
    async def workflow(ctx):
        return sum(await ctx.when_all([ctx.call_activity("echo", input=n) for n in range(5)]))

    def generator(ctx, _):
        return sum((yield task.when_all([ctx.call_activity("echo", input=n) for n in range(5)])))

    ours, theirs = Instance(as_orchestrator(workflow), name="w").run(), Instance(generator, name="w").run()
    assert [canonical(turn) for turn in ours.turns] == [canonical(turn) for turn in theirs.turns]


# -- when_any -------------------------------------------------------------------------------------------------------


def test_when_any_gives_the_value_and_when_any_with_result_the_index_too():
    async def workflow(ctx):
        value = await ctx.when_any([ctx.sleep(60), ctx.call_activity("echo", input="v")])
        index, again = await ctx.when_any_with_result([ctx.sleep(60), ctx.call_activity("echo", input="v")])
        return [value, index, again]

    assert result_of(workflow) == ["v", 1, "v"]


def test_the_one_that_finished_first_wins_and_not_the_first_in_the_list():
    async def workflow(ctx):
        operations = [ctx.call_activity("echo", input=n) for n in range(3)]
        await ctx.when_all(operations)
        return await ctx.when_any_with_result(operations)

    instance = started(workflow)
    for step in (2, 3, 1):
        instance.turn(instance.completed(step, f"r{step}"))
    assert instance.result == [1, "r2"]


def test_tasks_race_too():
    async def workflow(ctx):
        async def slow():
            await ctx.sleep(10)
            return "slow"

        async def quick():
            await ctx.sleep(1)
            return "quick"

        return await ctx.when_any_with_result([slow(), asyncio.create_task(quick())])

    instance = finished(workflow)
    assert instance.result == [1, "quick"]
    replay(instance)


def test_losers_go_on():
    async def workflow(ctx):
        slow, quick = ctx.call_activity("echo", input="slow"), ctx.call_activity("echo", input="quick")
        winner = await ctx.when_any([slow, quick])
        return [winner, slow.done(), await slow]

    instance = started(workflow)
    instance.turn(instance.completed(2, "quick"))
    instance.turn(instance.completed(1, "slow"))
    assert instance.result == ["quick", False, "slow"]


def test_a_failed_winner_raises_with_its_place():
    async def workflow(ctx):
        with pytest.raises(ActivityFailedError) as caught:
            await ctx.when_any([ctx.sleep(60), ctx.call_activity("boom")])
        return vars(caught.value)["winner_index"]

    assert result_of(workflow, None, {"boom": boom}) == 1


def test_an_operation_that_loses_many_races_does_not_remember_them():
    async def workflow(ctx):
        loser, races = ctx.wait_for_external_event("never"), []
        for n in range(50):
            race = ctx.when_any([loser, ctx.call_activity("echo", input=n)])
            races.append(weakref.ref(race))
            await race
            del race
        await ctx.sleep(1)  # or the main task still refers to what it awaited last
        gc.collect()
        return [sum(race() is not None for race in races), loser.done()]

    assert result_of(workflow) == [0, False]


def test_cancelling_a_race_leaves_the_parts():
    async def workflow(ctx):
        part = ctx.call_activity("echo", input=1)
        race = ctx.when_any([part])
        assert race.cancel()
        assert not race.cancel()
        return [race.cancelled(), part.cancelled(), await part]

    assert result_of(workflow) == [True, False, 1]


def test_when_any_races_as_the_generator_does():
    async def workflow(ctx):
        index, _ = await ctx.when_any_with_result([ctx.wait_for_external_event("go"), ctx.create_timer(timedelta(60))])
        return index

    def generator(ctx, _):
        event, timer = ctx.wait_for_external_event("go"), ctx.create_timer(timedelta(60))
        return 0 if (yield task.when_any([event, timer])) is event else 1

    events = [(5, "go", None)]
    ours = Instance(as_orchestrator(workflow), name="w").run(events=events)
    theirs = Instance(generator, name="w").run(events=events)
    assert [canonical(turn) for turn in ours.turns] == [canonical(turn) for turn in theirs.turns]


# -- with_timeout ---------------------------------------------------------------------------------------------------


def test_a_result_in_time_cancels_the_timer():
    async def workflow(ctx):
        return await ctx.with_timeout(ctx.call_activity("echo", input=1), 30)

    instance = finished(workflow)
    assert instance.result == 1
    replay(instance)


def test_a_timeout_names_the_operation_and_the_time():
    async def workflow(ctx):
        await ctx.with_timeout(ctx.call_activity("slow"), 30)  # <-

    instance = started(workflow)
    instance.turn(instance.fired(2))
    details = instance.failure
    assert details.errorType == "durabletask.aio.WorkflowTimeoutError"
    assert details.errorMessage == (
        f"activity 'slow' ({line_in(workflow)}) did not finish within 30 seconds "
        f"[workflow 'workflow', instance 'instance-1', step 1]"
    )


@pytest.mark.parametrize("kind", [TimeoutError, asyncio.TimeoutError, WorkflowTimeoutError])
def test_a_timeout_is_caught_under_every_name(kind):
    async def workflow(ctx):
        try:
            await ctx.with_timeout(ctx.wait_for_external_event("never"), timedelta(seconds=1.5))
        except kind as error:
            return str(error)

    message = result_of(workflow)
    assert message.startswith("external event 'never' (")
    assert "did not finish within 1.5 seconds [workflow" in message


def test_the_timer_starts_at_the_call():
    async def workflow(ctx):
        limited = ctx.with_timeout(ctx.call_activity("slow"), 30)
        await ctx.sleep(20)
        start = ctx.now()
        with pytest.raises(TimeoutError):
            await limited
        return (ctx.now() - start).total_seconds()

    instance = started(workflow)
    instance.turn(instance.fired(3))
    instance.turn(instance.fired(2))
    assert 9.9 < instance.result < 10.1


def test_a_coroutine_that_is_late_is_cancelled_and_runs_its_finally():
    seen = []

    async def work(ctx):
        try:
            await ctx.sleep(3600)
        finally:
            seen.append(ctx.is_replaying)

    async def workflow(ctx):
        with pytest.raises(TimeoutError):
            await ctx.with_timeout(work(ctx), 1)

    finished(workflow)
    assert seen == [True, False], "closed with the first turn, and cancelled, live, in the second"


def test_none_waits_for_ever():
    async def workflow(ctx):
        return await ctx.with_timeout(ctx.wait_for_external_event("go"), None)

    instance = started(workflow)
    assert not instance.outstanding
    instance.turn(instance.raised("go", 5))
    assert instance.result == 5


@pytest.mark.parametrize("timeout", [0, -1, timedelta(0)])
def test_no_time_left_means_what_is_not_done_is_late(timeout):
    async def workflow(ctx):
        done = ctx.call_activity("echo", input=1)
        await done
        in_time = await ctx.with_timeout(done, timeout)
        with pytest.raises(TimeoutError):
            await ctx.with_timeout(ctx.call_activity("echo"), timeout)
        return in_time

    assert result_of(workflow) == 1


def test_the_failure_of_the_operation_is_the_failure():
    async def workflow(ctx):
        await ctx.with_timeout(ctx.call_activity("boom"), 30)

    assert failure_of(workflow, None, {"boom": boom}).errorType == "durabletask.task.TaskFailedError"


def test_cancelling_it_cancels_operation_and_timer():
    async def workflow(ctx):
        event = ctx.wait_for_external_event("go")
        limited = ctx.with_timeout(event, 30)
        limited.cancel()
        with pytest.raises(asyncio.CancelledError):
            await limited
        return [event.cancelled(), limited.cancelled()]

    instance = started(workflow)
    assert instance.result == [True, True]
    assert not instance.outstanding


# -- wrong calls -----------------------------------------------------------------------------------------------------


def _swapped(ctx):
    return ctx.with_timeout(5, ctx.call_activity("a"))  # <-


def _swapped_with_a_coroutine(ctx):
    return ctx.with_timeout(timedelta(seconds=5), coroutine(ctx, 1))  # <-


def _timeout_is_no_time(ctx):
    return ctx.with_timeout(ctx.call_activity("a"), "5")  # <-


def _timeout_is_a_flag(ctx):
    return ctx.with_timeout(ctx.call_activity("a"), True)  # <-


def _single_operation(ctx):
    return ctx.when_any(ctx.call_activity("a"))  # <-


def _separate_operations(ctx):
    return ctx.when_any(ctx.call_activity("a"), ctx.call_activity("b"))  # <-


def _separate_operations_to_all(ctx):
    return ctx.when_all(ctx.call_activity("a"), ctx.call_activity("b"))  # <-


def _separate_coroutines(ctx):
    return ctx.when_any_with_result(coroutine(ctx, 1), coroutine(ctx, 2))  # <-


def _single_coroutine(ctx):
    return ctx.when_all(coroutine(ctx, 1))  # <-


def _nothing(ctx):
    return ctx.when_any([])  # <-


def _nothing_with_result(ctx):
    return ctx.when_any_with_result([])  # <-


def _a_list_to_gather(ctx):
    return ctx.gather([ctx.call_activity("a")])  # <-


def _a_number_to_gather(ctx):
    return ctx.gather(5)  # <-


def _a_function_to_gather(ctx):
    return ctx.gather(coroutine)  # <-


def _a_generator_to_gather(ctx):
    return ctx.gather(ctx.call_activity(name) for name in ("a", "b"))  # <-


def _a_dict_of_operations(ctx):
    return ctx.when_all({"a": ctx.call_activity("a"), "b": coroutine(ctx, 1)})  # <-


def _nothing_among_coroutines(ctx):
    return ctx.when_all([coroutine(ctx, 1), None, coroutine(ctx, 2)])  # <-


def _a_function_with_a_timeout(ctx):
    return ctx.with_timeout(coroutine, 30)  # <-


def _a_number_and_a_coroutine_to_gather(ctx):
    return ctx.gather(5, coroutine(ctx, 2))  # <-


def _upstreams_task(ctx):
    return ctx.when_all([ctx.upstream_context.call_activity("a")])  # <-


ONE_LIST = "await ctx.{0}(first, second)\n  right: await ctx.{0}([first, second])"


@pytest.mark.parametrize(
    ("call", "what", "forms"),
    [
        (
            _swapped,
            "the arguments of ctx.with_timeout are swapped",
            "ctx.with_timeout(5, operation)\n  right: ctx.with_timeout(operation, 5)",
        ),
        (
            _swapped_with_a_coroutine,
            "the arguments of ctx.with_timeout are swapped",
            "ctx.with_timeout(datetime.timedelta(seconds=5), operation)\n",
        ),
        (
            _timeout_is_no_time,
            "the timeout of ctx.with_timeout is in seconds, or a timedelta, and not '5'",
            "ctx.with_timeout(operation, '5')\n  right: ctx.with_timeout(operation, 30) or",
        ),
        (_timeout_is_a_flag, "in seconds, or a timedelta, and not True", "ctx.with_timeout(operation, True)\n"),
        (
            _single_operation,
            "ctx.when_any takes one list of awaitables, and was given <Operation activity 'a'",
            ONE_LIST.format("when_any"),
        ),
        (_separate_operations, "ctx.when_any takes one list of awaitables", ONE_LIST.format("when_any")),
        (_separate_operations_to_all, "ctx.when_all takes one list of awaitables", ONE_LIST.format("when_all")),
        (
            _separate_coroutines,
            "ctx.when_any_with_result takes one list of awaitables",
            ONE_LIST.format("when_any_with_result"),
        ),
        (_single_coroutine, "ctx.when_all takes one list of awaitables", ONE_LIST.format("when_all")),
        (
            _nothing,
            "ctx.when_any was given nothing to wait for",
            "await ctx.when_any([])\n  right: if operations: await ctx.when_any(operations)",
        ),
        (
            _nothing_with_result,
            "ctx.when_any_with_result was given nothing to wait for",
            "await ctx.when_any_with_result([])\n",
        ),
        (
            _a_list_to_gather,
            "ctx.gather takes awaitables, and was given a list of them",
            "await ctx.gather([first, second])\n  right: await ctx.gather(first, second) or",
        ),
        (
            _a_generator_to_gather,
            "ctx.gather takes awaitables, and was given a generator of them",
            "await ctx.gather([first, second])\n  right: await ctx.gather(first, second) or await ctx.gather(*several)",
        ),
        (
            _a_dict_of_operations,
            "ctx.when_all takes a list of awaitables, and was given a mapping, which lists its keys",
            "await ctx.when_all(operations)\n  right: await ctx.when_all(operations.values())",
        ),
        (
            _nothing_among_coroutines,
            "ctx.when_all takes operations, tasks and coroutines, and not 'NoneType': None",
            "await ctx.when_all([None])\n  right: await ctx.when_all([ctx.call_activity(work)])",
        ),
        (
            _a_function_with_a_timeout,
            "ctx.with_timeout takes operations, tasks and coroutines, and not 'function': <function coroutine>",
            "await ctx.with_timeout(work, 30)\n  right: await ctx.with_timeout(ctx.call_activity(work), 30)",
        ),
        (
            _a_number_and_a_coroutine_to_gather,
            "ctx.gather takes operations, tasks and coroutines, and not 'int': 5",
            "await ctx.gather(5)\n  right: await ctx.gather(ctx.call_activity(work))",
        ),
        (_a_number_to_gather, "ctx.gather takes operations, tasks and coroutines, and not 'int': 5", None),
        (_a_function_to_gather, "ctx.gather takes operations, tasks and coroutines, and not 'function'", None),
        (
            _upstreams_task,
            "ctx.when_all was given a task of upstream's own context",
            (
                "await ctx.when_all([ctx.upstream_context.call_activity(...)])\n"
                "  right: await ctx.when_all([ctx.call_activity(...)]), or for a library's task "
                "await ctx.when_all([ctx.wait_for_task(agent.run(...))])"
            ),
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_calls_are_shown_beside_the_right_ones(call, what, forms, recwarn):
    async def workflow(ctx):
        await call(ctx)

    details = failure_of(workflow)
    assert details.errorType == VALIDATION
    assert what in details.errorMessage
    assert f"({line_in(call)}) [workflow" in details.errorMessage
    if forms is not None:
        assert f"  wrong: {forms}" in details.errorMessage
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]


def test_nothing_to_wait_for_is_a_value_error_and_swapped_arguments_a_type_error():
    async def workflow(ctx):
        with pytest.raises(ValueError, match="nothing to wait for"):
            ctx.when_any([])
        with pytest.raises(TypeError, match="swapped"):
            ctx.with_timeout(5, ctx.call_activity("a"))
        with pytest.raises(WorkflowValidationError):
            ctx.gather(None)
        return "checked"

    assert result_of(workflow) == "checked"
