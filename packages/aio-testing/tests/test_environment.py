"""`WorkflowEnvironment` and `WorkflowHandle`."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import threading
import time
import weakref
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from unittest.mock import Mock

import pytest
from durabletask.aio import ActivityFailedError, SandboxMode, as_orchestrator
from durabletask.aio.testing import (
    NEVER,
    ReplayError,
    StubExhaustedError,
    WorkflowEnvironment,
    WorkflowStuckError,
    WorkflowTerminatedError,
    local_backend,
)
from durabletask.aio.worker import TaskHubGrpcWorker
from durabletask.client import OrchestrationFailedError, OrchestrationStatus, TaskHubGrpcClient
from durabletask.entities import DurableEntity, EntityInstanceId
from durabletask.task import RetryPolicy

from durabletask_aio.testing.environment import DEFAULT_START


def double(context, value):
    return value * 2


async def triple(context, value):
    await asyncio.sleep(0)
    return value * 3


async def sequence(ctx, value):
    first = await ctx.call_activity(double, input=value)
    return await ctx.call_activity(triple, input=first)


def generator_sequence(ctx, value):
    first = yield ctx.call_activity(double, input=value)
    return (yield ctx.call_activity(triple, input=first))


async def sleeper(ctx, seconds):
    await ctx.sleep(seconds)
    return ctx.now().isoformat()


async def waits(ctx):
    ctx.set_custom_status({"step": "waiting"})
    return await ctx.wait_for_external_event("go")


async def charges(ctx, amount):
    return await ctx.call_activity("charge", input=amount)


async def charges_with_retries(ctx, amount):
    policy = RetryPolicy(first_retry_interval=timedelta(minutes=1), max_number_of_attempts=4, backoff_coefficient=2)
    return await ctx.call_activity("charge", input=amount, retry_policy=policy)


@pytest.fixture
async def env():
    async with WorkflowEnvironment(
        orchestrators=[sequence, generator_sequence, sleeper, waits, charges, charges_with_retries, parent, child],
        activities=[double, triple],
        entities=[Counter],
        stuck_timeout=0.3,
    ) as environment:
        yield environment


async def child(ctx, value):
    return await ctx.call_activity(double, input=value)


async def parent(ctx, value):
    return await ctx.call_sub_orchestrator(child, input=value, instance_id="the child")


class Counter(DurableEntity):
    def add(self, amount: int):
        self.set_state(self.get_state(int, 0) + amount)
        return self.get_state(int)


class TestExecuting:
    async def test_async_and_generator_orchestrators_with_sync_and_async_activities(self, env):
        assert await env.execute(sequence, input=7) == 42
        assert await env.execute(generator_sequence, input=7) == 42

    async def test_by_name(self, env):
        assert await env.execute("sequence", input=1) == 6

    async def test_under_other_names(self):
        async with WorkflowEnvironment(orchestrators={"six": sequence}, activities=[double, triple]) as env:
            handle = await env.start("six", input=1)
            assert await handle.result() == 6
            assert handle.history.workflow_name == "six"

    async def test_an_unregistered_name_is_an_error_that_lists_the_registered_names(self, env):
        with pytest.raises(LookupError, match=r"no orchestrator 'sequense' is registered here; there are: .*sequence"):
            await env.execute("sequense")

    async def test_a_name_close_to_a_registered_one_is_suggested(self, env):
        with pytest.raises(LookupError, match="did you mean 'sequence'"):
            await env.execute("sequense")

    async def test_an_unregistered_activity_fails_the_workflow_and_lists_the_registered_names(self, env):
        with pytest.raises(OrchestrationFailedError, match="no activity 'charge' is registered here; there"):
            await env.execute(charges, input=1)

    async def test_the_listed_names_include_stubs(self):
        async def workflow(ctx):
            await ctx.call_activity("charge")

        async with WorkflowEnvironment(orchestrators=[workflow]) as env:
            env.stub("chrage", returns=1)
            with pytest.raises(OrchestrationFailedError, match="there are: chrage; did you mean 'chrage'"):
                await env.execute(workflow)

    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"orchestrators": sequence}, TypeError, r"orchestrators takes a list of .*: orchestrators=\[sequence\]"),
            ({"activities": ["double"]}, TypeError, "activities takes functions, not 'double'"),
            ({"entities": {"counter": None}}, TypeError, "entities takes functions, not None"),
            ({"orchestrators": [sequence, sequence]}, ValueError, "A 'sequence' orchestrator already exists"),
            ({"sandbox_mode": "severe"}, ValueError, "severe"),
        ],
    )
    def test_a_function_that_cannot_be_registered_is_an_error(self, settings, error, message):
        with pytest.raises(error, match=message):
            WorkflowEnvironment(**settings)

    def test_an_event_loop_other_than_asyncios_is_an_error(self):
        entering = WorkflowEnvironment().__aenter__()
        with pytest.raises(RuntimeError, match=r"runs on asyncio.*def anyio_backend\(\): return 'asyncio'"):
            entering.send(None)

    async def test_an_instance_id_that_is_taken(self, env):
        await env.start(waits, instance_id="one")
        with pytest.raises(ValueError, match="'one' already exists"):
            await env.start(waits, instance_id="one")

    async def test_the_default_instance_ids_are_the_same_in_every_run(self, env):
        assert (await env.start(waits)).instance_id == "waits-1"
        assert (await env.start(waits)).instance_id == "waits-2"

    async def test_sub_orchestrations(self, env):
        assert await env.execute(parent, input=4) == 8
        assert env.handle("the child").history.workflow_name == "child"

    async def test_the_handle_of_an_unknown_instance(self, env):
        await env.start(waits)
        with pytest.raises(KeyError, match="no instance 'nobody' in this environment; there are: waits-1"):
            env.handle("nobody")

    async def test_typed_input_and_result(self):
        @dataclass
        class Order:
            amount: int

        async def typed(ctx, order: Order) -> int:
            assert isinstance(order, Order)
            return order.amount

        typed.__annotations__["order"] = Order
        async with WorkflowEnvironment(orchestrators=[typed]) as env:
            assert await env.execute(typed, input=Order(3)) == 3

    async def test_tags_metadata_and_version_are_passed_on(self):
        seen = {}

        def act(context, _):
            seen["activity"] = context.metadata

        async def workflow(ctx):
            seen["version"] = ctx.version
            ctx.set_metadata({"tenant": "acme"})
            await ctx.call_activity(act)
            return await ctx.call_sub_orchestrator(inner)

        async def inner(ctx):
            return ctx.get_metadata()

        async with WorkflowEnvironment(orchestrators=[workflow, inner], activities=[act]) as env:
            assert await env.execute(workflow, version="1.2") == {"tenant": "acme"}
        assert seen == {"activity": {"tenant": "acme"}, "version": "1.2"}

    async def test_the_sandbox_mode_applies_to_workflows_without_their_own(self):
        async def plain(ctx):
            return 1

        async def careful(ctx):
            return 1

        own = as_orchestrator(careful, sandbox_mode=SandboxMode.BEST_EFFORT)
        async with WorkflowEnvironment(orchestrators=[plain, own], sandbox_mode="strict") as env:
            modes = {
                name: vars(each)["__durabletask_aio__"].sandbox_mode
                for name, each in env.registry.orchestrators.items()
            }
        assert modes == {"plain": SandboxMode.STRICT, "careful": SandboxMode.BEST_EFFORT}


async def _assertion():
    raise AssertionError


class TestFailures:
    async def test_the_error_of_the_workflow_is_the_cause(self, env):
        env.stub("charge", raises=ValueError("no funds"))
        with pytest.raises(OrchestrationFailedError, match="workflow 'charges' failed, instance 'charges-1'") as caught:
            await env.execute(charges, input=1)
        assert "no funds" in caught.value.failure_details.message
        assert caught.value.__cause__ is not None

    @pytest.mark.parametrize(
        ("fail", "shown"),
        [
            (lambda: asyncio.wait_for(asyncio.Event().wait(), 5), "TimeoutError"),
            (lambda: asyncio.sleep(0, dict[str, int]()["x"]), "builtins.KeyError: 'x'"),
            (_assertion, "builtins.AssertionError"),
        ],
    )
    async def test_the_message_has_the_type_of_an_error_without_a_message(self, fail, shown):
        async def workflow(ctx):
            await fail()

        async with WorkflowEnvironment(orchestrators=[workflow]) as env:
            with pytest.raises(OrchestrationFailedError) as caught:
                await env.execute(workflow)
        assert str(caught.value).startswith("workflow 'workflow' failed, instance 'workflow-1': ")
        assert str(caught.value).endswith(shown)

    async def test_an_error_raised_by_the_workflow_itself_keeps_its_type_and_traceback(self):
        async def broken(ctx):
            raise ZeroDivisionError("by hand")

        async with WorkflowEnvironment(orchestrators=[broken]) as env:
            with pytest.raises(OrchestrationFailedError) as caught:
                await env.execute(broken)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert caught.value.failure_details.error_type == "builtins.ZeroDivisionError"

    @pytest.mark.parametrize("error", [ValueError(), SystemExit(3), asyncio.CancelledError()])
    async def test_any_exception_of_an_activity_fails_only_that_activity(self, env, error):
        env.stub("charge", raises=error)

        async def careful(ctx):
            try:
                await ctx.call_activity("charge")
            except ActivityFailedError:
                return "noticed"

        async with WorkflowEnvironment(orchestrators=[careful]) as other:
            other.stub("charge", raises=error)
            assert await other.execute(careful) == "noticed"


class TestTime:
    async def test_thirty_virtual_days_take_milliseconds(self, env):
        began = time.monotonic()
        assert await env.execute(sleeper, input=30 * 86400) == "2024-01-31T00:00:00+00:00"
        assert time.monotonic() - began < 5
        assert env.now == datetime(2024, 1, 31, tzinfo=timezone.utc)

    async def test_instances_wake_up_in_the_order_of_real_time(self, env):
        order = []

        async def noting(ctx, days):
            await ctx.sleep(timedelta(days=days))
            order.append(days)

        async with WorkflowEnvironment(orchestrators=[noting]) as env:
            handles = [await env.start(noting, input=days) for days in (9, 3, 6)]
            for handle in handles:
                await handle.result()
            assert order == [3, 6, 9]

    async def test_start_does_not_advance_the_clock(self, env):
        handle = await env.start(sleeper, input=60)
        assert handle.status is OrchestrationStatus.RUNNING
        assert env.now == DEFAULT_START

    async def test_advance_moves_exactly_by_the_given_time(self, env):
        handle = await env.start(sleeper, input=60)
        await env.advance(59)
        statuses = [handle.status]
        await env.advance(timedelta(seconds=1))
        assert [*statuses, handle.status] == [OrchestrationStatus.RUNNING, OrchestrationStatus.COMPLETED]
        assert env.now == DEFAULT_START + timedelta(minutes=1)

    async def test_advance_does_not_go_back(self, env):
        with pytest.raises(ValueError, match=r"time does not go backwards: advance\(-1\)"):
            await env.advance(-1)

    @pytest.mark.parametrize(
        ("by", "error", "message"),
        [
            ("3 days", TypeError, r"advance\(\) takes seconds or a timedelta, not '3 days'"),
            (timedelta(days=365 * 9000), ValueError, r"goes beyond the calendar: it is 2024-01-01 here"),
        ],
    )
    async def test_advance_takes_a_length_of_time(self, env, by, error, message):
        with pytest.raises(error, match=message):
            await env.advance(by)

    async def test_without_auto_skip_only_advance_moves_the_clock(self):
        async with WorkflowEnvironment(orchestrators=[sleeper], auto_skip=False, stuck_timeout=5) as env:
            handle = await env.start(sleeper, input=60)
            waiting = asyncio.ensure_future(handle.result())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await env.advance(60)
            assert await waiting == "2024-01-01T00:01:00+00:00"

    async def test_without_auto_skip_the_stuck_error_names_advance(self):
        async with WorkflowEnvironment(orchestrators=[sleeper], auto_skip=False, stuck_timeout=0.05) as env:
            handle = await env.start(sleeper, input=60)
            with pytest.raises(WorkflowStuckError, match=r"auto_skip is off, so time has to be advanced: await env"):
                await handle.result()

    async def test_a_start_time_needs_a_time_zone(self):
        with pytest.raises(ValueError, match=r"has no time zone; write datetime\(\.\.\., tzinfo=timezone\.utc\)"):
            WorkflowEnvironment(start_time=datetime(2024, 1, 1))

    async def test_a_start_at_a_later_time(self, env):
        when = DEFAULT_START + timedelta(hours=3)
        handle = await env.start(sleeper, input=0, start_at=when)
        assert handle.status is OrchestrationStatus.PENDING
        assert await handle.result() == when.isoformat()

    async def test_time_stands_still_while_an_activity_runs(self):
        async def slow(context, _):
            await asyncio.sleep(0.05)
            return "done"

        async def race(ctx):
            index, _ = await ctx.when_any_with_result([ctx.call_activity(slow), ctx.create_timer(timedelta(seconds=1))])
            return index

        async with WorkflowEnvironment(orchestrators=[race], activities=[slow]) as env:
            assert await env.execute(race) == 0

    async def test_retries_wait_on_the_environments_clock(self, env):
        env.stub("charge", sequence=[ValueError("1"), ValueError("2"), "receipt"])
        assert await env.execute(charges_with_retries, input=5) == "receipt"
        assert [call.at - DEFAULT_START for call in env.calls] == [
            timedelta(0),
            timedelta(minutes=1),
            timedelta(minutes=3),
        ]

    async def test_a_retry_timeout_is_measured_on_the_environments_clock(self):
        async def impatient(ctx):
            policy = RetryPolicy(
                first_retry_interval=timedelta(hours=1), max_number_of_attempts=100, retry_timeout=timedelta(hours=5)
            )
            await ctx.call_activity("charge", retry_policy=policy)

        async with WorkflowEnvironment(orchestrators=[impatient]) as env:
            env.stub("charge", raises=ValueError("no"))
            with pytest.raises(OrchestrationFailedError):
                await env.execute(impatient)
            assert len(env.calls) == 5, "the sixth attempt would begin when the five hours are over"

    async def test_a_cancelled_activity_with_a_retry_timeout_is_not_retried(self):
        async def gives_up(ctx):
            policy = RetryPolicy(
                first_retry_interval=timedelta(seconds=10), max_number_of_attempts=5, retry_timeout=timedelta(hours=1)
            )
            try:
                await ctx.with_timeout(ctx.call_activity("charge", retry_policy=policy), 5)
            except TimeoutError:
                await ctx.sleep(600)

        async with WorkflowEnvironment(orchestrators=[gives_up]) as env:
            env.stub("charge", raises=ValueError("no"), delay=20)
            await env.execute(gives_up)
            assert len(env.calls) == 1


class TestEvents:
    async def test_an_event_that_is_awaited(self, env):
        handle = await env.start(waits)
        await handle.raise_event("go", {"by": "Ada"})
        assert handle.status is OrchestrationStatus.COMPLETED
        assert await handle.result() == {"by": "Ada"}

    async def test_an_event_before_it_is_awaited(self, env):
        async def later(ctx):
            await ctx.sleep(60)
            return await ctx.wait_for_external_event("go")

        async with WorkflowEnvironment(orchestrators=[later]) as env:
            handle = await env.start(later)
            await handle.raise_event("go", 1)
            assert await handle.result() == 1

    async def test_waiting_for_an_event_that_is_never_sent_is_an_error(self, env):
        handle = await env.start(waits)
        with pytest.raises(
            WorkflowStuckError,
            match="workflow 'waits', instance 'waits-1', waits for the event 'go': nothing is running and no timer",
        ):
            await handle.result()

    async def test_another_task_of_the_test_may_send_it(self, env):
        handle = await env.start(waits)

        async def approve():
            await asyncio.sleep(0.05)
            await handle.raise_event("go", "yes")

        assert (await asyncio.gather(handle.result(), approve()))[0] == "yes"

    async def test_custom_status(self, env):
        handle = await env.start(waits)
        assert handle.custom_status == {"step": "waiting"}

    async def test_terminate(self, env):
        handle = await env.start(waits)
        await handle.terminate("enough")
        assert handle.status is OrchestrationStatus.TERMINATED
        with pytest.raises(WorkflowTerminatedError, match="'waits-1' was terminated, with the output 'enough'"):
            await handle.result()

    async def test_suspend_and_resume(self, env):
        handle = await env.start(waits)
        await handle.suspend("lunch")
        await handle.raise_event("go", 1)
        assert handle.status is OrchestrationStatus.SUSPENDED
        with pytest.raises(WorkflowStuckError, match=r"it is suspended; call resume\(\)"):
            await handle.result()
        await handle.resume()
        assert await handle.result() == 1

    async def test_waiting_for_lists_the_pending_operations(self, env):
        async def many(ctx):
            timer = ctx.create_timer(timedelta(days=1))
            event = ctx.wait_for_external_event("Go")
            activity = ctx.call_activity("charge")
            part = ctx.call_sub_orchestrator(waits, instance_id="part")
            await ctx.when_all([timer, event, activity, part])

        async with WorkflowEnvironment(orchestrators=[many, waits]) as env:
            env.stub("charge", never=True)
            handle = await env.start(many)
            assert handle.waiting_for == [
                "the timer at 2024-01-02 00:00:00 (#1)",
                "activity 'charge' (#2)",
                "sub-orchestration 'waits', instance 'part'",
                "the event 'go'",
            ]


@dataclass
class Order:
    amount: int


class Books:
    def look_up(self, context, order: Order):
        return order.amount

    @staticmethod
    def amount_of(order: Order):
        return order.amount

    def __call__(self, order: Order):
        return order.amount


def books(order: Order):
    return order.amount


def books_for_checkers_only(order: NotImported):  # type: ignore[name-defined]  # noqa: F821
    return order["amount"]


def books_of_a_stub_file(order: asyncio.OnlyThere):  # type: ignore[name-defined]
    return order["amount"]


async def books_async(order: Order | None):
    return order.amount


class TestStubs:
    async def test_a_value(self, env):
        env.stub("charge", returns={"receipt": 7})
        assert await env.execute(charges, input=5) == {"receipt": 7}

    async def test_none_is_a_value(self, env):
        env.stub("charge", returns=None)
        assert await env.execute(charges, input=5) is None

    @pytest.mark.parametrize(
        "function",
        [lambda context, value: value + 1, lambda value: value + 1, lambda: 6],
        ids=["context and input", "input", "nothing"],
    )
    async def test_a_function(self, env, function):
        env.stub("charge", calls=function)
        assert await env.execute(charges, input=5) == 6

    async def test_an_async_function(self, env):
        async def answer(value):
            await asyncio.sleep(0)
            return value + 1

        env.stub("charge", calls=answer)
        assert await env.execute(charges, input=5) == 6

    async def test_a_registered_activity_given_as_function(self, env):
        stub = env.stub(double, returns=100)
        assert await env.execute(sequence, input=1) == 300
        assert [call.input for call in stub.calls] == [1]

    async def test_a_sequence(self, env):
        env.stub("charge", sequence=[1, ValueError("second"), 3])
        assert await env.execute(charges, input=0) == 1
        with pytest.raises(OrchestrationFailedError, match="second"):
            await env.execute(charges, input=0)
        assert await env.execute(charges, input=0) == 3

    async def test_a_sequence_that_is_too_short_is_an_error(self, env):
        env.stub("charge", sequence=[1])
        await env.execute(charges, input=0)
        with pytest.raises(OrchestrationFailedError, match="the stub for 'charge' has 1 outcomes and was called once"):
            await env.execute(charges, input=0)
        assert isinstance(env.calls[-1].error, StubExhaustedError)

    async def test_a_delay_passes_on_the_environments_clock(self, env):
        env.stub("charge", returns=1, delay=timedelta(hours=2))
        handle = await env.start(charges, input=5)
        assert handle.waiting_for == ["activity 'charge' (#1)"]
        assert await handle.result() == 1
        assert env.now == DEFAULT_START + timedelta(hours=2)

    async def test_never(self, env):
        async def impatient(ctx):
            try:
                return await ctx.with_timeout(ctx.call_activity("charge"), 3600)
            except TimeoutError:
                return "gave up"
            except asyncio.TimeoutError:
                return "gave up"

        async with WorkflowEnvironment(orchestrators=[impatient]) as env:
            env.stub("charge", sequence=[NEVER])
            assert await env.execute(impatient) == "gave up"
            assert [call.is_done for call in env.calls] == [False]

    async def test_a_stub_has_at_most_one_outcome(self, env):
        with pytest.raises(TypeError, match="a stub does one thing; returns and raises were given for 'charge'"):
            env.stub("charge", returns=1, raises=ValueError())

    async def test_a_stub_has_at_least_one_outcome(self, env):
        with pytest.raises(TypeError, match="say what the stub for 'charge' does: returns=value"):
            env.stub("charge")

    @pytest.mark.parametrize(
        ("outcome", "error", "message"),
        [
            ({"raises": "boom"}, TypeError, "raises= of the stub for 'charge' takes an exception, not 'boom'; for a v"),
            ({"calls": 5}, TypeError, "calls= of the stub for 'charge' takes a function, not 5; for a value: returns="),
            ({"sequence": "ab"}, TypeError, "sequence= of the stub for 'charge' takes a list of outcomes, one a call"),
            ({"sequence": {1: 2}}, TypeError, r"takes a list of outcomes, one a call, not \{1: 2\}"),
            ({"sequence": 5}, TypeError, "takes a list of outcomes, one a call, not 5"),
            ({"returns": 1, "delay": "5s"}, TypeError, "delay= of the stub for 'charge' takes seconds or a timedelta"),
            ({"returns": 1, "delay": -5}, ValueError, "is negative, and time does not go backwards: -5"),
        ],
    )
    def test_an_invalid_outcome_is_an_error_where_the_stub_is_made(self, outcome, error, message):
        with pytest.raises(error, match=message):
            WorkflowEnvironment().stub("charge", **outcome)

    async def test_a_sequence_may_be_a_generator(self, env):
        env.stub("charge", sequence=(f"receipt {n}" for n in range(2)))
        assert [await env.execute(charges, input=n) for n in range(2)] == ["receipt 0", "receipt 1"]
        with pytest.raises(OrchestrationFailedError, match="the stub for 'charge' has 2 outcomes and was called once"):
            await env.execute(charges, input=2)

    @pytest.mark.parametrize(
        "function",
        [
            lambda context, order: order["amount"],
            lambda order: order["amount"],
            Mock(side_effect=lambda context, order: order["amount"]),
            Books().look_up,
            Books.amount_of,
            books,
            books_for_checkers_only,
            books_of_a_stub_file,
            books_async,
            Books(),
            functools.partial(Books().look_up, None),
        ],
        ids=["two", "one", "mock", "method", "static", "function", "unknown", "no-such", "async", "object", "partial"],
    )
    async def test_a_function_gets_the_input_as_its_annotated_type(self, env, function):
        env.stub("charge", calls=function)
        assert await env.execute(charges, input=Order(7)) == 7

    async def test_an_input_that_is_not_of_that_type_fails_the_activity(self, env):
        env.stub("charge", calls=books)
        with pytest.raises(OrchestrationFailedError, match="activity 'charge' failed with"):
            await env.execute(charges, input={"price": 7})

    async def test_every_call_is_recorded_in_order(self, env):
        await env.execute(sequence, input=2)
        assert [(call.name, call.input, call.result) for call in env.calls] == [("double", 2, 4), ("triple", 4, 12)]
        assert {call.instance_id for call in env.calls} == {"sequence-1"}
        assert all(call.is_done for call in env.calls)


class TestActivities:
    async def test_a_sync_activity_may_block_and_run_a_loop_of_its_own(self):
        def blocking(context, _):
            assert threading.current_thread() is not threading.main_thread()
            return asyncio.run(asyncio.sleep(0.01, "done"))

        async def workflow(ctx):
            return await ctx.call_activity(blocking)

        async with WorkflowEnvironment(orchestrators=[workflow], activities=[blocking]) as env:
            assert await env.execute(workflow) == "done"

    @pytest.mark.parametrize("runs", [True, False], ids=["runs it", "hands it on"])
    async def test_a_plain_wrapper_of_an_async_activity_may_run_it_or_return_its_coroutine(self, runs):
        async def done(context, _):
            return "done"

        @functools.wraps(done)
        def wrapper(context, _):
            return asyncio.run(done(context, _)) if runs else done(context, _)

        async def workflow(ctx):
            return await ctx.call_activity("done")

        async with WorkflowEnvironment(orchestrators=[workflow], activities=[wrapper]) as env:
            assert await env.execute(workflow) == "done"

    async def test_a_sync_activity_that_raises_stop_iteration_fails(self):
        def first(context, numbers):
            return next(number for number in numbers if number > 2)

        async def workflow(ctx):
            return await ctx.call_activity(first, input=[1, 2])

        async with WorkflowEnvironment(orchestrators=[workflow], activities=[first]) as env:
            with pytest.raises(OrchestrationFailedError, match=r"failed with builtins\.StopIteration") as caught:
                await env.execute(workflow)
            with local_backend() as engine, TaskHubGrpcWorker(host_address=engine.address) as worker:
                worker.add_orchestrator(workflow)
                worker.add_activity(first)
                worker.start()
                with TaskHubGrpcClient(host_address=engine.address) as client:
                    instance_id = client.schedule_new_orchestration("workflow", instance_id="workflow-1")
                    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
        assert state.failure_details.message == caught.value.failure_details.message

    @pytest.mark.parametrize("outcome", [{"raises": StopIteration("empty")}, {"sequence": [StopIteration("empty")]}])
    async def test_a_stub_raises_stop_iteration_as_a_sync_activity_does(self, env, outcome):
        env.stub("charge", **outcome)
        with pytest.raises(OrchestrationFailedError, match=r"builtins\.StopIteration: empty"):
            await env.execute(charges, input=1)

    async def test_an_async_activity_runs_on_the_loop_of_the_test(self):
        loops = []

        async def note(context, _):
            loops.append(asyncio.get_running_loop())

        async def workflow(ctx):
            await ctx.call_activity(note)

        async with WorkflowEnvironment(orchestrators=[workflow], activities=[note]) as env:
            await env.execute(workflow)
        assert loops == [asyncio.get_running_loop()]

    async def test_async_activities_overlap(self):
        together = asyncio.Barrier(3) if hasattr(asyncio, "Barrier") else None
        if together is None:
            pytest.skip("asyncio.Barrier came with 3.11")

        async def meet(context, _):
            await together.wait()

        async def workflow(ctx):
            await asyncio.gather(*(ctx.call_activity(meet) for _ in range(3)))
            return "met"

        async with WorkflowEnvironment(orchestrators=[workflow], activities=[meet]) as env:
            assert await env.execute(workflow) == "met"

    async def test_starting_does_not_wait_for_an_activity_that_waits_for_the_test(self):
        gate = asyncio.Event()

        async def gated(context, _):
            await gate.wait()
            return "through"

        async def workflow(ctx):
            return await ctx.call_activity(gated)

        async with WorkflowEnvironment(orchestrators=[workflow], activities=[gated], stuck_timeout=0.05) as env:
            handle = await env.start(workflow)
            with pytest.raises(WorkflowStuckError, match=r"still run after 0\.05 seconds of real time.*gated"):
                await env.advance(60)
            gate.set()
            assert await handle.result() == "through"

    async def test_the_error_names_running_activities_and_not_delayed_stubs(self):
        gate = threading.Event()

        class Blocking(DurableEntity):
            def stop(self):
                gate.wait(20)

        async def workflow(ctx):
            ctx.signal_entity(EntityInstanceId("Blocking", "one"), "stop")
            await ctx.call_activity("charge")

        async with WorkflowEnvironment(orchestrators=[workflow], entities=[Blocking], stuck_timeout=0.05) as env:
            env.stub("charge", never=True)
            await env.start(workflow)
            with pytest.raises(WorkflowStuckError, match="time stands still for them: @blocking@one; stub one"):
                await env.advance(60)
            gate.set()

    async def test_a_result_waits_for_a_long_activity_and_logs_a_warning(self, caplog):
        gate = asyncio.Event()

        async def gated(context, _):
            await gate.wait()
            return "through"

        async def workflow(ctx):
            return await ctx.call_activity(gated)

        async with WorkflowEnvironment(orchestrators=[workflow], activities=[gated], stuck_timeout=0.02) as env:
            waiting = asyncio.ensure_future(env.execute(workflow))
            await asyncio.sleep(0.2)
            gate.set()
            assert await waiting == "through"
        (record,) = [each for each in caplog.records if each.name == "durabletask.aio.testing"]
        assert "activities or entities still run after 0.02 seconds of real time" in record.getMessage()
        assert "gated; stub one that should take time with delay= or never=True" in record.getMessage()


class TestEntities:
    async def test_signals_state_and_calls(self, env):
        counter = EntityInstanceId("Counter", "one")
        await env.signal_entity(counter, "add", input=3)
        await env.signal_entity(counter, "add", input=4, at=DEFAULT_START + timedelta(days=1))
        assert env.entity_state(counter) == 3
        await env.advance(timedelta(days=1))
        assert env.entity_state(counter, int) == 7

        async def adds(ctx):
            return await ctx.call_entity(counter, "add", 10)

        async with WorkflowEnvironment(orchestrators=[adds], entities=[Counter]) as other:
            assert await other.execute(adds) == 10

    async def test_a_signal_to_an_entity_that_is_not_registered(self, env):
        with pytest.raises(LookupError, match=r"no entity 'countre' is registered here.*did you mean 'counter'"):
            await env.signal_entity(EntityInstanceId("Countre", "one"), "add", input=3)

    async def test_an_entity_without_state(self, env):
        assert env.entity_state(EntityInstanceId("Counter", "nobody")) is None


async def polls(ctx):
    while True:
        await ctx.sleep(60)


async def starts_again(ctx):
    ctx.continue_as_new(None)


async def works_on(ctx):
    while True:
        await ctx.call_activity("charge")


class TestEndlessWorkflows:
    @pytest.mark.parametrize("workflow", [polls, starts_again, works_on])
    async def test_waiting_for_one_is_an_error(self, workflow):
        async with WorkflowEnvironment(orchestrators=[workflow], turn_limit=50, verify=False) as env:
            env.stub("charge", returns=1)
            message = (
                rf"'{workflow.__name__}', instance '{workflow.__name__}-1', has had 50 turns while the test waited"
            )
            with pytest.raises(WorkflowStuckError, match=message):
                await env.execute(workflow)

    async def test_the_message_has_the_time_and_the_remedy(self):
        async with WorkflowEnvironment(orchestrators=[polls], turn_limit=1500, verify=False) as env:
            with pytest.raises(
                WorkflowStuckError, match=r"it is 2024-01-02 01:01 by now.*env\.advance.*turn_limit= allows more"
            ):
                await env.execute(polls)

    async def test_other_instances_continue(self):
        async with WorkflowEnvironment(
            orchestrators=[starts_again, sequence], activities=[double, triple], turn_limit=9
        ) as env:
            with pytest.raises(WorkflowStuckError):
                await env.start(starts_again)
            assert await env.execute(sequence, input=2) == 12

    @pytest.mark.parametrize("workflow", [polls, works_on])
    async def test_a_paused_instance_can_be_terminated(self, workflow):
        async with WorkflowEnvironment(orchestrators=[workflow], turn_limit=50) as env:
            env.stub("charge", returns=1)
            with pytest.raises(WorkflowStuckError):
                await env.execute(workflow)
            handle = env.handle(f"{workflow.__name__}-1")
            await handle.terminate("enough")
            assert handle.status is OrchestrationStatus.TERMINATED

    async def test_a_paused_instance_continues_as_far_as_time_is_advanced(self):
        async with WorkflowEnvironment(orchestrators=[polls], turn_limit=50) as env:
            with pytest.raises(WorkflowStuckError):
                await env.execute(polls)
            before = len(env.handle("polls-1").history)
            await env.advance(timedelta(minutes=10))
            assert len(env.handle("polls-1").history) > before

    async def test_each_wait_of_the_test_counts_turns_from_zero(self):
        async with WorkflowEnvironment(orchestrators=[polls], turn_limit=15) as env:
            handle = await env.start(polls)
            for _ in range(3):
                await env.advance(timedelta(minutes=10))
            await handle.terminate("enough")
            assert handle.status is OrchestrationStatus.TERMINATED

    @pytest.mark.parametrize("workflow", [polls, starts_again, works_on])
    async def test_a_time_limit_of_the_test_ends_the_wait(self, workflow):
        async with WorkflowEnvironment(orchestrators=[workflow], turn_limit=None, verify=False) as env:
            env.stub("charge", returns=1)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(env.execute(workflow), 0.1)


class TestVerifying:
    async def test_closing_the_environment_reports_code_that_behaves_differently_when_replayed(self):
        numbers = itertools.count()

        async def impure(ctx):
            await ctx.call_activity(double, input=next(numbers))

        with pytest.raises(ReplayError) as caught:
            async with WorkflowEnvironment(orchestrators=[impure], activities=[double]) as env:
                await env.execute(impure)
        first, *lines = str(caught.value).splitlines()
        assert first.startswith("workflow 'impure' is not deterministic: replayed, it does something else than it did")
        assert lines[:3] == [
            "  at step #1, in turn 1:",
            "    then:     call_activity('double', 0)",
            "    replayed: call_activity('double', 1)",
        ]

    @pytest.mark.parametrize(
        ("then", "replayed", "cause"),
        [
            ("await ctx.call_activity(double, input=1)", "...", "which way it goes depends on something"),
            ("...", "await ctx.call_activity(double, input=1)", "which way it goes depends on something"),
            (
                "await ctx.call_activity(double, input=1)",
                "await ctx.call_activity(double, input=2)",
                "what 'double' is given comes from something",
            ),
            ("await ctx.sleep(1)", "await ctx.sleep(2)", "the length of the wait comes from something"),
            ("return 1", "return 2", "its end depends on something"),
            ("return 1", "raise KeyError(2)", "the code raises KeyError only when replayed, so it depends on"),
        ],
    )
    async def test_the_likely_cause_is_not_a_change_of_the_code(self, then, replayed, cause):
        names = {"double": double}
        exec(f"async def workflow(ctx):\n  if ctx.is_replaying: {replayed}\n  else: {then}\n", names)
        with pytest.raises(ReplayError) as caught:
            async with WorkflowEnvironment(orchestrators=[names["workflow"]], activities=[double]) as env:
                await env.execute(names["workflow"])
        assert f"likely cause: {cause}" in str(caught.value)
        assert "not in the history: ctx.is_replaying, a clock, random" in str(caught.value)

    async def test_executions_that_start_at_one_virtual_time_have_different_random_values(self):
        values = []

        async def again(ctx, rounds):
            if not ctx.is_replaying:
                values.append((ctx.random().random(), ctx.uuid4(), ctx.new_uuid()))
            await ctx.sleep(timedelta(0))
            if rounds:
                ctx.continue_as_new(rounds - 1)

        async with WorkflowEnvironment(orchestrators=[again]) as env:
            await env.execute(again, input=4)
        assert [len(set(drawn)) for drawn in zip(*values, strict=True)] == [5, 5, 5]

    async def test_executions_that_start_at_one_virtual_time_do_not_move_the_clock(self):
        async def nightly(ctx, rounds):
            if rounds % 2:
                await ctx.sleep(timedelta(days=1))
            ctx.continue_as_new(rounds + 1) if rounds < 20 else None

        async with WorkflowEnvironment(orchestrators=[nightly]) as env:
            handle = await env.start(nightly, input=0)
            started = env.now
            await env.advance(timedelta(days=10))
            await handle.result()
            assert env.now - started == timedelta(days=10)

    async def test_executions_that_continued_as_new_are_replayed_too(self):
        numbers = itertools.count()

        async def impure(ctx, rounds):
            await ctx.call_activity(double, input=next(numbers) if rounds else 0)
            if rounds:
                ctx.continue_as_new(rounds - 1)

        with pytest.raises(ReplayError):  # noqa: PT012
            async with WorkflowEnvironment(orchestrators=[impure], activities=[double]) as env:
                await env.execute(impure, input=1)
                assert [len(history) for history in env.histories] == [6, 8]

    async def test_it_can_be_switched_off(self):
        numbers = itertools.count()

        async def impure(ctx):
            await ctx.call_activity(double, input=next(numbers))

        async with WorkflowEnvironment(orchestrators=[impure], activities=[double], verify=False) as env:
            await env.execute(impure)

    async def test_an_error_of_the_test_takes_precedence(self):
        numbers = itertools.count()

        async def impure(ctx):
            await ctx.call_activity(double, input=next(numbers))

        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with WorkflowEnvironment(orchestrators=[impure], activities=[double]) as env:
                await env.execute(impure)
                raise ZeroDivisionError


class TestEnding:
    async def test_waiting_workflows_are_closed_without_logging(self):
        ended = []

        async def cleaning(ctx):
            try:
                await ctx.wait_for_external_event("never")
            finally:
                ended.append(threading.current_thread() is threading.main_thread())

        async with WorkflowEnvironment(orchestrators=[cleaning], verify=False) as env:
            await env.start(cleaning)
        assert ended == [True]

    async def test_running_activities_are_cancelled(self):
        outcome = []

        async def endless(context, _):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                outcome.append("cancelled")
                raise

        async def workflow(ctx):
            await ctx.call_activity(endless)

        async with WorkflowEnvironment(orchestrators=[workflow], activities=[endless]) as env:
            await env.start(workflow)
        assert outcome == ["cancelled"]

    async def test_a_closed_environment_is_an_error(self, env):
        await env.close()
        with pytest.raises(RuntimeError, match="this workflow environment has been closed"):
            await env.execute(sequence, input=1)

    async def test_a_closed_environment_runs_nothing_more(self):
        async with WorkflowEnvironment(orchestrators=[sleeper]) as env:
            handle = await env.start(sleeper, input=60)
        for late in (handle.result, lambda: env.advance(60)):
            with pytest.raises(RuntimeError, match="this workflow environment has been closed"):
                await late()
        assert env.now == DEFAULT_START
        assert handle.status is OrchestrationStatus.RUNNING

    async def test_results_stay_available_after_closing(self):
        async with WorkflowEnvironment(orchestrators=[sleeper]) as env:
            handle = await env.start(sleeper, input=0)
        assert await handle.result() == DEFAULT_START.isoformat()

    async def test_closing_wakes_tasks_that_wait_for_a_result(self):
        async with WorkflowEnvironment(orchestrators=[waits], stuck_timeout=60) as env:
            handle = await env.start(waits)
            waiting = asyncio.ensure_future(handle.result())
            await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="this workflow environment has been closed"):
            await asyncio.wait_for(waiting, 10)

    def test_use_from_another_event_loop_is_an_error(self):
        env = WorkflowEnvironment(orchestrators=[sequence], activities=[double, triple])

        async def enter():
            await env.__aenter__()

        asyncio.run(enter())
        with pytest.raises(RuntimeError, match=r"belongs to another event loop.*mark\.asyncio\(loop_scope="):
            asyncio.run(env.execute(sequence, input=1))
        asyncio.run(env.close())

    async def test_environments_do_not_leak(self):
        tasks, threads = len(asyncio.all_tasks()), threading.active_count()
        environments = []
        for _ in range(50):
            async with WorkflowEnvironment(orchestrators=[waits, sequence], activities=[double, triple]) as env:
                await env.start(waits)
                await env.execute(sequence, input=1)
            environments.append(weakref.ref(env))
        del env
        gc.collect()
        assert len(asyncio.all_tasks()) == tasks
        assert threading.active_count() <= threads
        assert [each() for each in environments if each() is not None] == []
