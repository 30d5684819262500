"""Steps: what runs, what is recorded, and what a replay does with it."""

import asyncio
import contextlib
import functools
import json
import threading
from dataclasses import dataclass
from datetime import timedelta

import pytest
from replays import NoSteps
from step_runners import StepsAtOnce
from turns import execute
from workflows import failure_of, finished, line_in, started

from durabletask_aio.core import RetryPolicy, StepFailedError, as_orchestrator


def double(value):
    return 2 * value


async def triple(value):
    await asyncio.sleep(0)
    return 3 * value


def fail(message="boom"):
    raise KeyError(message)


def stepped(workflow, input=None, activities=None, *, steps=None, **options):
    return finished(workflow, input, activities, steps=steps or StepsAtOnce(), **options)


def records(instance):
    """The names and data of the records, and the wake-ups, in the order of the history."""
    sent = [event.eventSent for event in instance.history if event.HasField("eventSent")]
    return [
        (each.name.partition(".")[0] + "." + each.name.split(".")[-1], json.loads(each.input.value)) for each in sent
    ]


def assert_nothing_runs_again(instance):
    """Replay what has been committed after each turn, and one event more: no step may run."""
    ends = [instance.batch_begin(end) for end in instance.cuts[1:]]
    for end in ends:
        nothing = instance.batch()
        execute(instance, instance.history[:end], nothing, runner=NoSteps())


def test_a_step_runs_once_and_its_result_is_recorded():
    async def workflow(ctx):
        first = await ctx.run(double, 4)
        return [first, await ctx.call_activity("a", input=first)]

    runner = StepsAtOnce()
    instance = stepped(workflow, steps=runner)
    assert instance.result == [8, 8]
    assert runner.names == ["double"]
    assert records(instance) == [("$step.double", {"input": "[4]", "result": "8", "end": 1})]
    assert_nothing_runs_again(instance)


def test_async_functions_partials_methods_and_lambdas_are_steps():
    class Client:
        def get(self, key):
            return {"key": key}

    async def workflow(ctx):
        return [
            await ctx.run(triple, 2),
            await ctx.run(functools.partial(sorted, reverse=True), [1, 2]),
            await ctx.run(Client().get, "k"),
            await ctx.run(lambda: triple(1)),
            await ctx.run(fail),
        ]

    runner = StepsAtOnce()
    instance = stepped(workflow, steps=runner)
    assert instance.failure.errorMessage.startswith("instance-1: Step task #")
    assert runner.names[:4] == ["triple", "sorted", "get", "<lambda>"]


def test_a_chain_of_steps_is_recorded_one_by_one():
    async def workflow(ctx):
        value = 1
        for _ in range(3):
            value = await ctx.run(double, value)
        return value

    instance = stepped(workflow)
    assert instance.result == 8
    assert [len(turn) for turn in instance.turns] == [2, 2, 2], "a record and a wake-up, and in the end the result"
    assert [name for name, _ in records(instance)] == [
        "$step.double",
        "$wake-up.2",
        "$step.double",
        "$wake-up.4",
        "$step.double",
    ]
    assert_nothing_runs_again(instance)


def test_lazily_recorded_steps_wait_for_nothing():
    async def workflow(ctx):
        return [await ctx.run(double, number, recorded="lazily") for number in range(3)]

    instance = stepped(workflow)
    assert instance.result == [0, 2, 4]
    assert len(instance.turns) == 1


def test_recorded_now_is_durable_before_the_next_line():
    reached = []

    async def workflow(ctx):
        await ctx.run(double, 1, recorded="now")
        reached.append(ctx.is_replaying)
        return "done"

    instance = started(workflow, steps=StepsAtOnce())
    assert not reached
    assert instance.run().result == "done"
    assert records(instance) == [("$step.double", {"input": "[1]", "result": "2", "end": 1}), ("$wake-up.2", 2)]


def test_steps_side_by_side_run_at_the_same_time_and_wait_once():
    async def branch(ctx, number):
        first = await ctx.run(double, number)
        return await ctx.run(double, first)

    async def workflow(ctx):
        return await asyncio.gather(*(branch(ctx, number) for number in range(3)))

    instance = stepped(workflow)
    assert instance.result == [0, 4, 8]
    names = [name for name, _ in records(instance)]
    assert names == ["$step.double"] * 3 + ["$wake-up.4"] + ["$step.double"] * 3


def test_a_failure_is_as_rich_as_that_of_an_activity():
    async def workflow(ctx):
        try:
            await ctx.run(fail, "no such key")
        except StepFailedError as error:
            in_function = "in fail" in error.details.stack_trace
            return [error.step, in_function, error.details.error_type, error.details.message, error.message]
        return "not reached"

    assert stepped(workflow).result == [
        1,
        True,
        "builtins.KeyError",
        "'no such key'",
        "step 'fail' failed with builtins.KeyError: 'no such key'",
    ]


def test_a_failure_that_is_not_caught_fails_the_instance():
    async def workflow(ctx):
        await ctx.run(fail)

    failure = failure_of(workflow, steps=StepsAtOnce())
    assert failure.errorType.endswith("TaskFailedError")
    assert failure.errorMessage == "instance-1: Step task #1 failed: 'boom'"
    assert failure.innerFailure.errorType == "builtins.KeyError"


def test_a_failed_step_is_tried_again_after_a_durable_pause():
    attempts = []

    def flaky():
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError("not yet")
        return "at last"

    async def workflow(ctx):
        policy = RetryPolicy(
            first_retry_interval=timedelta(seconds=10), max_number_of_attempts=3, backoff_coefficient=2
        )
        before = ctx.now()
        result = await ctx.run(flaky, retry_policy=policy)
        return [result, (ctx.now() - before).total_seconds()]

    instance = stepped(workflow)
    assert instance.result == ["at last", pytest.approx(30, abs=0.1)]
    assert len(attempts) == 3
    assert_nothing_runs_again(instance)


def test_a_final_failure_is_not_tried_again():
    async def workflow(ctx):
        policy = RetryPolicy(
            first_retry_interval=timedelta(seconds=1), max_number_of_attempts=3, non_retryable=[LookupError]
        )
        await ctx.run(fail, retry_policy=policy)

    runner = StepsAtOnce()
    failure_of(workflow, steps=runner)
    assert runner.names == ["fail"]


def test_arguments_are_copies_and_results_are_what_the_converter_makes_of_them():
    def spoil(items):
        items.append(2)
        return {1: items}

    async def workflow(ctx):
        items = [1]
        result = await ctx.run(spoil, items)
        return [items, result]

    assert stepped(workflow).result == [[1], {"1": [1, 2]}]


@dataclass
class Order:
    id: int


def make_order(number: int) -> Order:
    return Order(number)


def order_id(order: Order) -> int:
    return order.id


def test_data_classes_are_given_and_returned_as_they_are():
    async def workflow(ctx):
        order = await ctx.run(make_order, 7)
        assert isinstance(order, Order)
        return await ctx.run(order_id, order)

    assert stepped(workflow).result == 7


def test_what_cannot_be_recorded_fails_the_step():
    async def workflow(ctx):
        errors = []
        for function, value in ((double, threading.Lock()), (object, None)):
            try:
                await (ctx.run(function, value) if value else ctx.run(function))
            except StepFailedError as error:
                errors.append(error.details.message.partition(":")[0])
        return errors

    first, second = stepped(workflow).result
    assert first == "the arguments of the step cannot be copied"
    assert second


def test_a_step_that_takes_too_long_fails():
    class Never(StepsAtOnce):
        def submit(self, function, *, is_async, name):
            from concurrent.futures import Future

            return Future()

    async def workflow(ctx):
        await ctx.run(double, 1, timeout=0.001)

    failure = failure_of(workflow, steps=Never())
    assert failure.errorMessage == (
        "instance-1: Step task #1 failed: the step did not end within 0.001 seconds; long work is an activity, and "
        "timeout= sets another limit"
    )


def test_the_records_of_a_turn_have_a_limit():
    async def workflow(ctx):
        sizes = await asyncio.gather(
            *(ctx.run(str.__mul__, "x", 2_000_000, name="big") for _ in range(2)), return_exceptions=True
        )
        return [type(each).__name__ for each in sizes]

    assert sorted(stepped(workflow).result) == ["StepFailedError", "str"]


def test_a_cancelled_step_has_no_end_and_its_call_stays_recorded():
    class FirstEnds(StepsAtOnce):
        def submit(self, function, *, is_async, name):
            if name == "slow":
                from concurrent.futures import Future

                return Future()
            return super().submit(function, is_async=is_async, name=name)

    async def workflow(ctx):
        slow = ctx.run(double, 1, name="slow")
        fast = await ctx.run(double, 2)
        slow.cancel()
        return [fast, await ctx.call_activity("a", input=slow.cancelled())]

    instance = stepped(workflow, steps=FirstEnds())
    assert instance.result == [4, True]
    assert [data for _, data in records(instance)] == [
        {"cancelled": True, "input": "[1]"},
        {"input": "[2]", "result": "4", "end": 1},
    ]


def test_the_order_of_ends_is_kept():
    class LastFirst(StepsAtOnce):
        """Ends the second, the first and the third, in this order: the third is not waited for before it has ended."""

        def __init__(self):
            super().__init__()
            self.waiting = []

        def submit(self, function, *, is_async, name):
            from concurrent.futures import Future

            future = Future()
            self.waiting.append((function, future))
            if len(self.waiting) == 3:
                for function, each in reversed(self.waiting):
                    each.set_result(function())
            return future

    async def workflow(ctx):
        ended = []

        async def branch(number):
            await ctx.run(double, number)
            ended.append(number)

        await asyncio.gather(*(branch(number) for number in range(3)))
        return [ended, await ctx.call_activity("a", input=ended)]

    instance = stepped(workflow, steps=LastFirst())
    assert instance.result == [[1, 0, 2], [1, 0, 2]]
    assert [data["end"] for _, data in records(instance)] == [2, 1, 3]
    assert_nothing_runs_again(instance)


def test_a_step_that_the_history_does_not_have_diverges_and_cannot_be_caught():
    async def old(ctx):
        await ctx.run(double, 1, name="charge")
        return await ctx.call_activity("a")

    async def new(ctx):
        with contextlib.suppress(BaseException):
            await ctx.run(double, 1, name="pay")  # here
        return await ctx.call_activity("a")

    instance = stepped(old)
    end = instance.cuts[-1]
    begin = instance.batch_begin(end)
    result = execute(
        instance,
        instance.history[:begin],
        instance.history[begin:end],
        orchestrator=as_orchestrator(new, name=instance.name),
    )
    failure = result.actions[-1].completeOrchestration.failureDetails
    assert failure.errorType == "durabletask.aio.HistoryDivergenceError"
    assert failure.errorMessage == (
        f"history and code diverge at step 1: the history has step 'charge', and the code runs step 'pay' "
        f"({line_in(new, '# here')}). Either the workflow was changed while this instance was running, or it decides "
        f"by something that is not the same on replay [workflow '{instance.name}', instance 'instance-1', step 1]"
    )


def test_wake_ups_of_an_earlier_execution_have_no_effect():
    async def workflow(ctx):
        first = ctx.run(double, 1)
        await first
        second = ctx.run(double, 2)
        return await second

    instance = started(workflow, steps=StepsAtOnce())
    stale = instance.sent_to_itself[0].eventRaised.name.replace("2026", "2025")
    instance.turn(instance.raised(stale))
    assert instance.outcome is None
    assert instance.run().result == 4


def test_the_core_alone_says_what_a_step_needs():
    async def workflow(ctx):
        await ctx.run(double, 1)

    failure = failure_of(workflow)
    assert failure.errorType == "durabletask.aio.AsyncWorkflowError"
    assert failure.errorMessage == (
        "ctx.run cannot be used here: steps and patches need a worker that knows the history of a turn before it runs, "
        "and this workflow runs on another host: install durabletask-aio-worker and register the workflow with its "
        "TaskHubGrpcWorker, or call an activity [workflow 'workflow', instance 'instance-1']"
    )
