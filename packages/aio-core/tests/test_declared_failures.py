"""`raises=` and `@raises`: failures that are also instances of exception types of the user's."""

import abc
import asyncio
import copy
import json
import pickle
import sys
import traceback
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pytest
from durabletask import task
from durabletask.aio import (
    ActivityFailedError,
    AsyncWorkflowError,
    SubOrchestrationFailedError,
    WorkflowTimeoutError,
    WorkflowValidationError,
    as_orchestrator,
    raises,
)
from durabletask.entities import EntityInstanceId
from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb
from turns import Instance, canonical
from workflows import failure_of, finished, result_of, started

from durabletask_aio.core.hosting import activity_failure_details, describe_failure

if sys.version_info >= (3, 11):
    from builtins import ExceptionGroup
else:
    from exceptiongroup import ExceptionGroup

VALIDATION = "durabletask.aio.WorkflowValidationError"
T = TypeVar("T")


# -- exception types that cannot be constructed from a record ----------------------------------------------------------


class PaymentError(Exception):
    retry = False
    """An attribute of the class, which is there without any record."""


class CardDeclined(PaymentError):
    def __init__(self, card, *, code):
        super().__init__(f"card {card} declined")
        self.card = card
        self.code = code

    @property
    def advice(self):
        return f"call the bank about {self.code}"


class OutOfStock(Exception):
    pass


class NeverConstructed(Exception):
    def __new__(cls, *args):
        raise AssertionError("constructed")

    def __init__(self, *args):
        raise AssertionError("constructed")


class WithSlots(Exception):
    __slots__ = ("code", "message")


class OtherSlots(Exception):
    __slots__ = ("other",)


class BothSlots(WithSlots):
    pass


@dataclass(frozen=True)
class Frozen(Exception):
    code: int
    details: str = ""


class Overriding(Exception):
    """Overrides what the language calls on every exception, with code that needs its attributes."""

    missing: Any
    args = property(lambda self: self.missing)
    message = property(lambda self: self.missing)
    details = property(lambda self: self.missing)
    instance_id = property(lambda self: self.missing)

    def broken(self, *_):
        raise AssertionError(f"called without {self.missing}")

    __str__ = __repr__ = __hash__ = __eq__ = __bool__ = __len__ = __reduce__ = __reduce_ex__ = broken
    __setattr__ = __delattr__ = __getattr__ = __getattribute__ = __copy__ = __deepcopy__ = __format__ = broken
    with_traceback = add_note = __setstate__ = __dir__ = broken


class Finalized(Exception):
    def __del__(self):
        raise AssertionError("finalized")


class Meta(type):
    made: list[str] = []

    def __new__(cls, name, bases, namespace, **keywords):
        cls.made.append(name)
        return super().__new__(cls, name, bases, namespace)

    def __init__(cls, name, bases, namespace, **keywords):
        super().__init__(name, bases, namespace)

    def __call__(cls, *args, **keywords):
        raise AssertionError("constructed")


class WithMetaclass(Exception, metaclass=Meta):
    pass


class Abstract(Exception, abc.ABC):
    @abc.abstractmethod
    def must(self):
        """Not implemented."""


class WithSubclassHook(Exception):
    subclasses: list[str] = []

    def __init_subclass__(cls, *, code, **keywords):
        cls.subclasses.append(cls.__name__)


class GenericError(Exception, Generic[T]):
    pass


class FileGone(FileNotFoundError):
    def __init__(self, path, reason):
        super().__init__(2, reason, path)


class BadText(UnicodeDecodeError):
    pass


class BadSyntax(SyntaxError):
    pass


class Several(ExceptionGroup):
    def derive(self, exceptions):
        return Several(self.message, exceptions)


TYPES = [
    PaymentError,
    CardDeclined,
    NeverConstructed,
    WithSlots,
    BothSlots,
    Frozen,
    Overriding,
    Finalized,
    WithMetaclass,
    Abstract,
    WithSubclassHook,
    GenericError,
    FileGone,
    BadText,
    BadSyntax,
    Several,
    ExceptionGroup,
    OSError,
    TimeoutError,
    asyncio.TimeoutError,
    ImportError,
    AttributeError,
    NameError,
    KeyError,
    MemoryError,
    RecursionError,
    StopAsyncIteration,
    UnicodeEncodeError,
    json.JSONDecodeError,
    WorkflowTimeoutError,
    WorkflowValidationError,
]


def recorded_as(kind, message="no", bases=True):
    """Failure details as the worker records an exception of a type, without making one."""
    details = pb.TaskFailureDetails(errorType=helpers.get_qualified_name(kind), errorMessage=message)
    if bases:
        own = [base for base in kind.__mro__[1:] if issubclass(base, Exception) and base is not Exception]
        for base in own:
            value = details.properties["durabletask.aio.bases"].list_value.values.add()
            value.string_value = helpers.get_qualified_name(base)
    return details


def failed(instance, step, details):
    """The event that an activity or sub-orchestration has failed with these details."""
    event = instance.failed(step, Exception())
    event_of = event.taskFailed if event.HasField("taskFailed") else event.subOrchestrationInstanceFailed
    event_of.failureDetails.CopyFrom(details)
    return event


def caught_as(kind, declared, *, call="call_activity"):
    """What a workflow says of a failure that was recorded as `kind`, with `declared` as `raises=`."""

    async def workflow(ctx):
        try:
            await getattr(ctx, call)("work", raises=declared)
        except declared as error:
            return ["declared", type(error).__name__, error.details.error_type]
        except task.TaskFailedError as error:
            return ["other", type(error).__name__, error.details.error_type]

    instance = started(workflow)
    instance.turn(failed(instance, 1, kind if isinstance(kind, pb.TaskFailureDetails) else recorded_as(kind)))
    return instance.result


def failure_with(kind):
    """The failure that a workflow has caught, with `raises=kind`."""
    caught = []

    async def workflow(ctx):
        try:
            await ctx.call_activity("work", raises=(kind,))
        except ActivityFailedError as error:
            caught.append(error)
            return "caught"

    instance = started(workflow)
    instance.turn(failed(instance, 1, recorded_as(kind)))
    assert instance.result == "caught"
    return caught[0]


# -- caught by type ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_a_failure_is_an_instance_of_the_declared_type_and_of_the_rich_failure(kind):
    assert caught_as(kind, (kind,))[0] == "declared"
    error = failure_with(kind)
    assert isinstance(error, kind)
    assert isinstance(error, ActivityFailedError)
    assert isinstance(error, task.TaskFailedError)
    assert error.details.message == "no"
    assert (error.instance_id, error.workflow_name, error.step) == ("instance-1", "workflow", 1)
    assert type(error).__name__ == kind.__name__


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_what_the_language_does_with_every_exception_works(kind):
    error = failure_with(kind)
    recorded = error.details.error_type
    text = f"activity 'work' failed with {recorded}: no [workflow 'workflow', instance 'instance-1', step 1]"

    assert str(error) == f"{error}" == text
    assert repr(error) == f"{kind.__name__}({error.message!r})"
    assert error == error
    assert error != failure_with(kind)
    assert len({error, error}) == 1
    assert bool(error)
    error.winner_index = 3
    assert error.winner_index == 3
    del error.winner_index
    if sys.version_info >= (3, 11):
        error.add_note("a note")
    assert error.with_traceback(None) is error
    assert dir(error)
    shown = "".join(traceback.format_exception(error))
    assert text in shown
    with pytest.raises(kind) as raised:
        raise error
    assert raised.value is error
    with pytest.raises(RuntimeError) as chained:
        raise RuntimeError("next") from error
    assert text in "".join(traceback.format_exception(chained.value))


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, *(lambda error, p=p: pickle.loads(pickle.dumps(error, p)) for p in range(3, 6))],
    ids=["copy", "deepcopy", "pickle 3", "pickle 4", "pickle 5"],
)
def test_it_is_copied_and_pickled(kind, duplicate):
    error = failure_with(kind)
    again = duplicate(error)
    assert type(again) is type(error)
    assert (str(again), repr(again), again.args) == (str(error), repr(error), error.args)
    assert again.details == error.details
    assert again.task_error.details == error.details
    assert again.step == error.step


def test_no_code_of_the_type_runs():
    before = list(Meta.made), list(WithSubclassHook.subclasses)
    for kind in (WithMetaclass, WithSubclassHook, NeverConstructed, Finalized):
        failure_with(kind)
    assert (Meta.made, WithSubclassHook.subclasses) == before


def test_an_attribute_that_is_not_recorded_says_so():
    error = failure_with(CardDeclined)
    assert error.retry is False, "of the class"
    with pytest.raises(AttributeError) as raised:
        _ = error.code
    assert str(raised.value) == (
        "the attribute 'code' of this CardDeclined is not recorded: a history has the type, the message and the stack "
        "trace of a failure (error.details), and not the attributes of the exception; return what the workflow needs "
        "from the activity, or write it into the message"
    )
    with pytest.raises(AttributeError, match="'advice' of this CardDeclined is not recorded"):
        _ = error.advice
    assert not hasattr(error, "code")
    assert not hasattr(error, "__fspath__")
    error.code = 51
    assert error.advice == "call the bank about 51"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (FileGone, "errno"),
        (OSError, "filename"),
        (ImportError, "path"),
        (BadText, "reason"),
        (WithSlots, "code"),
        (Frozen, "code"),
        (AttributeError, "obj"),
    ],
)
def test_an_attribute_that_python_itself_would_show_as_none_says_so_too(kind, name):
    error = failure_with(kind)
    with pytest.raises(AttributeError, match=f"the attribute '{name}' of this {kind.__name__} is not recorded"):
        getattr(error, name)


def test_a_group_holds_the_failure_itself():
    error = failure_with(Several)
    assert [type(part) for part in error.exceptions] == [task.TaskFailedError]
    matching, rest = error.split(task.TaskFailedError)
    assert matching is error
    assert rest is None


# -- which failures match ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recorded", "declared", "expected"),
    [
        (CardDeclined, (CardDeclined,), "declared"),
        (CardDeclined, CardDeclined, "declared"),
        (CardDeclined, (PaymentError,), "declared"),
        (CardDeclined, (OutOfStock, PaymentError), "declared"),
        (PaymentError, (CardDeclined,), "other"),
        (OutOfStock, (CardDeclined, ValueError), "other"),
        (OutOfStock, (), "other"),
        (KeyError, (LookupError,), "declared"),
        (FileGone, (OSError,), "declared"),
        (json.JSONDecodeError, (ValueError,), "declared"),
        (WorkflowTimeoutError, (TimeoutError,), "declared"),
        (recorded_as(CardDeclined, bases=False), (CardDeclined,), "declared"),
        (recorded_as(CardDeclined, bases=False), (PaymentError,), "other"),
        (pb.TaskFailureDetails(errorType="CardDeclined", errorMessage="x"), (CardDeclined,), "declared"),
        (pb.TaskFailureDetails(errorType="shop.CardDeclined", errorMessage="x"), (CardDeclined,), "other"),
        (pb.TaskFailureDetails(), (CardDeclined,), "other"),
    ],
)
def test_a_failure_matches_by_its_recorded_names(recorded, declared, expected):
    assert caught_as(recorded, declared)[0] == expected
    assert caught_as(recorded, declared, call="call_sub_orchestrator")[0] == expected


def test_what_is_loaded_does_not_matter():
    subclass = type("Subclass", (CardDeclined,), {"__module__": __name__})
    assert caught_as(recorded_as(subclass, bases=False), (CardDeclined,))[0] == "other"
    assert caught_as(recorded_as(subclass), (CardDeclined,))[0] == "declared"


@pytest.mark.parametrize("odd", ["text", 5, None, [1, None], {"a": 1}])
def test_a_property_of_that_name_with_something_else_in_it_is_ignored(odd):
    details = recorded_as(CardDeclined, bases=False)
    details.properties["durabletask.aio.bases"].CopyFrom(helpers.protobuf_value_from_python(odd))
    assert caught_as(details, (PaymentError,))[0] == "other"


def test_a_failure_is_of_all_declared_types_that_match():
    async def workflow(ctx):
        try:
            await ctx.call_activity("work", raises=(OSError, PaymentError, CardDeclined, ValueError))
        except PaymentError as error:
            return [isinstance(error, kind) for kind in (CardDeclined, PaymentError, OSError, ValueError)]

    instance = started(workflow)
    instance.turn(failed(instance, 1, recorded_as(CardDeclined)))
    assert instance.result == [True, True, False, False]


def test_of_types_with_incompatible_layouts_the_first_is_used():
    details = recorded_as(WithSlots)
    details.properties["durabletask.aio.bases"].list_value.values.add(
        string_value=helpers.get_qualified_name(OtherSlots)
    )
    assert caught_as(details, (WithSlots, OtherSlots))[0] == "declared"
    assert caught_as(details, (OtherSlots, WithSlots))[0] == "declared"


def test_without_raises_nothing_changes():
    async def workflow(ctx):
        try:
            await ctx.call_activity("work")
        except ActivityFailedError as error:
            return [type(error) is ActivityFailedError, isinstance(error, CardDeclined)]

    instance = started(workflow)
    instance.turn(failed(instance, 1, recorded_as(CardDeclined)))
    assert instance.result == [True, False]


def test_a_general_type_needs_no_type_of_its_own():
    for declared in (Exception, ActivityFailedError, AsyncWorkflowError, task.TaskFailedError):
        assert caught_as(CardDeclined, (declared,)) == [
            "declared",
            "ActivityFailedError",
            f"{__name__}.CardDeclined",
        ]


def test_what_a_child_has_not_caught_is_matched_through_it():
    inner = recorded_as(CardDeclined)
    details = pb.TaskFailureDetails(errorType="durabletask.task.TaskFailedError", errorMessage="x", innerFailure=inner)
    again = pb.TaskFailureDetails(errorType="durabletask.task.TaskFailedError", errorMessage="x", innerFailure=details)

    async def workflow(ctx):
        try:
            await ctx.call_sub_orchestrator("child", raises=(PaymentError,))
        except PaymentError as error:
            return isinstance(error, SubOrchestrationFailedError) and error.details.error_type

    for recorded in (details, again):
        instance = started(workflow)
        instance.turn(failed(instance, 1, recorded))
        assert instance.result == "durabletask.task.TaskFailedError"
    # Of any other failure, only its own type counts, and not that of its cause.
    details.errorType = "builtins.ValueError"
    assert caught_as(details, (PaymentError,), call="call_sub_orchestrator")[0] == "other"


def test_an_operation_of_an_entity():
    account = EntityInstanceId("account", "a")

    async def workflow(ctx):
        try:
            await ctx.call_entity(account, "withdraw", 5, raises=CardDeclined)
        except CardDeclined as error:
            return isinstance(error, ActivityFailedError)

    instance = started(workflow)
    request = next(event for event in instance.history if event.HasField("entityOperationCalled"))
    event = pb.HistoryEvent(eventId=-1)
    event.entityOperationFailed.requestId = request.entityOperationCalled.requestId
    event.entityOperationFailed.failureDetails.CopyFrom(recorded_as(CardDeclined))
    instance.turn(event)
    assert instance.result is True


# -- where it is declared ---------------------------------------------------------------------------------------------


@raises(CardDeclined, OutOfStock)
def charge(ctx, amount):
    raise CardDeclined("1234", code=51)


@raises(OutOfStock)
async def child(ctx):
    await ctx.call_activity("stock", raises=OutOfStock)


def decline(_):
    raise CardDeclined("1234", code=51)


def run_out(_):
    raise OutOfStock("no tea")


def test_on_the_function():
    assert charge.__name__ == "charge"

    async def workflow(ctx):
        try:
            await ctx.call_activity(charge, input=5)
        except CardDeclined as error:
            return isinstance(error, ActivityFailedError) and error.details.message

    assert result_of(workflow, activities={"charge": decline}) == "card 1234 declined"


def test_on_a_workflow_and_on_its_orchestrator():
    async def workflow(ctx, orchestrator):
        try:
            await ctx.call_sub_orchestrator(child if orchestrator == "function" else as_orchestrator(child))
        except OutOfStock as error:
            return isinstance(error, SubOrchestrationFailedError)

    for which in ("function", "orchestrator"):
        assert result_of(workflow, which, activities={"child": run_out}) is True


def test_a_call_by_name_knows_nothing_of_the_function():
    async def workflow(ctx):
        try:
            await ctx.call_activity("charge", input=5)
        except ActivityFailedError as error:
            return isinstance(error, CardDeclined)

    assert result_of(workflow, activities={"charge": decline}) is False


def test_the_types_of_the_call_replace_those_of_the_function():
    async def workflow(ctx):
        caught = []
        for types in ((), (OutOfStock,), (CardDeclined,), None):
            try:
                await ctx.call_activity(charge, raises=types)
            except ActivityFailedError as error:
                caught.append(isinstance(error, CardDeclined))
        return caught

    assert result_of(workflow, activities={"charge": decline}) == [False, False, True, True]


def test_declarations_add_up():
    @raises(CardDeclined)
    @raises(OutOfStock)
    def work(ctx, _):
        pass

    async def workflow(ctx):
        try:
            await ctx.call_activity(work)
        except (CardDeclined, OutOfStock) as error:
            return type(error).__name__

    assert result_of(workflow, activities={"work": run_out}) == "OutOfStock"
    assert result_of(workflow, activities={"work": decline}) == "CardDeclined"


def test_through_every_combination():
    async def workflow(ctx):
        caught: list[Any] = []

        def call():
            return ctx.call_activity("work", raises=(OutOfStock,))

        for wait in (
            lambda: ctx.gather(call(), ctx.sleep(1)),
            lambda: ctx.when_all([call(), call()]),
            lambda: ctx.when_any([call(), ctx.sleep(1)]),
            lambda: ctx.with_timeout(call(), 5),
            lambda: asyncio.gather(call(), ctx.sleep(1)),
            lambda: asyncio.wait_for(call(), 5),
            lambda: asyncio.shield(call()),
        ):
            try:
                await wait()
            except OutOfStock as error:
                caught.append(type(error).__name__)
        operation = call()
        with pytest.raises(OutOfStock):
            await operation
        caught.append(operation.exception() is not None)
        return caught

    assert result_of(workflow, activities={"work": run_out}) == [*["OutOfStock"] * 7, True]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup is new in Python 3.11")
def test_in_a_task_group():
    async def workflow(ctx):
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_awaited(ctx.call_activity("work", raises=(PaymentError,))))
        except ExceptionGroup as group:
            return [isinstance(each, PaymentError) for each in group.exceptions]

    async def _awaited(operation):
        await operation

    instance = started(workflow)
    instance.turn(failed(instance, 1, recorded_as(CardDeclined)))
    assert instance.result == [True]


def test_what_is_not_caught_is_recorded_as_without_raises():
    def workflow_with(**options):
        async def workflow(ctx):
            await ctx.call_activity("work", **options)

        return Instance(as_orchestrator(workflow)).run({"work": decline})

    declared, plain = workflow_with(raises=(CardDeclined,)), workflow_with()
    assert declared.failure.errorType == "durabletask.task.TaskFailedError"
    assert list(map(canonical, declared.turns)) == list(map(canonical, plain.turns))


def test_as_the_cause_of_another_error_it_is_recorded_as_without_raises():
    def workflow_with(**options):
        async def workflow(ctx):
            try:
                await ctx.call_activity("work", **options)
            except ActivityFailedError as error:
                raise ValueError("order failed") from error

        return Instance(as_orchestrator(workflow)).run({"work": decline})

    declared, plain = workflow_with(raises=(CardDeclined,)), workflow_with()
    assert list(map(canonical, declared.turns)) == list(map(canonical, plain.turns))


# -- wrong declarations -----------------------------------------------------------------------------------------------


class Hostile(Exception):
    def mro(cls):
        return []


class Unhashable(type):
    __hash__ = None

    def __eq__(cls, other):
        return cls is other


class WithUnhashableType(Exception, metaclass=Unhashable):
    pass


WRONG = [
    (5, "5 is not an exception type"),
    ("CardDeclined", "'CardDeclined' is not an exception type"),
    (("CardDeclined",), "'CardDeclined' is not an exception type"),
    ((int,), "<class 'int'> is not an exception type"),
    ((ValueError("x"),), "ValueError('x') is not an exception type"),
    ((asyncio.CancelledError,), "CancelledError is no subclass of Exception, and what is meant for the process"),
    ((SystemExit,), "SystemExit is no subclass of Exception"),
    (KeyboardInterrupt, "KeyboardInterrupt is no subclass of Exception"),
    ((CardDeclined, StopIteration), "StopIteration is a StopIteration, which an asyncio future cannot hold"),
    ((WithUnhashableType,), "WithUnhashableType cannot be combined with the failure of an activity: unhashable type"),
]


@pytest.mark.parametrize(("given", "why"), WRONG, ids=[why[:30] for _, why in WRONG])
@pytest.mark.parametrize("method", ["call_activity", "call_sub_orchestrator"])
def test_other_types_are_refused_at_the_call(given, why, method):
    async def workflow(ctx):
        getattr(ctx, method)("work", raises=given)

    failure = failure_of(workflow)
    assert failure.errorType == VALIDATION
    assert failure.errorMessage.startswith(f"raises= of ctx.{method} takes exception types: {why}")
    assert failure.errorMessage.endswith(f"  right: ctx.{method}(work, raises=(CardDeclined,))")


@pytest.mark.parametrize(("given", "why"), WRONG[2:], ids=[why[:30] for _, why in WRONG[2:]])
def test_other_types_are_refused_by_the_decorator(given, why):
    types: Any = given if isinstance(given, tuple) else (given,)
    with pytest.raises(WorkflowValidationError) as raised:
        raises(*types)
    assert str(raised.value).startswith(f"@raises takes exception types: {why}")


def test_what_takes_no_attributes_is_refused_by_the_decorator():
    with pytest.raises(WorkflowValidationError, match="which takes no attributes"):
        raises(CardDeclined)(len)


# -- what is recorded -------------------------------------------------------------------------------------------------


def details_of(error):
    return activity_failure_details(error, None, finished.__globals__.get("LOGGER"))


def bases_of(details):
    if "durabletask.aio.bases" not in details.properties:  # reading it would add it
        return []
    return [value.string_value for value in details.properties["durabletask.aio.bases"].list_value.values]


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (CardDeclined("1", code=2), [f"{__name__}.PaymentError"]),
        (json.JSONDecodeError("no", "", 0), ["builtins.ValueError"]),
        (FileGone("x", "gone"), ["builtins.FileNotFoundError", "builtins.OSError"]),
        (OutOfStock(), []),
        (KeyError("x"), []),
        (WorkflowTimeoutError("late"), []),
        (SystemExit(3), []),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_the_names_of_the_bases_are_recorded_for_types_of_libraries_and_users(error, bases):
    details = details_of(error)
    assert bases_of(details) == bases
    assert set(details.properties) == ({"durabletask.aio.bases"} if bases else set())


def test_they_are_recorded_of_an_error_that_cannot_be_recorded_as_it_is():
    class Unreadable(PaymentError):
        def __str__(self):
            raise ValueError

    assert bases_of(details_of(Unreadable())) == [f"{__name__}.PaymentError"]


def test_they_are_recorded_of_what_fails_a_workflow():
    async def workflow(ctx):
        raise CardDeclined("1", code=2)

    instance = finished(workflow)
    [action] = [action for action in instance.turns[-1] if action.HasField("completeOrchestration")]
    sent = pb.OrchestratorAction()
    sent.CopyFrom(action)
    describe_failure([sent], CardDeclined("1", code=2))
    assert bases_of(sent.completeOrchestration.failureDetails) == [f"{__name__}.PaymentError"]
    describe_failure([action], OutOfStock("another one"))
    assert "durabletask.aio.bases" not in action.completeOrchestration.failureDetails.properties
