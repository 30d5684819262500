"""The context: it has everything that upstream's has, and a wrong call says what is wrong with it."""

import asyncio
import dataclasses
import inspect
import json
import math
import sys
from datetime import datetime, timedelta, timezone
from unittest.mock import ANY
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from durabletask import task
from durabletask.aio import (
    ActivityFailedError,
    AsyncWorkflowContext,
    AsyncWorkflowError,
    Operation,
    RetryPolicy,
    SubOrchestrationFailedError,
    WorkflowValidationError,
    as_orchestrator,
)
from durabletask.entities import EntityInstanceId
from durabletask.internal import orchestrator_service_pb2 as pb
from turns import CONTINUED, START, Instance, canonical, replay
from workflows import boom, failure_of, finished, line_in, result_of, started

from durabletask_aio.core.settings import STEP_BUDGET_VARIABLE

VALIDATION = "durabletask.aio.WorkflowValidationError"

# -- upstream's methods -----------------------------------------------------------------------------------------------

UPSTREAM_MEMBERS = sorted(name for name in vars(task.OrchestrationContext) if not name.startswith("_"))


@pytest.mark.parametrize("name", UPSTREAM_MEMBERS)
def test_every_member_of_upstreams_context_has_its_twin(name):
    theirs = inspect.getattr_static(task.OrchestrationContext, name)
    ours = inspect.getattr_static(AsyncWorkflowContext, name, None)

    assert ours is not None, f"durabletask has OrchestrationContext.{name}, and AsyncWorkflowContext has not"
    assert isinstance(theirs, property) == isinstance(ours, property)
    if isinstance(theirs, property):
        return
    accepted = inspect.signature(ours).parameters
    for parameter in inspect.signature(theirs).parameters.values():
        assert parameter.name in accepted, f"AsyncWorkflowContext.{name} lacks the parameter {parameter.name!r}"
        assert accepted[parameter.name].kind == parameter.kind
        assert accepted[parameter.name].default == parameter.default


def _returns_a_task(name):
    theirs = inspect.getattr_static(task.OrchestrationContext, name)
    return not isinstance(theirs, property) and "Task" in str(inspect.signature(theirs).return_annotation)


@pytest.mark.parametrize("name", [name for name in UPSTREAM_MEMBERS if _returns_a_task(name)])
def test_what_is_a_task_at_upstream_is_an_operation_here(name):
    ours = inspect.signature(getattr(AsyncWorkflowContext, name)).return_annotation
    assert "Operation" in ours


COUNTER = EntityInstanceId("counter", "a")


def _every_call(ctx, combine):
    """The same calls on both contexts, by the names they share."""
    policy = RetryPolicy(first_retry_interval=timedelta(seconds=2), max_number_of_attempts=3)
    tasks = [
        ctx.call_activity("a", input={"n": 1}),
        ctx.call_activity("a", input=[1, None], tags={"tenant": "acme"}),
        ctx.call_activity("a", retry_policy=policy, return_type=int),
        ctx.call_sub_orchestrator("child", input="x"),
        ctx.call_sub_orchestrator("child", instance_id="my-child", version="2.0", retry_policy=policy),
        ctx.create_timer(timedelta(seconds=5)),
        ctx.create_timer(datetime(2026, 1, 1, 13)),
        ctx.create_timer(datetime(2026, 1, 1, 22, tzinfo=ZoneInfo("Asia/Tokyo"))),
        ctx.call_entity(COUNTER, "add", 3),
        ctx.wait_for_external_event("go"),
    ]
    ctx.signal_entity(COUNTER, "reset", 0, signal_time=datetime(2026, 1, 2, tzinfo=timezone.utc))
    ctx.send_event("other", "hello", data={"from": ctx.instance_id})
    ctx.set_custom_status({"id": ctx.new_uuid()})
    return combine(tasks)


def test_every_call_emits_the_actions_of_its_generator_twin():
    async def workflow(ctx):
        await _every_call(ctx, ctx.when_all)

    def generator(ctx, _):
        yield _every_call(ctx, task.when_all)

    ours, theirs = started(workflow, name="w"), Instance(generator, name="w").start()

    assert canonical(ours.turns[0]) == canonical(theirs.turns[0])
    assert ours.custom_status == theirs.custom_status
    kinds = {action.WhichOneof("orchestratorActionType") for action in ours.turns[0]}
    assert kinds == {"scheduleTask", "createSubOrchestration", "createTimer", "sendEntityMessage", "sendEvent"}


def test_identity():
    async def workflow(ctx):
        return [ctx.instance_id, ctx.workflow_name, ctx.parent_instance_id, ctx.version]

    instance = Instance(as_orchestrator(workflow, name="orders"), instance_id="order-1")
    started_event = instance.started.executionStarted
    started_event.version.value = "1.5"
    started_event.parentInstance.orchestrationInstance.instanceId = "the-parent"

    assert instance.run().result == ["order-1", "orders", "the-parent", "1.5"]


def work(ctx, value):
    return value


async def input_by_position(ctx):
    return await ctx.call_activity(work, 3)  # <-


async def input_of_a_child_by_position(ctx):
    return await ctx.call_sub_orchestrator("child", 3)  # <-


async def input_by_the_name_of_the_parameter(ctx):
    return await ctx.call_activity(work, value=3)  # <-


async def abbreviated_keyword(ctx):
    return await ctx.call_activity(work, input=1, retry=3)  # <-


async def misspelled_keyword(ctx):
    return await ctx.wait_for_external_event("paid", datatype=int)  # <-


async def unknown_keyword(ctx):
    return await ctx.sleep(1, tolerance=3)  # <-


async def nothing_given(ctx):
    return await ctx.call_activity()  # <-


@pytest.mark.parametrize(
    ("workflow", "wrong", "right"),
    [
        (input_by_position, "ctx.call_activity(work, value)", "ctx.call_activity(work, input=value)"),
        (
            input_of_a_child_by_position,
            "ctx.call_sub_orchestrator(work, value)",
            "ctx.call_sub_orchestrator(work, input=value)",
        ),
        (
            input_by_the_name_of_the_parameter,
            "ctx.call_activity(work, value=value)",
            "ctx.call_activity(work, input={'value': value})",
        ),
        (abbreviated_keyword, "ctx.call_activity(work, retry=value)", "ctx.call_activity(work, retry_policy=value)"),
        (
            misspelled_keyword,
            "ctx.wait_for_external_event(datatype=value)",
            "ctx.wait_for_external_event(data_type=value)",
        ),
        (unknown_keyword, "ctx.sleep(tolerance=value)", "ctx.sleep(delay)"),
    ],
)
def test_a_call_that_python_refuses_is_corrected_at_its_line(workflow, wrong, right):
    details = failure_of(workflow)
    assert details.errorType == VALIDATION
    first, *forms = details.errorMessage.splitlines()
    assert first.startswith(wrong.partition("(")[0] + "() ")
    assert f" ({line_in(workflow)}) [workflow '{workflow.__name__}'" in first
    assert forms == [f"  wrong: {wrong}", f"  right: {right}"]


def test_a_call_without_arguments_shows_the_parameters():
    message = failure_of(nothing_given).errorMessage
    assert message.startswith("ctx.call_activity() missing 1 required positional argument: 'activity' (")
    assert "\n  right: ctx.call_activity(activity, *, input=None, retry_policy=None, " in message


def test_a_type_error_of_another_function_is_left_alone():
    async def workflow(ctx):
        return work(1, 2, 3)  # type: ignore[call-arg]

    details = failure_of(workflow)
    assert details.errorType == "builtins.TypeError"
    assert details.errorMessage == "work() takes 2 positional arguments but 3 were given"


@pytest.mark.parametrize(
    ("name", "meant"), [("call_activty", "call_activity"), ("time", "now"), ("instanceid", "instance_id")]
)
def test_a_misspelled_member_of_the_context_suggests_the_right_one(name, meant):
    async def workflow(ctx):
        return getattr(ctx, name)  # <-

    details = failure_of(workflow)
    assert details.errorMessage == (
        f"the context of a workflow has no attribute {name!r} ({line_in(workflow)}) "
        f"[workflow 'workflow', instance 'instance-1']\n"
        f"  wrong: ctx.{name}\n"
        f"  right: ctx.{meant}"
    )


def test_a_member_that_is_like_no_other_is_pythons_own_error():
    async def workflow(ctx):
        return ctx.quantum

    assert failure_of(workflow).errorType == "builtins.AttributeError"


async def spins_on_now(ctx):
    end = ctx.now() + timedelta(seconds=1)
    while ctx.now() < end:  # <-
        pass


async def spins_on_upstreams_clock(ctx):
    await ctx.sleep(1)
    while ctx.current_utc_datetime.second != 59:  # <-
        pass


async def spins_on_the_time_of_the_loop(ctx):
    loop = asyncio.get_running_loop()
    while loop.time() < 60:  # <-
        pass


@pytest.mark.parametrize(
    ("workflow", "shown"),
    [
        (spins_on_now, "ctx.now()"),
        (spins_on_upstreams_clock, "ctx.current_utc_datetime"),
        (spins_on_the_time_of_the_loop, "loop.time()"),
    ],
)
def test_a_loop_that_waits_for_the_clock_ends_with_its_line(workflow, shown, monkeypatch):
    monkeypatch.setenv(STEP_BUDGET_VARIABLE, "100")

    details = failure_of(workflow)

    assert details.errorType == "durabletask.aio.StepBudgetError"
    assert details.errorMessage == (
        f"{shown} was read 100 times within one turn ({line_in(workflow)}), and the clock of a workflow stands "
        f"still until the workflow waits for something durable "
        f"[workflow {workflow.__name__!r}, instance 'instance-1']\n"
        f"  wrong: while {shown} < end: pass\n"
        f"  right: await ctx.sleep(seconds)"
    )


def test_the_clock_can_be_read_as_often_as_one_likes_over_many_turns(monkeypatch):
    monkeypatch.setenv(STEP_BUDGET_VARIABLE, "100")

    async def workflow(ctx):
        for _ in range(4):
            for _ in range(90):
                ctx.now()
            await ctx.sleep(1)

    assert result_of(workflow) is None


def test_the_representation_names_workflow_and_instance():
    async def workflow(ctx):
        return repr(ctx)

    assert result_of(workflow) == "<AsyncWorkflowContext workflow='workflow' instance='instance-1'>"


def test_upstreams_context_is_within_reach():
    async def workflow(ctx):
        assert ctx.upstream_context.instance_id == ctx.instance_id
        return ctx.upstream_context.new_uuid()

    assert len(result_of(workflow)) == 36


# -- activities -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Order:
    id: str
    total: int


def load(ctx: task.ActivityContext, key: str) -> Order:
    raise AssertionError("activities are not run by these tests")


async def load_async(ctx: task.ActivityContext, key: str) -> Order:
    raise AssertionError("activities are not run by these tests")


@pytest.mark.parametrize("activity", [load, load_async])
def test_the_annotation_of_an_activity_gives_the_type_of_its_result(activity):
    async def workflow(ctx):
        order = await ctx.call_activity(activity, input="o-1")
        assert type(order) is Order
        return order.total

    assert result_of(workflow, None, {activity.__name__: lambda key: {"id": key, "total": 3}}) == 3


def test_return_type_reconstructs_the_result_of_an_activity_called_by_name():
    async def workflow(ctx):
        order = await ctx.call_activity("load", input="o-1", return_type=Order)
        child = await ctx.call_sub_orchestrator("load", input="o-2", return_type=Order)
        event = await ctx.wait_for_external_event("order", data_type=Order)
        assert [type(order), type(child), type(event)] == [Order] * 3
        return [order.id, child.id, event.id]

    activities = {"load": lambda key: {"id": key, "total": 3}}
    events = [(100, "order", {"id": "o-3", "total": 1})]
    assert result_of(workflow, None, activities, events=events) == ["o-1", "o-2", "o-3"]


def test_a_dataclass_goes_in_and_comes_out():
    async def workflow(ctx, order: Order) -> Order:
        return Order(order.id, order.total + await ctx.call_activity("price", input=order))

    instance = finished(workflow, Order("o-1", 2), {"price": lambda order: order["total"] * 10})
    assert instance.result == {"id": "o-1", "total": 22}


def test_a_failed_activity_raises_with_everything_that_is_known():
    caught = []

    async def workflow(ctx):
        try:
            await ctx.call_activity("boom", input=1)
        except ActivityFailedError as error:
            caught.append(error)
        return "handled"

    assert result_of(workflow, None, {"boom": boom}) == "handled"
    error = caught[0]
    assert str(error) == (
        "activity 'boom' failed with builtins.ValueError: boom [workflow 'workflow', instance 'instance-1', step 1]"
    )
    assert (error.instance_id, error.workflow_name, error.step) == ("instance-1", "workflow", 1)
    assert isinstance(error, task.TaskFailedError)
    assert isinstance(error, AsyncWorkflowError)
    assert (error.details.error_type, error.details.message) == ("builtins.ValueError", "boom")
    assert error.details.is_caused_by(ValueError)
    assert type(error.task_error) is task.TaskFailedError


def test_a_failed_sub_orchestration_has_a_type_of_its_own():
    async def workflow(ctx):
        try:
            await ctx.call_sub_orchestrator("boom")
        except SubOrchestrationFailedError as error:
            return str(error)

    assert result_of(workflow, None, {"boom": boom}).startswith(
        "sub-orchestration 'boom' failed with builtins.ValueError"
    )


# -- retries --------------------------------------------------------------------------------------------------------


def _retrying(**options):
    policy = RetryPolicy(first_retry_interval=timedelta(seconds=10), max_number_of_attempts=4, **options)

    async def workflow(ctx):
        try:
            return await ctx.call_activity("flaky", retry_policy=policy)
        except ActivityFailedError:
            return f"gave up at {ctx.now():%H:%M:%S}"

    return workflow


def test_retries_follow_the_policy():
    calls = []

    def flaky(_):
        calls.append(1)
        if len(calls) < 3:
            raise ValueError("not yet")
        return "at last"

    instance = finished(_retrying(backoff_coefficient=2.0), None, {"flaky": flaky})
    assert instance.result == "at last"
    assert len(calls) == 3
    replay(instance)


def _wall_clock():
    return datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)


@pytest.mark.parametrize(
    "start",
    [datetime(2020, 1, 1), _wall_clock() - timedelta(hours=1), _wall_clock(), datetime(2100, 1, 1)],
    ids=["years ago", "an hour ago", "now", "years ahead"],
)
def test_retry_timeout_is_decided_on_the_workflows_clock(start):
    """Upstream reads the wall clock: the history of a retry, continued an hour late, would take the other branch."""
    workflow = _retrying(retry_timeout=timedelta(seconds=15))
    instance = Instance(as_orchestrator(workflow), start=start).run({"flaky": boom})

    waits = [action for turn in instance.turns for action in turn if action.HasField("createTimer")]
    assert len(waits) == 2, "retried after ten and after twenty seconds; by then the fifteen were over"
    assert instance.result == f"gave up at {start + timedelta(seconds=20):%H:%M:%S}"
    replay(instance)


def test_a_retry_timeout_beyond_the_end_of_time_is_none():
    instance = finished(_retrying(retry_timeout=timedelta.max), None, {"flaky": boom})
    assert instance.result == "gave up at 12:00:30"


def test_the_branch_of_retry_timeout_is_the_generators_as_long_as_it_has_not_run_out():
    def generator(ctx, _):
        try:
            return (yield ctx.call_activity("flaky", retry_policy=policy))
        except task.TaskFailedError:
            return "gave up"

    async def workflow(ctx):
        try:
            return await ctx.call_activity("flaky", retry_policy=policy)
        except task.TaskFailedError:
            return "gave up"

    policy = RetryPolicy(
        first_retry_interval=timedelta(seconds=10),
        max_number_of_attempts=3,
        backoff_coefficient=3.0,
        max_retry_interval=timedelta(seconds=15),
        retry_timeout=timedelta(days=1),
    )
    # Upstream's own computation needs a start within reach of the wall clock.
    start = datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)
    ours = Instance(as_orchestrator(workflow), name="w", start=start).run({"flaky": boom})
    theirs = Instance(generator, name="w", start=start).run({"flaky": boom})

    assert [canonical(turn) for turn in ours.turns] == [canonical(turn) for turn in theirs.turns]


# -- timers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fire_at", "seconds"),
    [
        (5, 5),
        (0.25, 0.25),
        (timedelta(minutes=2), 120),
        (START + timedelta(hours=1), 3599.999),
        ((START + timedelta(hours=1)).replace(tzinfo=timezone.utc), 3599.999),
        ((START + timedelta(hours=1)).replace(tzinfo=timezone.utc).astimezone(ZoneInfo("Asia/Tokyo")), 3599.999),
        (0, 0),
        (timedelta(days=10), 864_000),
    ],
)
@pytest.mark.parametrize("method", ["create_timer", "sleep"])
def test_timers_take_seconds_timedeltas_and_both_kinds_of_datetime(method, fire_at, seconds):
    async def workflow(ctx):
        before = ctx.now()
        await getattr(ctx, method)(fire_at)
        return (ctx.now() - before).total_seconds()

    instance = finished(workflow)
    # One millisecond is what the harness lets pass per turn; a long timer takes several turns.
    assert seconds <= instance.result <= seconds + 0.01 * len(instance.turns)
    replay(instance)


@pytest.mark.parametrize("sleep", ["ctx.sleep", "ctx.create_timer", "asyncio.sleep"])
@pytest.mark.parametrize("delay", [3e11, 1e20])
def test_a_timer_beyond_the_calendar_is_refused_at_its_line(sleep, delay):
    async def workflow(ctx):
        start = {"ctx.sleep": ctx.sleep, "ctx.create_timer": ctx.create_timer, "asyncio.sleep": asyncio.sleep}[sleep]
        await start(delay)  # <-

    details = failure_of(workflow)
    assert details.errorType == VALIDATION
    assert f"a timer of {delay!r} would fire after the year 9999 ({line_in(workflow)})" in details.errorMessage
    assert f"  wrong: await {sleep}({delay!r})" in details.errorMessage
    assert "  right: await ctx.wait_for_external_event('name'), if it is to" in details.errorMessage


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with Python 3.11")
def test_a_time_limit_beyond_the_calendar_is_none_and_should_be_written_so():
    async def workflow(ctx):
        async with asyncio.timeout(1e12):  # <-
            await ctx.call_activity("double", input=1)

    message = failure_of(workflow).errorMessage
    assert f"a timer of 1000000000000.0 would fire after the year 9999 ({line_in(workflow)})" in message
    assert "  wrong: async with asyncio.timeout(1000000000000.0)\n" in message
    assert "  right: async with asyncio.timeout(None), if there is to be no limit" in message


@pytest.mark.parametrize("delay", [timedelta.max, 10**400])
@pytest.mark.parametrize("call", ["sleep", "with_timeout"])
def test_a_delay_beyond_what_a_number_holds_is_refused_too(call, delay):
    async def workflow(ctx):
        await (ctx.sleep(delay) if call == "sleep" else ctx.with_timeout(ctx.call_activity("double", input=1), delay))

    assert "would fire after the year 9999" in failure_of(workflow).errorMessage


@pytest.mark.parametrize("fire_at", ["5", None, float("nan"), float("inf"), True, [5]])
def test_a_timer_that_takes_none_of_these_is_refused_at_its_line(fire_at):
    async def workflow(ctx):
        await ctx.sleep(fire_at)  # <-

    details = failure_of(workflow)
    assert details.errorType == VALIDATION
    assert (
        f"a timer takes seconds, a timedelta or a datetime, and not {fire_at!r} ({line_in(workflow)})"
        in details.errorMessage
    )
    assert f"  wrong: await ctx.sleep({fire_at!r})" in details.errorMessage
    assert "  right: await ctx.sleep(1.5) or await ctx.sleep(timedelta(days=1))" in details.errorMessage


# -- arguments ------------------------------------------------------------------------------------------------------


async def charge(ctx, order):
    return order


def _coroutine_as_activity(ctx):
    return ctx.call_activity(charge(ctx, 1))  # <-


def _coroutine_as_child(ctx):
    return ctx.call_sub_orchestrator(charge(ctx, 1))  # <-


def _lambda_as_activity(ctx):
    return ctx.call_activity(lambda ctx, order: order)  # <-


def _number_as_activity(ctx):
    return ctx.call_activity(5)  # <-


def _operation_as_input(ctx):
    return ctx.call_activity("store", input=ctx.call_activity("load"))  # <-


def _operation_inside_the_input(ctx):
    return ctx.call_activity("store", input={"order": [1, ctx.call_activity("load")]})  # <-


def _coroutine_as_input(ctx):
    return ctx.call_activity("store", input=charge(ctx, 1))  # <-


def _operation_as_childs_input(ctx):
    return ctx.call_sub_orchestrator("store", input=ctx.call_activity("load"))  # <-


def _operation_to_an_entity(ctx):
    return ctx.call_entity(COUNTER, "add", ctx.call_activity("load"))  # <-


def _operation_as_signal(ctx):
    ctx.signal_entity(COUNTER, "add", ctx.call_activity("load"))  # <-


def _operation_as_event(ctx):
    ctx.send_event("other", "hello", data=ctx.call_activity("load"))  # <-


def _operation_as_status(ctx):
    ctx.set_custom_status({"order": ctx.call_activity("load")})  # <-


def _operation_as_next_input(ctx):
    ctx.continue_as_new(ctx.call_activity("load"))  # <-


def _set_as_input(ctx):
    return ctx.call_activity("store", input={"tags": {1, 2}})  # <-


def _object_as_childs_input(ctx):
    return ctx.call_sub_orchestrator("store", input=object())  # <-


def _set_as_status(ctx):
    ctx.set_custom_status({1, 2})  # <-


def _set_as_next_input(ctx):
    ctx.continue_as_new({1, 2})  # <-


def _naive_zone(ctx):
    ctx.now("Asia/Tokyo")  # <-


def _number_as_policy(ctx):
    return ctx.call_activity("store", retry_policy=3)  # <-


def _number_as_childs_policy(ctx):
    return ctx.call_sub_orchestrator("store", retry_policy=3)  # <-


def _numbers_as_tags(ctx):
    return ctx.call_activity("store", tags={"priority": 1})  # <-


def _string_as_tags(ctx):
    return ctx.call_activity("store", tags="urgent")  # <-


def _string_as_tags_beside_metadata(ctx):
    ctx.set_metadata({"tenant": "acme"})
    return ctx.call_activity("store", tags="urgent")  # <-


def _uuid_as_id(ctx):
    return ctx.call_sub_orchestrator("store", instance_id=UUID(int=1))  # <-


def _number_as_version(ctx):
    return ctx.call_sub_orchestrator("store", version=1.5)  # <-


def _nothing_as_event(ctx):
    return ctx.wait_for_external_event(None)  # <-


def _empty_event(ctx):
    return ctx.wait_for_external_event("")  # <-


async def _number_as_events(ctx):
    return ctx.events(5)  # <-


def _number_as_receiver(ctx):
    ctx.send_event(5, "hello")  # <-


def _nothing_as_sent_event(ctx):
    ctx.send_event("other", None)  # <-


def _huge_activity(ctx):
    return ctx.call_activity({"order": "x" * 1000})  # <-


def _infinite_timeout(ctx):
    return ctx.with_timeout(ctx.call_activity("load"), math.inf)  # <-


def _timeout_beyond_the_calendar(ctx):
    return ctx.with_timeout(ctx.call_activity("load"), 1e300)  # <-


STORE = "  right: ctx.call_activity('store', input="
CHILD = "  right: ctx.call_sub_orchestrator('store', input="
STATUS = "  right: ctx.set_custom_status("
NEXT = "  right: ctx.continue_as_new("
UNAWAITED = "await ctx.call_activity('load'))"
TAGS = "  right: ctx.call_activity(work, tags={'priority': '1'})"
EVENT = "ctx.wait_for_external_event("
CONVERTIBLE = "...) with dicts, lists, strings, numbers, dataclasses"


@pytest.mark.parametrize(
    ("call", "what", "right"),
    [
        (
            _coroutine_as_activity,
            "charge(...) was called, and not passed",
            "  right: await ctx.call_activity(charge, input=value)",
        ),
        (
            _coroutine_as_child,
            "charge(...) was called, and not passed",
            "  right: await ctx.call_sub_orchestrator(charge, input=value)",
        ),
        (
            _lambda_as_activity,
            "ctx.call_activity was given a lambda",
            "  right: await ctx.call_activity('name', input=value)",
        ),
        (
            _number_as_activity,
            "takes a function or its name, and not 5",
            "  right: await ctx.call_activity(work, input=value)",
        ),
        (_operation_as_input, "input of activity 'store' is activity 'load'", STORE + UNAWAITED),
        (_operation_inside_the_input, "input['order'][1] of activity 'store' is activity 'load'", STORE + UNAWAITED),
        (_coroutine_as_input, "input of activity 'store' is a coroutine, charge(...),", STORE + "await work())"),
        (_operation_as_childs_input, "input of sub-orchestration 'store' is activity 'load'", CHILD + UNAWAITED),
        (
            _operation_to_an_entity,
            "input of entity operation 'add' is activity 'load'",
            "  right: ctx.call_entity(entity, 'add', " + UNAWAITED,
        ),
        (
            _operation_as_signal,
            "input of ctx.signal_entity is activity 'load'",
            "  right: ctx.signal_entity(entity, 'add', " + UNAWAITED,
        ),
        (
            _operation_as_event,
            "data of ctx.send_event is activity 'load'",
            "  right: ctx.send_event(instance_id, 'hello', data=" + UNAWAITED,
        ),
        (_operation_as_status, "status['order'] of ctx.set_custom_status is activity 'load'", STATUS + UNAWAITED),
        (_operation_as_next_input, "new_input of ctx.continue_as_new is activity 'load'", NEXT + UNAWAITED),
        (
            _set_as_input,
            "input['tags'] of activity 'store' cannot be serialised: its type is 'set'",
            STORE + "sorted(value))",
        ),
        (
            _object_as_childs_input,
            "input of sub-orchestration 'store' cannot be serialised: its type is 'object'",
            CHILD + CONVERTIBLE,
        ),
        (
            _set_as_status,
            "status of ctx.set_custom_status cannot be serialised: its type is 'set'",
            STATUS + "sorted(value))",
        ),
        (
            _set_as_next_input,
            "new_input of ctx.continue_as_new cannot be serialised: its type is 'set'",
            NEXT + "sorted(value))",
        ),
        (
            _number_as_policy,
            "the retry_policy of ctx.call_activity is a RetryPolicy, and not 3",
            "  right: ctx.call_activity(work, retry_policy=RetryPolicy(first_retry_interval=timedelta(seconds=1), ",
        ),
        (
            _number_as_childs_policy,
            "the retry_policy of ctx.call_sub_orchestrator is a RetryPolicy, and not 3",
            "  right: ctx.call_sub_orchestrator(work, retry_policy=RetryPolicy(",
        ),
        (_numbers_as_tags, "tags are a dict of strings, and not {'priority': 1}", TAGS),
        (_string_as_tags, "tags are a dict of strings, and not 'urgent'", TAGS),
        (_string_as_tags_beside_metadata, "tags are a dict of strings, and not 'urgent'", TAGS),
        (
            _uuid_as_id,
            "instance_id is a string, and not UUID('00000000-0000-0000-0000-000000000001')",
            "  right: ctx.call_sub_orchestrator('store', instance_id=str(value))",
        ),
        (
            _number_as_version,
            "version is a string, and not 1.5",
            "  right: ctx.call_sub_orchestrator('store', version=str(value))",
        ),
        (_nothing_as_event, "the name of an event is a string, and not None", "right: " + EVENT + "'name')"),
        (_empty_event, "the name of an event is a string that is not empty, and not ''", "right: " + EVENT + "'name')"),
        (_number_as_events, "the name of an event is a string, and not 5", "  right: ctx.events(str(value))"),
        (_number_as_receiver, "the id of an instance is a string, and not 5", "  right: ctx.send_event(str(value))"),
        (
            _nothing_as_sent_event,
            "the name of an event is a string, and not None",
            "  right: ctx.send_event(instance_id, 'name')",
        ),
        (
            _huge_activity,
            f"takes a function or its name, and not {{'order': '{'x' * 189}... (1,013 characters)",
            "  right: await ctx.call_activity(work, input=value)",
        ),
        (
            _infinite_timeout,
            "the timeout of ctx.with_timeout is in seconds, or a timedelta, and not inf",
            "; None waits forever",
        ),
        (
            _timeout_beyond_the_calendar,
            "a timer of 1e+300 would fire after the year 9999",
            "  wrong: await ctx.with_timeout(operation, 1e+300)",
        ),
        (
            _naive_zone,
            "ctx.now() takes a time zone, and not 'Asia/Tokyo'",
            "  right: ctx.now() or ctx.now(ZoneInfo('Asia/Tokyo'))",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_arguments_are_named_at_the_line_of_the_call(call, what, right):
    async def workflow(ctx):
        await call(ctx)

    details = failure_of(workflow)
    assert details.errorType == VALIDATION
    assert what in details.errorMessage
    assert f"({line_in(call)}) [workflow 'workflow', instance 'instance-1'" in details.errorMessage
    assert "\n  wrong: " in details.errorMessage
    assert right in details.errorMessage


def test_a_wrong_argument_is_a_type_error_and_a_value_error_that_the_workflow_may_catch():
    async def workflow(ctx):
        for kind in (TypeError, ValueError, AsyncWorkflowError, WorkflowValidationError):
            with pytest.raises(kind):
                ctx.call_activity("store", input={1, 2})
        return "caught"

    assert result_of(workflow) == "caught"


# -- an activity called directly ------------------------------------------------------------------------------------


def sync_activity(ctx, order):
    return ctx.task_id  # <-


async def async_activity(ctx, order):
    return ctx.orchestration_id  # <-


@pytest.mark.parametrize("activity", [sync_activity, async_activity])
def test_an_activity_that_is_called_directly_meets_the_workflows_context(activity):
    async def workflow(ctx):
        result = activity(ctx, {"id": 1})
        return await result if inspect.isawaitable(result) else result

    details = failure_of(workflow)
    assert "it looks as if an activity was called directly" in details.errorMessage
    assert f"({line_in(activity)})" in details.errorMessage
    assert (
        "  wrong: await charge(ctx, order)\n  right: await ctx.call_activity(charge, input=order)"
        in details.errorMessage
    )


def test_attributes_that_nobody_has_are_ordinary_attribute_errors():
    async def workflow(ctx):
        assert not hasattr(ctx, "task_id")
        with pytest.raises(
            AttributeError, match="'AsyncWorkflowContext' object has no attribute 'call_activty'"
        ) as caught:
            ctx.call_activty("a")
        assert (caught.value.name, caught.value.obj) == ("call_activty", ctx)
        return "checked"

    assert result_of(workflow) == "checked"


# -- continue_as_new ------------------------------------------------------------------------------------------------


def test_continue_as_new_ends_the_execution_with_the_next_input():
    async def workflow(ctx, count):
        ctx.continue_as_new(count + 1)

    instance = finished(workflow, 1)
    assert instance.outcome.orchestrationStatus == CONTINUED
    assert json.loads(instance.outcome.result.value) == 2


def test_continue_as_new_takes_a_version():
    async def workflow(ctx):
        ctx.continue_as_new(None, new_version="2.0")

    assert finished(workflow).outcome.newVersion.value == "2.0"


@pytest.mark.parametrize(
    ("late", "what"),
    [
        (lambda ctx: ctx.call_activity("late"), "ctx.call_activity"),
        (lambda ctx: ctx.sleep(1), "ctx.sleep"),
        (lambda ctx: ctx.wait_for_external_event("late"), "ctx.wait_for_external_event"),
        (lambda ctx: ctx.continue_as_new(2), "ctx.continue_as_new after"),
        (lambda ctx: ctx.send_event("other", "late"), "ctx.send_event"),
    ],
)
def test_scheduling_after_continue_as_new_fails_with_the_line_of_that_call(late, what):
    async def workflow(ctx):
        ctx.continue_as_new(1)  # <-
        await late(ctx)

    details = failure_of(workflow)
    assert details.errorType == "durabletask.aio.AsyncWorkflowError"
    assert what in details.errorMessage
    assert f"after ctx.continue_as_new(), which was called at {line_in(workflow)}" in details.errorMessage
    assert "  right: await ctx.sleep(60); ctx.continue_as_new(state); return" in details.errorMessage


def test_awaiting_after_continue_as_new_fails_with_both_lines():
    async def workflow(ctx):
        pending = ctx.call_activity("slow")
        ctx.continue_as_new(1)  # <-
        await pending  # (awaits)

    message = failure_of(workflow).errorMessage
    assert f"the workflow awaits something durable at {line_in(workflow, '(awaits)')}" in message
    assert f"which was called at {line_in(workflow)}" in message


def test_an_exception_after_continue_as_new_fails_the_instance():
    async def workflow(ctx):
        ctx.continue_as_new(1)
        raise KeyError("too late")

    assert failure_of(workflow).errorType == "builtins.KeyError"


# -- the rest -------------------------------------------------------------------------------------------------------


def test_the_clock_is_aware_and_stands_still_within_a_turn():
    async def workflow(ctx):
        first = ctx.now()
        assert first == ctx.now()
        assert first.tzinfo is timezone.utc
        assert ctx.current_utc_datetime == first.replace(tzinfo=None)
        tokyo = ctx.now(ZoneInfo("Asia/Tokyo"))
        assert tokyo == first
        assert tokyo.utcoffset() == timedelta(hours=9)
        await ctx.sleep(60)
        assert ctx.now() - first >= timedelta(seconds=60)
        return first.isoformat()

    instance = finished(workflow)
    assert instance.result == "2026-01-01T12:00:00.001000+00:00"
    replay(instance)


def test_send_event_is_checked_by_upstream():
    async def workflow(ctx):
        ctx.send_event("@counter@a", "add")

    details = failure_of(workflow)
    assert details.errorType == "builtins.ValueError"
    assert "reserved for entities" in details.errorMessage


def test_is_replaying_tells_old_turns_from_new_ones():
    seen = []

    async def workflow(ctx):
        seen.append(("before", ctx.is_replaying))
        await ctx.call_activity("a")
        seen.append(("after", ctx.is_replaying))

    finished(workflow)
    assert seen == [("before", False), ("before", True), ("after", False)]


def test_the_context_cannot_be_given_other_attributes():
    async def workflow(ctx):
        with pytest.raises(AttributeError, match=r"'AsyncWorkflowContext' object has no attribute 'order'"):
            ctx.order = 1
        return "checked"

    assert result_of(workflow) == "checked"


def test_both_ways_of_calling_an_activity_are_operations_at_once():
    async def workflow(ctx):
        operations = [ctx.call_activity("a", input=n) for n in range(3)]
        assert all(isinstance(operation, Operation) and not operation.done() for operation in operations)
        return await asyncio.gather(*operations)

    instance = started(workflow)
    assert [type(action) for action in instance.turns[0]] == [pb.OrchestratorAction] * 3, "scheduled at the call"
    assert instance.run().result == [0, 1, 2] == ANY
