"""Operations: futures that describe themselves, and that raise when they are used in place of their results."""

# ruff: noqa: RET503 - the workflows are wrong on purpose

import asyncio
import gc
import inspect
import json
import operator
import threading
import tracemalloc
import types
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import cast
from uuid import UUID

import pytest
from durabletask import task
from durabletask.aio import (
    ActivityFailedError,
    AsyncWorkflowContext,
    AsyncWorkflowError,
    EventStream,
    HeldLock,
    Operation,
    as_orchestrator,
)
from durabletask.entities import EntityInstanceId
from turns import Instance
from workflows import failure_of, finished, line_in, result_of, started

from durabletask_aio.core.loop import WorkflowLoop

VALIDATION = "durabletask.aio.WorkflowValidationError"


# -- the forgotten await --------------------------------------------------------------------------------------------


async def added(ctx):
    total = ctx.call_activity("total")
    return total + 1  # <-


async def subtracted_from(ctx):
    total = ctx.call_activity("total")
    return 1 - total  # <-


async def as_a_condition(ctx):
    approved = ctx.call_activity("approved")
    if approved:  # <-
        return "yes"
    return "no"


async def negated(ctx):
    approved = ctx.call_activity("approved")
    if not approved:  # <-
        return "yes"
    return "no"


async def compared(ctx):
    status = ctx.call_activity("status")
    return "go" if status == "ok" else "stop"  # <-


async def unequal(ctx):
    status = ctx.call_activity("status")
    return "stop" if status != 200 else "go"  # <-


async def ordered(ctx):
    total = ctx.call_activity("total")
    return total > 3  # <-


async def indexed(ctx):
    order = ctx.call_activity("order")
    return order["id"]  # <-


async def searched(ctx):
    names = ctx.call_activity("names")
    return "anna" in names  # <-


async def measured(ctx):
    names = ctx.call_activity("names")
    return len(names)  # <-


async def iterated(ctx):
    names = ctx.call_activity("names")
    return [name for name in names]  # <-  # noqa: C416


async def looped(ctx):
    names = ctx.call_activity("names")
    for name in names:  # <-
        return name


async def unpacked(ctx):
    pair = ctx.call_activity("pair")
    first, second = pair  # <-
    return first, second


async def asked_for_an_attribute(ctx):
    order = ctx.call_activity("order")
    return order.total  # <-


async def converted(ctx):
    total = ctx.call_activity("total")
    return int(total)  # <-


async def used_as_an_index(ctx):
    position = ctx.call_activity("position")
    return [1, 2, 3][position]  # <-


async def put_into_an_f_string(ctx):
    receipt = ctx.call_activity("receipt")
    return f"your receipt: {receipt}"  # <-


async def padded(ctx):
    receipt = ctx.call_activity("receipt")
    return "{:>10}".format(receipt)  # <-  # noqa: UP032


async def made_a_string(ctx):
    receipt = ctx.call_activity("receipt")
    return "your receipt: " + str(receipt)  # <-


async def interpolated(ctx):
    receipt = ctx.call_activity("receipt")
    return "your receipt: %s" % receipt  # <-  # noqa: UP031


async def printed(ctx):
    receipt = ctx.call_activity("receipt")
    print(receipt)  # <-


class Size(Enum):
    LARGE = "large"


@dataclass
class Receipt:
    number: int


FORGOTTEN = [
    added,
    subtracted_from,
    as_a_condition,
    negated,
    compared,
    unequal,
    ordered,
    indexed,
    searched,
    measured,
    iterated,
    looped,
    unpacked,
    asked_for_an_attribute,
    converted,
    used_as_an_index,
    put_into_an_f_string,
    padded,
    made_a_string,
    interpolated,
    printed,
]


@pytest.mark.parametrize("workflow", FORGOTTEN, ids=lambda workflow: workflow.__name__)
def test_a_result_used_without_await_is_found_at_its_line(workflow):
    details = failure_of(workflow)

    assert details.errorType in (VALIDATION, "durabletask_aio.core.operations.UnawaitedAttributeError")
    assert "without being awaited" in details.errorMessage
    assert f"({line_in(workflow)})" in details.errorMessage
    assert "  wrong: result = ctx.call_activity('" in details.errorMessage
    assert "  right: result = await ctx.call_activity('" in details.errorMessage
    assert "step 1]" in details.errorMessage


@pytest.mark.parametrize(
    "use",
    [
        lambda operation: operation**2,
        lambda operation: 2**operation,
        lambda operation: operation % 2,
        lambda operation: 7 % operation,
        lambda operation: 7 // operation,
        lambda operation: divmod(operation, 2),
        lambda operation: divmod(2, operation),
        abs,
        round,
        lambda operation: operator.setitem(operation, "key", 1),
        lambda operation: operator.delitem(operation, "key"),
    ],
)
def test_calculating_with_an_operation_is_a_forgotten_await(use):
    async def workflow(ctx):
        return use(ctx.call_activity("total"))

    assert "was used as a value without being awaited" in failure_of(workflow).errorMessage


@pytest.mark.parametrize(
    "value",
    [
        *("ok", b"ok", 1, 2.5, [1], (1,), {"a": 1}, {1}, frozenset({1}), Size.LARGE),
        *(date(2030, 1, 1), datetime(2030, 1, 1), timedelta(1), Decimal(1), UUID(int=1), Receipt(7)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_comparison_with_what_a_result_may_be_is_a_forgotten_await(value):
    async def workflow(ctx):
        return ctx.call_activity("size") == value  # <-

    message = failure_of(workflow).errorMessage
    assert f"was used in a comparison with {value!r} without being awaited ({line_in(workflow)})" in message


def test_the_representation_of_an_operation_is_no_use_of_its_result():
    async def workflow(ctx):
        double = ctx.call_activity("double", input=2)
        shown = f"{double!r}"
        await double
        return [shown, repr(double), repr([double])]

    done = "<Operation activity 'double' step=1 finished>"
    assert result_of(workflow) == ["<Operation activity 'double' step=1 pending>", done, f"[{done}]"]


async def joined(ctx):
    return ", ".join([ctx.call_activity("name")])  # <-


async def dumped(ctx):
    return json.dumps({"name": ctx.call_activity("name")})  # <-


async def called(ctx):
    return ctx.call_activity("name")()  # <-


async def iterated_asynchronously(ctx):
    async for event in ctx.wait_for_external_event("order"):  # <-
        return event


@pytest.mark.parametrize(
    ("workflow", "python"),
    [
        (joined, "sequence item 0: expected str instance, Operation found"),
        (dumped, "Object of type Operation is not JSON serializable"),
        (called, "'Operation' object is not callable"),
        (iterated_asynchronously, "'async for' requires an object with __aiter__ method, got Operation"),
    ],
)
def test_what_python_says_of_an_operation_where_a_value_belongs_comes_with_a_question(workflow, python):
    details = failure_of(workflow)
    assert details.errorType == VALIDATION
    assert details.errorMessage.startswith(f"{python}; was an operation used without being awaited? ")
    assert f"({line_in(workflow)}) [workflow '{workflow.__name__}'" in details.errorMessage
    assert details.errorMessage.endswith("  right: text = ', '.join([await ctx.call_activity('name')])")


@pytest.mark.parametrize("ask", [asyncio.Future.result, asyncio.Future.exception])
def test_asking_for_the_outcome_in_place_of_awaiting_it_shows_the_await(ask):
    async def workflow(ctx):
        return ask(ctx.call_activity("name"))  # <-

    details = failure_of(workflow)
    assert details.errorType == "durabletask_aio.core.operations.UnawaitedResultError"
    assert details.errorMessage == (
        f"the workflow asked a future for its outcome before it was done ({line_in(workflow)}) "
        "[workflow 'workflow', instance 'instance-1']\n"
        "  wrong: ctx.call_activity('work').result()\n"
        "  right: await ctx.call_activity('work')"
    )


def test_code_that_expects_an_invalid_state_goes_on_working():
    async def workflow(ctx):
        try:
            return ctx.call_activity("name").result()
        except asyncio.InvalidStateError as error:
            return str(error)

    assert result_of(workflow) == "Result is not set."


def test_the_message_also_says_where_the_operation_was_scheduled():
    async def workflow(ctx):
        total = ctx.call_activity("total")  # <-
        return total + 1

    assert failure_of(workflow).errorMessage.startswith(f"activity 'total' ({line_in(workflow)}) was used as a value")


@pytest.mark.parametrize(
    ("make", "call"),
    [
        (lambda ctx: ctx.call_activity("charge"), "ctx.call_activity('charge')"),
        (lambda ctx: ctx.call_sub_orchestrator("child"), "ctx.call_sub_orchestrator('child')"),
        (lambda ctx: ctx.wait_for_external_event("go"), "ctx.wait_for_external_event('go')"),
        (lambda ctx: ctx.create_timer(5), "ctx.create_timer(...)"),
        (lambda ctx: ctx.call_entity(EntityInstanceId("counter", "a"), "get"), "ctx.call_entity(...)"),
        (lambda ctx: ctx.lock_entities([EntityInstanceId("counter", "a")]), "ctx.lock_entities(...)"),
        (lambda ctx: ctx.gather(ctx.create_timer(5)), "ctx.gather(...)"),
        (lambda ctx: ctx.when_all([ctx.create_timer(5)]), "ctx.when_all(...)"),
        (lambda ctx: ctx.when_any([ctx.create_timer(5)]), "ctx.when_any(...)"),
        (lambda ctx: ctx.with_timeout(ctx.create_timer(5), 3), "ctx.with_timeout(...)"),
    ],
)
def test_the_right_form_names_the_method_that_was_called(make, call):
    async def workflow(ctx):
        return make(ctx) + 1

    message = failure_of(workflow).errorMessage
    assert f"  wrong: result = {call}\n  right: result = await {call}" in message


def test_operations_can_still_be_compared_with_each_other_and_kept_in_collections():
    async def workflow(ctx):
        a, b = ctx.call_activity("a", input=1), ctx.call_activity("b", input=2)
        assert a == a
        assert a != b
        assert a in [b, a]
        assert {a: "a", b: "b"}[b] == "b"
        assert a in {a, b}
        assert a != None  # noqa: E711
        assert not hasattr(a, "no_such_name")
        return [await a, await b]

    assert result_of(workflow) == [1, 2]


def test_yield_from_an_operation_in_a_generator_based_coroutine_is_an_await():
    @types.coroutine
    def helper(ctx):
        return (yield from ctx.call_activity("double", input=4))

    async def workflow(ctx):
        return await helper(ctx)

    assert result_of(workflow, None, {"double": lambda n: n * 2}) == 8


# -- upstream's combinators -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("combine", [task.when_all, task.when_any])
def test_an_operation_given_to_upstreams_combinators_shows_ours(combine):
    async def workflow(ctx):
        await combine([ctx.call_activity("a")])  # <-

    details = failure_of(workflow)
    assert details.errorType == VALIDATION
    assert "was given to durabletask.task.when_all or when_any" in details.errorMessage
    assert "  wrong: await task.when_all([ctx.call_activity('a'), ...])" in details.errorMessage
    assert "  right: await ctx.when_all([ctx.call_activity('a'), ...])" in details.errorMessage
    assert f"({line_in(workflow)}) [" in details.errorMessage


# -- who may wait for it --------------------------------------------------------------------------------------------


def _operation_of_another_instance() -> tuple[Operation, AsyncWorkflowContext, Instance]:
    kept = []

    async def other(ctx):
        operation = ctx.call_activity("theirs")
        kept.extend((operation, ctx))
        await operation

    instance = started(other, instance_id="other", scoped=False)
    return kept[0], kept[1], instance


@pytest.mark.not_replayed("what belongs to another loop is in another state by then")
def test_awaiting_an_operation_of_another_instance_is_refused_at_its_line():
    operation, _, _keep = _operation_of_another_instance()

    async def workflow(ctx):
        await operation  # <-

    details = failure_of(workflow)
    assert details.errorType == VALIDATION
    assert "the workflow awaited an operation of another instance" in details.errorMessage
    assert f"({line_in(workflow)} in workflow)" in details.errorMessage
    assert "  right: await ctx.wait_for_external_event('done')" in details.errorMessage


@pytest.mark.not_replayed("what belongs to another loop is in another state by then")
def test_awaiting_it_again_is_refused_too():
    """After the first time, CPython takes the future for one that is being awaited right now."""
    operation, _, _keep = _operation_of_another_instance()

    async def workflow(ctx):
        await operation  # <-

    failure_of(workflow)
    details = failure_of(workflow)
    assert details.errorType == VALIDATION
    assert "which this workflow's loop cannot wait for" in details.errorMessage
    assert f"({line_in(workflow)} in workflow)" in details.errorMessage


@pytest.mark.not_replayed("what belongs to another loop is in another state by then")
@pytest.mark.parametrize(
    "combine",
    [
        lambda ctx, operation: ctx.gather(operation),
        lambda ctx, operation: ctx.when_all([operation]),
        lambda ctx, operation: ctx.when_any([operation]),
        lambda ctx, operation: ctx.with_timeout(operation, 5),
    ],
)
def test_combining_an_operation_of_another_instance_is_refused_at_the_call(combine):
    operation, _, _keep = _operation_of_another_instance()

    async def workflow(ctx):
        await combine(ctx, operation)

    message = failure_of(workflow).errorMessage
    assert "was given an operation of another instance, which this workflow's loop cannot wait for" in message


@pytest.mark.not_replayed("what belongs to another loop is in another state by then")
def test_a_future_of_the_applications_loop_is_refused():
    loop = asyncio.new_event_loop()
    try:
        future = loop.create_future()

        async def workflow(ctx):
            await future  # <-

        details = failure_of(workflow)
    finally:
        loop.close()

    assert details.errorType == VALIDATION
    assert "a future of the application's event loop" in details.errorMessage
    assert f"({line_in(workflow)} in workflow)" in details.errorMessage
    assert "  right: await ctx.call_activity(fetch, input=url)" in details.errorMessage


def test_an_operation_cannot_be_created_from_another_thread():
    raised = []

    async def workflow(ctx):
        def work():
            try:
                ctx.call_activity("from a thread")
            except AsyncWorkflowError as error:
                raised.append(str(error))

        thread = threading.Thread(target=work, name="helper")
        thread.start()
        thread.join()
        return "done"

    instance = finished(workflow)

    assert instance.result == "done"
    assert not instance.outstanding, "nothing was scheduled"
    assert "on thread 'helper', which is not the one the workflow runs on" in raised[0]
    assert f"{__file__}:" in raised[0]
    assert "  right: await ctx.call_activity(work, input=value)" in raised[0]


@pytest.mark.parametrize("use", [lambda ctx: ctx.random(), lambda ctx: ctx.uuid4(), lambda ctx: ctx.set_metadata({})])
def test_what_is_not_scheduled_but_ordered_is_refused_to_other_threads_too(use):
    raised = []

    async def workflow(ctx):
        def work():
            try:
                use(ctx)
            except AsyncWorkflowError as error:
                raised.append(str(error))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    assert finished(workflow).result is None
    assert "is not the one the workflow runs on" in raised[0]


def test_a_context_that_is_used_when_its_workflow_is_not_running_says_so():
    _, ctx, _keep = _operation_of_another_instance()

    with pytest.raises(AsyncWorkflowError, match=r"ctx\.call_activity was used at .*test_operations\.py:") as caught:
        ctx.call_activity("late")

    assert caught.value.instance_id == "other"
    assert "while the workflow it belongs to is not running" in str(caught.value)
    assert "client.raise_orchestration_event('other', 'name')" in str(caught.value)


def test_a_context_that_is_used_after_the_end_raises_an_ordinary_exception():
    kept = []

    async def workflow(ctx):
        kept.append(ctx)

    finished(workflow)

    for use in (
        lambda ctx: ctx.call_activity("late"),
        lambda ctx: ctx.sleep(1),
        lambda ctx: ctx.random(),
        lambda ctx: ctx.get_metadata(),
        lambda ctx: ctx.current_utc_datetime,
    ):
        with pytest.raises(AsyncWorkflowError, match="is not running"):
            use(kept[0])
    assert (kept[0].instance_id, kept[0].workflow_name) == ("instance-1", "workflow")


@pytest.mark.not_replayed("what belongs to another loop is in another state by then")
def test_a_context_cannot_be_used_inside_another_workflow():
    _, other, _keep = _operation_of_another_instance()

    async def workflow(ctx):
        await other.call_activity("stolen")

    details = failure_of(workflow)
    assert details.errorType == "durabletask.aio.AsyncWorkflowError"
    assert "ctx.call_activity was used" in details.errorMessage


# -- what an operation is -------------------------------------------------------------------------------------------


def test_an_operation_can_be_awaited_twice_and_from_several_tasks():
    async def workflow(ctx):
        operation = ctx.call_activity("double", input=4)

        async def wait():
            return await operation

        together = await asyncio.gather(wait(), wait())
        return [await operation, await operation, *together]

    assert result_of(workflow, None, {"double": lambda n: n * 2}) == [8, 8, 8, 8]


def test_a_failed_operation_raises_each_time_it_is_awaited():
    async def workflow(ctx):
        operation = ctx.call_activity("boom")
        messages = []
        for _ in range(2):
            try:
                await operation
            except ActivityFailedError as error:
                messages.append(error.details.message)
        return messages

    def boom(_):
        raise ValueError("boom")

    assert result_of(workflow, None, {"boom": boom}) == ["boom"] * 2


def test_the_representation_names_kind_step_and_state():
    async def workflow(ctx):
        operation = ctx.call_activity("double", input=4)
        shown = [repr(operation)]
        await operation
        shown.append(repr(operation))
        event = ctx.wait_for_external_event("go")
        event.cancel()
        return [*shown, repr(event)]

    assert result_of(workflow) == [
        "<Operation activity 'double' step=1 pending>",
        "<Operation activity 'double' step=1 finished>",
        "<Operation external event 'go' cancelled>",
    ]


def test_an_operation_is_an_asyncio_future_with_public_facts():
    async def workflow(ctx):
        operation = ctx.call_activity("double", input=4)
        assert {isinstance(operation, asyncio.Future), asyncio.isfuture(operation)} == {True}
        return [operation.kind, operation.name, operation.step, operation.site.rpartition(":")[0]]

    assert result_of(workflow) == ["activity", "double", 1, __file__]


PUBLIC_ATTRIBUTES = {
    Operation: {"kind", "name", "site", "step"},
    HeldLock: {"release"},
    EventStream: set(),
}


@pytest.mark.parametrize("cls", PUBLIC_ATTRIBUTES, ids=lambda cls: cls.__name__)
def test_classes_that_users_get_show_none_of_the_methods_that_upstream_and_combinations_call(cls):
    own = [kind for kind in cls.__mro__ if kind.__module__.startswith("durabletask")]
    public = {name for kind in own for name in vars(kind) if not name.startswith("_")}
    assert public == PUBLIC_ATTRIBUTES[cls]


def test_the_context_shows_neither_upstreams_protocol_nor_what_it_is_made_of():
    internal = {"attach", "detach", "execution", "is_complete", "loop", "on_child_completed", "task_id"}
    own = [kind for kind in AsyncWorkflowContext.__mro__ if kind.__module__.startswith("durabletask")]
    assert not internal & {name for kind in own for name in vars(kind)}


def test_an_operation_can_be_inspected_like_any_object():
    async def workflow(ctx):
        operation = ctx.sleep(1)
        found = [hasattr(operation, "is_complete"), hasattr(operation, "no_such_name")]
        members = dict(inspect.getmembers(operation))
        await operation
        return [*found, members["kind"], members["step"]]

    assert result_of(workflow) == [False, False, "timer", 1]


@pytest.mark.not_replayed("it schedules thousands of activities to weigh them")
def test_operations_are_small():
    """Bytes an operation takes, without what upstream keeps for the same call, which is many times as much.

    The absence of `__dict__` would prove nothing: a C future has one, made on first use.  A value that ended up there
    would show as a dictionary for each operation.
    """
    count = 2_000
    sizes = []

    async def workflow(ctx):
        upstream, loop = ctx.upstream_context, cast(WorkflowLoop, asyncio.get_running_loop())
        outside, ours = [], []
        for kept, make in ((outside, lambda: upstream.call_activity("a")), (ours, lambda: ctx.call_activity("a"))):
            make()
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            kept.extend(make() for _ in range(count))
            gc.collect()
            sizes.append((tracemalloc.get_traced_memory()[0] - before) / count)
        assert loop.outstanding == count + 1

    tracemalloc.start()
    try:
        finished(workflow)
    finally:
        tracemalloc.stop()

    of_upstream, of_both = sizes
    # About 200 for the future and its slots, and about as much for the first entry of upstream's dictionary of parents.
    assert of_both - of_upstream < 500, f"{of_both - of_upstream:.0f} bytes beside upstream's {of_upstream:.0f}"


def test_a_cancelled_activity_drops_its_late_result_and_the_workflow_goes_on():
    async def workflow(ctx):
        operation = ctx.call_activity("slow", input=1)
        operation.cancel()
        try:
            await operation
        except asyncio.CancelledError:
            return await ctx.call_activity("next", input=2)

    instance = finished(workflow)
    assert instance.result == 2
    names = [action.scheduleTask.name for turn in instance.turns for action in turn if action.HasField("scheduleTask")]
    assert names == ["slow", "next"], "what was scheduled goes out all the same"


def test_results_reach_as_orchestrator_users_as_json():
    @as_orchestrator
    async def workflow(ctx, value):
        return {"doubled": await ctx.call_activity("double", input=value)}

    instance = Instance(workflow, 4).run({"double": lambda n: n * 2})
    assert json.loads(instance.outcome.result.value) == {"doubled": 8}
