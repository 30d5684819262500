"""From a coroutine function to an orchestrator: what goes in, what upstream sees, and how it can go wrong."""

import asyncio
import functools
import inspect
import re
from datetime import timedelta
from typing import Any

import pytest
from durabletask import task
from durabletask.aio import AsyncWorkflowError, SandboxMode, WorkflowValidationError, as_orchestrator
from durabletask.entities import EntityInstanceId
from durabletask.internal import orchestrator_service_pb2 as pb
from turns import CONTINUED, Instance, canonical, replay
from workflows import boom, failure_of, finished, line_in, result_of, started

from durabletask_aio.core import settings

# -- as_orchestrator ------------------------------------------------------------------------------------------------


async def order(ctx, order_id: str) -> str:
    """Handle an order."""
    return order_id


def test_the_result_looks_like_the_function_to_upstream():
    orchestrator: Any = as_orchestrator(order)

    assert task.get_name(orchestrator) == "order"
    assert orchestrator.__doc__ == "Handle an order."
    assert orchestrator.__wrapped__ is order
    assert not inspect.iscoroutinefunction(orchestrator)


def test_it_is_idempotent():
    orchestrator = as_orchestrator(order)
    assert as_orchestrator(orchestrator) is orchestrator
    assert as_orchestrator(orchestrator, name="order", sandbox_mode="off") is orchestrator


def test_a_name_can_be_given_at_once_or_later():
    named: Any = as_orchestrator(order, name="orders")
    assert task.get_name(named) == "orders"
    assert task.get_name(as_orchestrator(as_orchestrator(order), name="orders")) == "orders"
    assert named.__durabletask_aio__ == (order, "orders", SandboxMode.OFF)


def test_it_is_a_decorator_with_and_without_arguments():
    @as_orchestrator
    async def bare(ctx):
        return ctx.workflow_name

    @as_orchestrator(name="other")
    async def named(ctx):
        return ctx.workflow_name

    assert Instance(bare).run().result == "bare"
    assert Instance(named).run().result == "other"


async def takes_nothing_but_the_context(ctx):
    return "no input"


async def with_a_default(ctx, value="default"):
    return value


async def with_stars(*arguments):
    return arguments[1]


async def with_more_defaults(ctx, value, flag=True):
    return [value, flag]


class Service:
    async def method(self, ctx, value):
        return value

    async def __call__(self, ctx, value):
        return value


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (takes_nothing_but_the_context, "no input"),
        (with_a_default, 5),
        (with_stars, 5),
        (with_more_defaults, [5, True]),
        (Service().method, 5),
        (Service(), 5),
        (functools.partial(with_more_defaults, flag=False), [5, False]),
    ],
)
def test_every_kind_of_coroutine_callable_runs(function, expected):
    assert result_of(function, 5) == expected


def test_the_input_is_given_as_none_if_there_is_none():
    assert result_of(with_a_default) is None


def test_a_wrong_sandbox_mode_names_the_right_ones():
    with pytest.raises(
        WorkflowValidationError, match="sandbox_mode='strickt' is not a sandbox mode; use one of 'off', "
    ):
        as_orchestrator(order, sandbox_mode="strickt")


# -- the generator that upstream sees -------------------------------------------------------------------------------


def test_upstream_is_given_a_real_generator_that_yields_one_task_over_and_over():
    yielded = []

    async def workflow(ctx):
        await ctx.call_activity("a")
        await ctx.call_activity("b")

    orchestrator = as_orchestrator(workflow)

    @functools.wraps(orchestrator)
    def watched(ctx, input):
        generator = orchestrator(ctx, input)
        assert inspect.isgenerator(generator)
        result = None
        while True:
            try:
                wake = generator.send(result)
            except StopIteration as stop:
                return stop.value
            assert isinstance(wake, task.Task)
            yielded.append(wake)
            result = yield wake

    Instance(watched).run()
    assert len(set(map(id, yielded[-2:]))) == 1


def test_no_turn_waits_for_more_than_its_event():
    """Draining after each event, and not after each batch: the order of the code is that of the events."""
    order_seen = []

    async def workflow(ctx):
        async def wait(name):
            await ctx.wait_for_external_event(name)
            order_seen.append(name)
            await ctx.wait_for_external_event(name + name)
            order_seen.append(name + name)

        await asyncio.gather(wait("a"), wait("b"))

    instance = started(workflow)
    instance.turn(*(instance.raised(name) for name in ("b", "bb", "a", "aa")))
    assert order_seen[-4:] == ["b", "bb", "a", "aa"]


def test_an_event_in_the_batch_that_ends_the_execution_is_not_lost():
    async def workflow(ctx):
        await ctx.wait_for_external_event("go")
        ctx.continue_as_new(1, save_events=True)

    instance = started(workflow)
    instance.turn(instance.raised("go", 1), instance.raised("go", 2))

    assert instance.outcome.orchestrationStatus == CONTINUED
    assert [event.eventRaised.input.value for event in instance.outcome.carryoverEvents] == ["2"]


def test_what_other_tasks_had_still_to_do_when_the_function_returns_does_not_count():
    async def workflow(ctx):
        async def background():
            await asyncio.sleep(0)
            ctx.call_activity("late")

        asyncio.create_task(background())
        await asyncio.sleep(0)
        return "done"

    instance = started(workflow)
    assert instance.result == "done"
    assert [action.WhichOneof("orchestratorActionType") for action in instance.turns[0]] == ["completeOrchestration"]


def test_actions_of_the_last_turn_go_out():
    async def workflow(ctx):
        ctx.call_activity("fire and forget")
        return "done"

    instance = started(workflow)
    assert [action.WhichOneof("orchestratorActionType") for action in instance.turns[0]] == [
        "scheduleTask",
        "completeOrchestration",
    ]


# -- divergence -----------------------------------------------------------------------------------------------------

COUNTER = EntityInstanceId("counter", "a")


async def activity_a(ctx):
    await ctx.call_activity("a")  # <-


async def activity_b(ctx):
    await ctx.call_activity("b")  # <-


async def timer(ctx):
    await ctx.create_timer(timedelta(seconds=5))  # <-


async def asyncio_sleep(ctx):
    await asyncio.sleep(5)  # <-


async def child_a(ctx):
    await ctx.call_sub_orchestrator("a")  # <-


async def child_b(ctx):
    await ctx.call_sub_orchestrator("b")  # <-


async def entity_call(ctx):
    await ctx.call_entity(COUNTER, "add", 1)  # <-


async def entity_lock(ctx):
    async with ctx.lock_entities([COUNTER]):  # <-
        pass


async def entity_signal(ctx):
    ctx.signal_entity(COUNTER, "add", 1)
    await ctx.wait_for_external_event("go")  # <-


async def event_sent(ctx):
    ctx.send_event("other", "hello")
    await ctx.wait_for_external_event("go")  # <-


async def event_awaited(ctx):
    await ctx.wait_for_external_event("go")  # <-


async def ended(ctx):
    return "done"


async def continued(ctx):
    ctx.continue_as_new(1)


HISTORY = {
    activity_a: "activity 'a'",
    timer: "a timer for 2026-01-01T12:00:05.001000Z",
    asyncio_sleep: "a timer for 2026-01-01T12:00:05.001000Z",
    child_a: "sub-orchestration 'a'",
    entity_call: "call of entity operation 'add'",
    entity_lock: "entity lock of @counter@a",
    entity_signal: "signal of entity operation 'add'",
    event_sent: "event 'hello' sent to 'other'",
}
CODE = {
    activity_b: "the code scheduled activity 'b' (HERE)",
    timer: "the code scheduled timer '0:00:05' (HERE)",
    asyncio_sleep: "the code started a timer, with asyncio.sleep or a timeout (wf waits at HERE in asyncio_sleep)",
    child_b: "the code scheduled sub-orchestration 'b' (HERE)",
    entity_call: "the code scheduled entity operation '@counter@a.add' (HERE)",
    entity_lock: "the code scheduled entity lock '@counter@a' (HERE)",
    entity_signal: "the code signalled entity operation 'add' (wf waits at HERE in entity_signal)",
    event_sent: "the code sent event 'hello' to 'other' (wf waits at HERE in event_sent)",
    event_awaited: "the code scheduled nothing by that number (wf waits at HERE in event_awaited)",
    ended: "the code had ended by then",
    continued: "the code had ended by then",
}
SAME_KIND = {frozenset({timer, asyncio_sleep})}
PAIRS = [(old, new) for old in HISTORY for new in CODE if old is not new and frozenset({old, new}) not in SAME_KIND]


@pytest.mark.not_replayed("the code is changed half-way")
@pytest.mark.parametrize(("old", "new"), PAIRS, ids=lambda function: function.__name__)
def test_divergence_names_step_history_code_and_line(old, new):
    instance = Instance(as_orchestrator(old, name="wf")).start()
    instance.orchestrator = as_orchestrator(new, name="wf")
    instance.turn()

    details = instance.failure
    code = CODE[new]
    if "HERE" in code:
        code = code.replace("HERE", line_in(new))
    assert details.errorType == "durabletask.aio.HistoryDivergenceError"
    assert details.errorMessage.startswith(
        f"history and code diverge at step 1: the history has {HISTORY[old]}, and {code}."
    )
    assert details.errorMessage.endswith("[workflow 'wf', instance 'instance-1', step 1]")
    ends = [action for action in instance.turns[-1] if action.HasField("completeOrchestration")]
    assert len(ends) == 1


@pytest.mark.not_replayed("the code is changed half-way")
def test_divergence_at_a_later_step_names_that_one():
    async def old(ctx):
        for name in "abc":
            await ctx.call_activity(name)

    async def new(ctx):
        for name in "abx":
            await ctx.call_activity(name)

    instance = Instance(as_orchestrator(old, name="wf")).start()
    instance.turn(instance.completed(1))
    instance.turn(instance.completed(2))
    instance.orchestrator = as_orchestrator(new, name="wf")
    instance.turn(instance.completed(3))

    assert (
        "at step 3: the history has activity 'c', and the code scheduled activity 'x'" in instance.failure.errorMessage
    )


@pytest.mark.not_replayed("the code is changed half-way")
def test_the_code_returned_where_the_history_goes_on():
    async def old(ctx):
        await ctx.call_activity("a")
        await ctx.call_activity("b")

    async def new(ctx):
        await ctx.call_activity("a")
        return "done"

    instance = Instance(as_orchestrator(old, name="wf")).start()
    instance.turn(instance.completed(1))
    instance.orchestrator = as_orchestrator(new, name="wf")
    instance.turn(instance.completed(2))

    assert "at step 2: the history has activity 'b', and the code had ended by then" in instance.failure.errorMessage


def test_an_instance_that_was_terminated_stays_terminated():
    instance = started(activity_a)
    instance.turn(pb.HistoryEvent(eventId=-1, executionTerminated=pb.ExecutionTerminatedEvent()))
    assert instance.outcome.orchestrationStatus == pb.ORCHESTRATION_STATUS_TERMINATED


def test_divergence_is_an_upstream_non_determinism_error():
    from durabletask.aio import HistoryDivergenceError

    assert issubclass(HistoryDivergenceError, task.NonDeterminismError)
    assert issubclass(HistoryDivergenceError, AsyncWorkflowError)


# -- deadlock and budget --------------------------------------------------------------------------------------------


def test_a_deadlock_names_every_task_and_its_line():
    async def consumer(queue):
        await queue.get()  # (consumer)

    async def workflow(ctx):
        queue = asyncio.Queue()
        _consumer = asyncio.create_task(consumer(queue), name="consumer")
        await asyncio.Event().wait()  # <-

    details = failure_of(workflow)
    assert details.errorType == "durabletask.aio.DeadlockError"
    assert "nothing is ready and nothing durable is outstanding" in details.errorMessage
    assert f"  workflow: at {line_in(workflow)} in workflow" in details.errorMessage
    assert f"  consumer: at {line_in(consumer, '(consumer)')} in consumer" in details.errorMessage


def test_what_waits_for_a_durable_operation_is_no_deadlock():
    async def workflow(ctx):
        event = asyncio.Event()

        async def setter():
            await ctx.sleep(60)
            event.set()

        _setter = asyncio.create_task(setter())
        await event.wait()
        return "set"

    assert result_of(workflow) == "set"


def test_a_deadlock_after_some_turns_is_found_too():
    async def workflow(ctx):
        await ctx.call_activity("a")
        await asyncio.get_running_loop().create_future()

    assert failure_of(workflow).errorType == "durabletask.aio.DeadlockError"


@pytest.fixture
def small_budget(monkeypatch):
    monkeypatch.setenv(settings.STEP_BUDGET_VARIABLE, "500")


@pytest.mark.not_replayed("the environment is changed back before the replay")
@pytest.mark.usefixtures("small_budget")
class TestBudget:
    def test_a_main_task_that_spins_is_named_with_its_line(self):
        async def workflow(ctx):
            while True:
                await asyncio.sleep(0)  # <-

        details = failure_of(workflow)
        assert details.errorType == "durabletask.aio.StepBudgetError"
        assert "the workflow ran 500 callbacks without waiting for anything durable" in details.errorMessage
        assert f"spinning: task 'workflow', at {line_in(workflow)} in workflow" in details.errorMessage
        assert "with 'await ctx.sleep(seconds)'" in details.errorMessage

    def test_a_background_task_that_spins_is_named(self):
        async def spin():
            while True:
                await asyncio.sleep(0)  # <-

        async def workflow(ctx):
            _spinner = asyncio.create_task(spin(), name="spinner")
            await ctx.sleep(5)

        assert f"spinning: task 'spinner', at {line_in(spin)} in spin" in failure_of(workflow).errorMessage

    def test_a_callback_that_spins_is_named(self):
        async def workflow(ctx):
            loop = asyncio.get_running_loop()

            def again():
                loop.call_soon(again)

            again()
            await ctx.sleep(5)

        message = failure_of(workflow).errorMessage
        assert re.search(r"spinning: <WorkflowHandle .*again\(\) at .*test_driver\.py:\d+>", message)

    def test_work_within_the_budget_is_fine_turn_after_turn(self):
        async def workflow(ctx):
            for _ in range(5):
                for _ in range(300):
                    await asyncio.sleep(0)
                await ctx.sleep(1)
            return "done"

        assert result_of(workflow) == "done"


@pytest.mark.not_replayed("the environment is changed back before the replay")
def test_a_step_budget_that_is_no_number_is_refused_when_the_execution_starts(monkeypatch):
    monkeypatch.setenv(settings.STEP_BUDGET_VARIABLE, "many")

    details = failure_of(ended)
    assert details.errorMessage == (
        "DURABLETASK_AIO_STEP_BUDGET='many' is not a positive whole number; unset it for 1,000,000"
    )


# -- migration ------------------------------------------------------------------------------------------------------


def _generator(ctx, count):
    total = 0
    for number in range(count):
        total += yield ctx.call_activity("double", input=number)
    yield ctx.create_timer(timedelta(seconds=5))
    together = yield task.when_all([ctx.call_activity("double", input=total), ctx.call_sub_orchestrator("double")])
    yield task.when_any([ctx.wait_for_external_event("go"), ctx.create_timer(timedelta(minutes=1))])
    return [total, together]


async def _async(ctx, count):
    total = 0
    for number in range(count):
        total += await ctx.call_activity("double", input=number)
    await ctx.create_timer(timedelta(seconds=5))
    together = await ctx.when_all([ctx.call_activity("double", input=total), ctx.call_sub_orchestrator("double")])
    await ctx.when_any_with_result([ctx.wait_for_external_event("go"), ctx.create_timer(timedelta(minutes=1))])
    return [total, together]


def test_the_async_version_replays_the_generators_history_and_the_other_way_round():
    activities = {"double": lambda n: (n or 0) * 2}
    generator = Instance(_generator, 3, name="w").run(activities)
    asynchronous = Instance(as_orchestrator(_async), 3, name="w").run(activities)

    assert [canonical(turn) for turn in generator.turns] == [canonical(turn) for turn in asynchronous.turns]
    replay(generator, as_orchestrator(_async))
    replay(asynchronous, _generator)


def test_a_failing_turn_replays():
    async def workflow(ctx):
        try:
            await ctx.call_activity("boom")
        except task.TaskFailedError:
            await ctx.call_activity("repair")
        raise ValueError("anyway")

    instance = finished(workflow, None, {"boom": boom})
    assert instance.failure.errorMessage == "anyway"
    replay(instance)
