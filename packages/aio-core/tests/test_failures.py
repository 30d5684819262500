"""How exceptions leave a workflow, and what the history records of them."""

import asyncio
import logging
import sys
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from durabletask import task
from durabletask.aio import ActivityFailedError, InstanceEvicted, as_orchestrator
from turns import CONTINUED, FAILED, Instance, canonical
from workflows import boom, failure_of, finished, line_in, result_of, started

if sys.version_info >= (3, 11):
    from builtins import BaseExceptionGroup, ExceptionGroup
else:
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

VALIDATION = "durabletask.aio.WorkflowValidationError"


def chain(details):
    """The types and messages of failure details, outermost first."""
    found = [(details.errorType, details.errorMessage)]
    while details.HasField("innerFailure"):
        details = details.innerFailure
        found.append((details.errorType, details.errorMessage))
    return found


def exception_out_of(workflow):
    """Return the exception that upstream gets when `workflow` fails in its first turn."""
    orchestrator, caught = as_orchestrator(workflow), []

    def watched(ctx, _):
        try:
            return (yield from orchestrator(ctx, _))
        except Exception as error:
            caught.append(error)
            raise

    Instance(watched, name=orchestrator.__name__).start()
    return caught[0]


# -- failures keep their type ---------------------------------------------------------------------------------------


class OutOfStock(Exception):
    pass


@pytest.mark.parametrize(
    "error", [ValueError("mine"), KeyError("k"), OutOfStock("none left"), RuntimeError("x"), MemoryError("full")]
)
def test_an_uncaught_exception_is_recorded_under_its_own_type_and_message(error):
    async def workflow(ctx):
        await ctx.call_activity("a")
        raise error

    details = failure_of(workflow)
    assert chain(details) == [(f"{type(error).__module__}.{type(error).__qualname__}", str(error))]


def test_the_stack_trace_ends_at_the_users_line():
    async def helper():
        raise ValueError("mine")  # <-

    async def workflow(ctx):
        await helper()

    trace = failure_of(workflow).stackTrace.value
    assert trace.rstrip().splitlines()[-2].strip().startswith(f'File "{__file__}", line') or "helper" in trace
    assert f"line {line_in(helper).rpartition(':')[2]}, in helper" in trace


def test_context_is_added_as_a_note_and_as_attributes_and_does_not_change_what_is_recorded():
    error = ValueError("mine")

    async def workflow(ctx):
        raise error

    assert failure_of(workflow).errorMessage == "mine"
    added = {"instance_id": "instance-1", "workflow_name": "workflow"}
    assert vars(error) == {"__notes__": ["in workflow 'workflow', instance 'instance-1'"], **added}


def test_a_note_is_added_once_even_if_the_exception_is_raised_by_many_turns():
    error = ValueError("mine")

    async def workflow(ctx):
        raise error

    for _ in range(3):
        failure_of(workflow)
    assert len(error.__notes__) == 1


class Guarded(Exception):
    def __setattr__(self, name, value):
        raise TypeError("read only")


class GuardedInAnotherWay(Exception):
    def __setattr__(self, name, value):
        raise RuntimeError("read only")


class OddNotes(Exception):
    __notes__: Any = 5


class OddProperty(Exception):
    @property
    def instance_id(self):
        raise KeyError("nobody asked")


class OddAttributeError(AttributeError):
    obj = property(lambda self: 1 / 0)


class NoGroup(Exception):
    exceptions = None

    def derive(self):
        raise NotImplementedError


@pytest.mark.parametrize(
    "kind",
    [Guarded, GuardedInAnotherWay, OddNotes, OddProperty, OddAttributeError, NoGroup],
    ids=lambda kind: kind.__name__,
)
def test_an_exception_that_cannot_take_the_context_fails_the_instance_as_itself(kind):
    async def workflow(ctx):
        raise kind("mine")

    details = failure_of(workflow)
    assert (details.errorType.rpartition(".")[2], details.errorMessage) == (kind.__name__, "mine")


def test_causes_and_contexts_are_recorded_as_for_a_generator():
    async def workflow(ctx):
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    assert chain(failure_of(workflow)) == [("builtins.ValueError", "outer"), ("builtins.KeyError", "'inner'")]


# -- a failed activity is recorded as for the generator ----------------------------------------------------------


async def uncaught(ctx):
    await ctx.call_activity("boom", input=1)


def uncaught_twin(ctx, _):
    yield ctx.call_activity("boom", input=1)


async def raised_again(ctx):
    try:
        await ctx.call_activity("boom", input=1)
    except Exception as error:
        raise error


def raised_again_twin(ctx, _):
    try:
        yield ctx.call_activity("boom", input=1)
    except Exception as error:
        raise error


async def wrapped(ctx):
    try:
        await ctx.call_activity("boom", input=1)
    except Exception as error:
        raise OutOfStock("wrapped") from error


def wrapped_twin(ctx, _):
    try:
        yield ctx.call_activity("boom", input=1)
    except Exception as error:
        raise OutOfStock("wrapped") from error


async def wrapped_twice(ctx):
    try:
        await wrapped(ctx)
    except Exception as error:
        raise RuntimeError("again") from error


def wrapped_twice_twin(ctx, _):
    try:
        yield from wrapped_twin(ctx, _)
    except Exception as error:
        raise RuntimeError("again") from error


async def in_the_context_of(ctx):
    try:
        await ctx.call_activity("boom", input=1)
    except Exception:
        raise OutOfStock("while handling")  # noqa: B904


def in_the_context_of_twin(ctx, _):
    try:
        yield ctx.call_activity("boom", input=1)
    except Exception:
        raise OutOfStock("while handling")  # noqa: B904


async def child(ctx):
    await ctx.call_sub_orchestrator("boom", input=1)


def child_twin(ctx, _):
    yield ctx.call_sub_orchestrator("boom", input=1)


async def all_of_them(ctx):
    await ctx.when_all([ctx.call_activity("boom"), ctx.call_activity("fine")])


def all_of_them_twin(ctx, _):
    yield task.when_all([ctx.call_activity("boom"), ctx.call_activity("fine")])


@pytest.mark.parametrize(
    ("workflow", "twin"),
    [
        (uncaught, uncaught_twin),
        (raised_again, raised_again_twin),
        (wrapped, wrapped_twin),
        (wrapped_twice, wrapped_twice_twin),
        (in_the_context_of, in_the_context_of_twin),
        (child, child_twin),
        (all_of_them, all_of_them_twin),
    ],
    ids=lambda function: function.__name__,
)
def test_a_failed_activity_leaves_the_same_bytes_as_the_generator(workflow, twin):
    ours = Instance(as_orchestrator(workflow), name="w").run({"boom": boom})
    theirs = Instance(twin, name="w").run({"boom": boom})

    assert ours.outcome.orchestrationStatus == FAILED
    assert [canonical(turn) for turn in ours.turns] == [canonical(turn) for turn in theirs.turns]
    assert "durabletask.task.TaskFailedError" in [kind for kind, _ in chain(ours.failure)]


# -- groups ---------------------------------------------------------------------------------------------------------


async def raises(error):
    raise error


async def with_a_task_group(*coroutines):
    if sys.version_info >= (3, 11):
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    else:
        anyio = pytest.importorskip("anyio")
        async with anyio.create_task_group() as group:
            for coroutine in coroutines:
                group.start_soon(lambda coroutine=coroutine: coroutine)


def test_a_task_group_fails_the_instance_with_readable_details():
    async def workflow(ctx):
        await with_a_task_group(raises(KeyError("first")), raises(ValueError("second")))

    (kind, message), inner, *_ = chain(failure_of(workflow))
    assert kind.endswith(".ExceptionGroup")
    assert "unhandled errors in a TaskGroup: KeyError: 'first'; ValueError: second" in message
    assert inner == ("builtins.KeyError", "'first'")


def test_a_failed_activity_in_a_task_group_is_named_in_the_details():
    async def workflow(ctx):
        async def work():
            await ctx.call_activity("boom")

        await with_a_task_group(work())

    (_, message), inner, *_ = chain(failure_of(workflow, None, {"boom": boom}))
    assert "activity 'boom' failed with builtins.ValueError: boom" in message
    assert inner[0] == "durabletask.task.TaskFailedError"


def test_a_nested_group_is_flattened_in_the_details():
    async def workflow(ctx):
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError("deep")]), KeyError("flat")])

    (_, message), inner, *_ = chain(failure_of(workflow))
    assert message.startswith("outer: ValueError: deep; KeyError: 'flat'")
    assert inner == ("builtins.ValueError", "deep")


def test_the_notes_of_a_group_survive():
    group = ExceptionGroup("outer", [ValueError("v")])
    group.__notes__ = ["said by the user"]

    async def workflow(ctx):
        raise group

    recorded = exception_out_of(workflow)
    assert recorded is not group, "its message says more"
    assert recorded.__notes__ == ["said by the user", "in workflow 'workflow', instance 'instance-1'"]


def test_a_part_of_a_group_whose_message_cannot_be_shown_is_named():
    class Unspeakable(Exception):
        def __str__(self):
            raise ValueError("no words")

    async def workflow(ctx):
        raise ExceptionGroup("outer", [Unspeakable(), ValueError("v")])

    assert str(exception_out_of(workflow)).startswith(
        "outer: Unspeakable: the message cannot be shown, since its __str__ raised ValueError; ValueError: v"
    )


def test_a_group_of_thousands_lists_the_first_and_counts_the_others():
    async def workflow(ctx):
        raise ExceptionGroup("outer", [ValueError(str(number)) for number in range(1020)])

    message = failure_of(workflow).errorMessage
    assert message.startswith("outer: ValueError: 0; ValueError: 1; ")
    assert message.endswith("ValueError: 19; and 1,000 more (1020 sub-exceptions)")


class Speechless(Exception):
    def __str__(self):
        raise ValueError("no words")


class SpeechlessRuntimeError(RuntimeError):
    def __str__(self):
        raise ValueError("no words")


class NoText(Exception):
    def __str__(self):
        return 5


class Exiting(Exception):
    def __str__(self):
        raise SystemExit(3)


class Causeless(Exception):
    __cause__ = property(lambda self: 1 / 0)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Speechless(), "the message cannot be shown, since its __str__ raised ValueError"),
        (SpeechlessRuntimeError(), "the message cannot be shown, since its __str__ raised ValueError"),
        (NoText(), "the message cannot be shown, since its __str__ raised TypeError"),
        (Exiting(), "the message cannot be shown, since its __str__ raised SystemExit"),
        (Causeless("mine"), "mine"),
        (ValueError("no such file: \udcff"), r"no such file: \udcff"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_upstream_could_not_record_fails_the_instance_under_its_own_name(error, message):
    """Upstream's worker sends no answer to the turn, and the engine delivers it again without end."""

    async def workflow(ctx):
        raise error  # <-

    details = failure_of(workflow)
    assert (details.errorType.rpartition(".")[2], details.errorMessage) == (type(error).__name__, message)
    assert line_in(workflow).rpartition(":")[2] in details.stackTrace.value


def test_a_cause_that_upstream_could_not_record_is_recorded_under_its_own_name_too():
    async def workflow(ctx):
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise Speechless from None
        except Speechless as error:
            raise ValueError("last") from error

    async def the_first_is_the_context(ctx):
        try:
            raise Speechless
        except Speechless:
            raise ValueError("last")  # noqa: B904 - without a cause, on purpose

    speechless = "the message cannot be shown, since its __str__ raised ValueError"
    name = f"{__name__}.Speechless"
    for function in (workflow, the_first_is_the_context):
        assert chain(failure_of(function))[:2] == [("builtins.ValueError", "last"), (name, speechless)]
    assert chain(failure_of(workflow))[2:] == [("builtins.KeyError", "'first'")]


def test_an_exit_with_a_value_that_cannot_be_shown_fails_the_instance_all_the_same():
    class Odd:
        def __repr__(self):
            raise ValueError("no words")

    async def workflow(ctx):
        raise SystemExit(Odd())

    assert "the workflow raised SystemExit(<Odd>), which is meant" in failure_of(workflow).errorMessage


def test_a_group_of_a_type_of_ones_own_keeps_it():
    class Batch(ExceptionGroup):
        def __new__(cls, errors):
            return super().__new__(cls, "batch", errors)

        def __init__(self, errors):
            super().__init__("batch", errors)  # which the backport for 3.10 insists on

        def derive(self, errors):
            return Batch(errors)

    async def workflow(ctx):
        raise Batch([ValueError("v")])

    (kind, message), inner = chain(failure_of(workflow))
    assert kind.endswith("Batch")
    assert message.startswith("batch")
    assert inner == ("builtins.ValueError", "v")


# -- exceptions that are no `Exception` -----------------------------------------------------------------------------

PROCESS = [
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    InstanceEvicted("mine"),
    BaseExceptionGroup("both", [SystemExit(1), ValueError("v")]),
]


def in_a_worker_thread(function):
    """Return what `function` returns on a thread other than the main one, where upstream runs turns."""
    outcome: list[tuple[Any, Any]] = []

    def work():
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    result, error = outcome[0]
    if error is not None:
        raise AssertionError(f"{type(error).__name__} got out") from error
    return result


@pytest.mark.not_replayed("on the main thread KeyboardInterrupt is another thing")
@pytest.mark.parametrize("where", ["main", "awaited task"])
@pytest.mark.parametrize("error", PROCESS, ids=lambda error: type(error).__name__)
def test_what_is_meant_for_the_process_fails_the_instance_and_nothing_else(error, where):
    async def workflow(ctx):
        await ctx.call_activity("a")
        if where == "main":
            raise error
        await asyncio.create_task(raises(error))

    details = in_a_worker_thread(lambda: failure_of(workflow))

    assert details.errorType == "durabletask.aio.AsyncWorkflowError"
    assert f"the workflow raised {type(error).__name__}" in details.errorMessage


def test_the_message_says_what_to_do_instead():
    async def workflow(ctx):
        sys.exit(3)

    assert failure_of(workflow).errorMessage == (
        "the workflow raised SystemExit(3), which is meant for the process and not for a workflow; to end the "
        "instance, return from the workflow or raise an Exception [workflow 'workflow', instance 'instance-1']"
    )


@pytest.mark.not_replayed("on the main thread KeyboardInterrupt is another thing")
def test_ctrl_c_on_the_main_thread_is_for_whoever_pressed_it():
    """An in-process environment runs turns on the main thread; there it is the user's, and must stop the program."""

    async def workflow(ctx):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        started(workflow)


@pytest.mark.not_replayed("on the main thread KeyboardInterrupt is another thing")
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=lambda error: type(error).__name__)
def test_in_a_background_task_they_fail_the_instance_too(error):
    async def workflow(ctx):
        _task = asyncio.create_task(raises(error))
        await ctx.sleep(1)

    details = in_a_worker_thread(lambda: failure_of(workflow))
    assert f"the workflow raised {type(error).__name__}" in details.errorMessage


def test_cancelling_the_main_task_fails_the_instance_as_upstreams_cancellation():
    async def workflow(ctx):
        asyncio.current_task().cancel("enough")
        await ctx.sleep(1)

    assert chain(failure_of(workflow))[0][0] == "durabletask.task.TaskCancelledError"


def test_a_cancelled_error_raised_by_hand_does_not_hang_the_instance():
    async def workflow(ctx):
        raise asyncio.CancelledError

    details = failure_of(workflow)
    assert (details.errorType, details.errorMessage) == (
        "durabletask.task.TaskCancelledError",
        "the workflow was cancelled",
    )


def test_endless_recursion_fails_the_instance_as_itself():
    async def deeper():
        await deeper()

    async def workflow(ctx):
        await deeper()

    assert failure_of(workflow).errorType == "builtins.RecursionError"
    assert result_of(uncaught, None, {"boom": lambda n: n}) is None, "and the next one is fine"


def test_an_exception_of_a_background_task_is_logged_once_and_does_not_fail_the_instance(caplog):
    async def workflow(ctx):
        background = asyncio.create_task(raises(KeyError("unseen")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del background
        await ctx.call_activity("a")
        await ctx.call_activity("a")
        return "fine"

    with caplog.at_level(logging.ERROR, "durabletask.aio"):
        instance = finished(workflow)

    assert instance.result == "fine"
    assert [record.exc_info[0] for record in caplog.records] == [KeyError]
    assert caplog.records[0].instance_id == "instance-1"


# -- results --------------------------------------------------------------------------------------------------------


async def helper():
    return 1


async def returns_an_operation(ctx):
    return ctx.call_activity("load")  # <-


async def returns_a_timer(ctx):
    return ctx.create_timer(3)  # <-


async def returns_a_list_of_operations(ctx):
    return [1, ctx.call_activity("load")]  # <-


async def returns_a_nested_operation(ctx):
    return {"a": {"b": (ctx.call_activity("load"),)}}  # <-


@pytest.mark.parametrize(
    ("workflow", "what", "call"),
    [
        (returns_an_operation, "the workflow returned activity 'load'", "ctx.call_activity('load')"),
        (returns_a_timer, "the workflow returned timer '3'", "ctx.create_timer(...)"),
        (returns_a_list_of_operations, "result[1] of the workflow is activity 'load'", "ctx.call_activity('load')"),
        (
            returns_a_nested_operation,
            "result['a']['b'][0] of the workflow is activity 'load'",
            "ctx.call_activity('load')",
        ),
    ],
)
def test_a_result_that_was_never_awaited_is_named_with_its_line(workflow, what, call):
    details = failure_of(workflow)

    assert details.errorType == VALIDATION
    assert f"{what} ({line_in(workflow)}) that was never awaited" in details.errorMessage
    assert f"  wrong: return {call}\n  right: return await {call}" in details.errorMessage


@pytest.mark.parametrize("make", [lambda: helper(), lambda: [helper()]], ids=["bare", "in a list"])
def test_a_returned_coroutine_is_named_and_makes_no_further_noise(make, recwarn):
    async def workflow(ctx):
        return make()

    message = failure_of(workflow).errorMessage
    assert "a coroutine, helper(...), that was never awaited" in message
    assert "  right: return await work()" in message
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]


def test_a_returned_task_is_named():
    async def workflow(ctx):
        return asyncio.create_task(helper(), name="my-task")

    assert "the workflow returned task 'my-task' that was never awaited" in failure_of(workflow).errorMessage


@dataclass
class Receipt:
    number: int
    paid: list


@pytest.mark.parametrize(
    ("result", "path", "kind", "right"),
    [
        ({1, 2}, "result", "set", "sorted(value)"),
        ({"orders": [1, object()]}, "result['orders'][1]", "object", "a dict, list, string"),
        (b"raw", "result", "bytes", "value.hex()"),
        (Receipt(1, [datetime(2030, 1, 1)]), "result.paid[0]", "datetime", "value.isoformat()"),
    ],
)
def test_a_result_that_cannot_be_serialised_names_the_part_and_the_function(result, path, kind, right):
    async def workflow(ctx):
        return result

    details = failure_of(workflow)
    assert details.errorType == VALIDATION
    assert f"{path} of workflow function " in details.errorMessage
    assert f"({__file__}:" in details.errorMessage
    assert f"cannot be serialised: its type is {kind!r}" in details.errorMessage
    assert f"  wrong: return {kind}(...)\n  right: return {right}" in details.errorMessage


def test_an_upstream_task_as_result_is_refused():
    async def workflow(ctx):
        return ctx.upstream_context.create_timer(ctx.current_utc_datetime)

    assert failure_of(workflow).errorType == VALIDATION


def test_what_a_converter_of_ones_own_takes_is_a_fine_result():
    async def workflow(ctx):
        ctx.continue_as_new({"count": 1})
        return {1, 2}

    assert finished(workflow).outcome.orchestrationStatus == CONTINUED, "nobody looks at this result"


# -- no error of this project hides the user's ------------------------------------------------------------------------


def test_except_clauses_for_upstreams_type_go_on_working():
    async def workflow(ctx):
        try:
            await ctx.call_activity("boom")
        except task.TaskFailedError as error:
            return error.details.message

    assert result_of(workflow, None, {"boom": boom}) == "boom"


def test_the_error_of_an_awaited_activity_shows_the_line_that_awaited_it():
    lines = []

    async def workflow(ctx):
        try:
            await ctx.call_activity("boom")  # <-
        except ActivityFailedError as error:
            lines.append(error.__traceback__.tb_lineno)

    finished(workflow, None, {"boom": boom})
    assert line_in(workflow).endswith(f":{lines[0]}")


def test_a_result_that_the_converter_fails_on_in_another_way_fails_the_instance_too() -> None:
    """Upstream would take it for complete and send no action: it would stay running forever."""

    async def workflow(ctx, _):
        nested: list = []
        for _level in range(100_000):
            nested = [nested]
        return nested

    assert failure_of(workflow).errorType.endswith("RecursionError")


# -- mistakes of the first day ----------------------------------------------------------------------------------------


def test_a_workflow_that_runs_an_event_loop_is_told_to_await():
    async def work():
        return 1

    async def runs(ctx):
        coroutine = work()
        try:
            asyncio.run(coroutine)  # runs
        finally:
            coroutine.close()

    async def runs_until_complete(ctx):
        loop, coroutine = asyncio.SelectorEventLoop(), work()
        try:
            loop.run_until_complete(coroutine)  # runs
        finally:
            coroutine.close()
            loop.close()

    for workflow, call in ((runs, "asyncio.run"), (runs_until_complete, "loop.run_until_complete")):
        details = failure_of(workflow)
        assert details.errorType == VALIDATION
        assert details.errorMessage.startswith(
            f"{call}() cannot be used in a workflow, whose loop is run by its worker ({line_in(workflow, '# runs')})"
        )
        assert details.errorMessage.endswith(f"]\n  wrong: {call}(work())\n  right: await work()")


@dataclass
class Order:
    amount: int


async def uses_input(ctx, order: Order):
    return order.amount  # uses


async def uses_input_as_mapping(ctx, order: dict):
    return order["amount"]  # uses


@pytest.mark.parametrize(("workflow", "kind"), [(uses_input, AttributeError), (uses_input_as_mapping, TypeError)])
def test_a_workflow_started_without_its_input_says_so_under_the_type_of_the_failure(workflow, kind):
    details = failure_of(workflow)
    name = workflow.__name__
    assert details.errorType == f"builtins.{kind.__name__}"
    first, *form = details.errorMessage.splitlines()
    assert first.startswith("'NoneType' object ")
    assert first.endswith(
        f" ({line_in(workflow, '# uses')}): the workflow {name!r} was started without an input, which is its parameter "
        "'order'"
    )
    assert form == [
        f"  wrong: client.schedule_new_orchestration({name!r})",
        f"  right: client.schedule_new_orchestration({name!r}, input=...)",
    ]


async def admits_none(ctx, order: Order | None):
    return order.amount


async def fails_elsewhere(ctx, order: Order):
    found: Any = dict[str, Any]().get("order")
    return found.amount


@pytest.mark.parametrize("workflow", [admits_none, fails_elsewhere])
def test_other_uses_of_none_keep_their_message(workflow):
    assert failure_of(workflow).errorMessage == "'NoneType' object has no attribute 'amount'"
