"""What is refused before anything runs, with the wrong form next to the right one."""

import functools
import inspect
from typing import Any, cast

import pytest
from durabletask.aio import WorkflowValidationError, as_orchestrator

from durabletask_aio.core.functions import describe_function, function_name, is_coroutine_callable
from durabletask_aio.core.validation import accepts


async def workflow(ctx, input):
    return input


def plain(ctx, input):
    return input


def generator(ctx, input):
    yield ctx.call_activity("a")


async def async_generator(ctx, input):
    yield ctx.call_activity("a")


class Service:
    async def method(self, ctx, input):
        return input

    @classmethod
    async def class_method(cls, ctx, input):
        return input

    @staticmethod
    async def static_method(ctx, input):
        return input

    async def __call__(self, ctx, input):
        return input


class Plain:
    def __call__(self, ctx, input):
        return input


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


@pytest.mark.parametrize(
    "function",
    [
        workflow,
        functools.partial(workflow, input=1),
        functools.partial(functools.partial(workflow), input=1),
        decorated(workflow),
        decorated(decorated(workflow)),
        Service().method,
        Service.class_method,
        Service.static_method,
        Service(),
        functools.partial(Service(), input=1),
    ],
)
def test_it_sees_coroutine_functions_through_what_is_wrapped_around_them(function):
    assert is_coroutine_callable(function)


@pytest.mark.parametrize(
    "function", [plain, generator, async_generator, Plain(), Service, print, 5, None, decorated(plain)]
)
def test_it_takes_nothing_else_for_one(function):
    assert not is_coroutine_callable(function)


def test_what_as_orchestrator_made_is_a_plain_function_to_everybody():
    assert not is_coroutine_callable(as_orchestrator(workflow))


def here(function):
    code = inspect.unwrap(function).__code__
    return f"({code.co_filename}:{code.co_firstlineno})"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            plain,
            (
                f"'plain' {here(plain)} is not a coroutine function\n"
                "  wrong: def plain(ctx, input): ...\n"
                "  right: async def plain(ctx, input): ..."
            ),
        ),
        (
            generator,
            (
                f"'generator' {here(generator)} is a generator orchestrator, which needs no conversion\n"
                "  either: worker.add_orchestrator(generator)  # as it is, with 'yield'\n"
                "  or:     async def generator(ctx, input): x = await ctx.call_activity(...)"
            ),
        ),
        (
            async_generator,
            (
                f"'async_generator' {here(async_generator)} is an async generator: it has 'yield' in an "
                "'async def' body\n"
                "  wrong: async def async_generator(ctx, input): x = yield ctx.call_activity(...)\n"
                "  right: async def async_generator(ctx, input): x = await ctx.call_activity(...)"
            ),
        ),
        (5, "a workflow is an 'async def' function, not 'int': 5"),
        ("workflow", "a workflow is an 'async def' function, not 'str': 'workflow'"),
    ],
    ids=["plain", "generator", "async generator", "number", "string"],
)
def test_what_is_no_workflow_is_refused_with_its_place(function, message):
    with pytest.raises(WorkflowValidationError) as caught:
        as_orchestrator(function)
    assert str(caught.value) == message


def test_a_coroutine_in_place_of_the_function_is_closed_and_named(recwarn):
    called: Any = workflow("ctx", 1)
    with pytest.raises(WorkflowValidationError) as caught:
        as_orchestrator(called)

    assert str(caught.value) == (
        "workflow(...) was called, and its coroutine given in place of the function\n"
        "  wrong: add_orchestrator(workflow(...))\n"
        "  right: add_orchestrator(workflow)"
    )
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]


async def no_parameters():
    pass


async def three_parameters(ctx, first, second):
    pass


async def keywords_only(*, ctx, input):
    pass


async def required_keyword(ctx, input, *, tenant):
    pass


@pytest.mark.parametrize("function", [no_parameters, three_parameters, keywords_only, required_keyword])
def test_wrong_parameters_are_shown_beside_the_right_ones(function):
    with pytest.raises(WorkflowValidationError) as caught:
        as_orchestrator(function)

    signature = inspect.signature(function)
    name = function.__name__
    assert str(caught.value) == (
        f"'{name}' {here(function)} takes {signature}; a workflow is called with the context, or the context and its "
        f"input\n  wrong: async def {name}{signature}\n  right: async def {name}(ctx) or async def {name}(ctx, input)"
    )


def test_a_method_given_without_its_object_lacks_self():
    with pytest.raises(
        WorkflowValidationError, match=r"takes \(self, ctx, input\); a workflow is called with the context"
    ):
        as_orchestrator(cast(Any, Service.method))


def test_a_lambda_has_no_name():
    with pytest.raises(WorkflowValidationError) as caught:
        as_orchestrator(functools.wraps(workflow, assigned=())(lambda ctx, input: workflow(ctx, input)))
    assert str(caught.value) == (
        "a lambda has no name to register it under\n"
        "  wrong: add_orchestrator(lambda ctx, x: ...)\n"
        "  right: as_orchestrator(function, name='...')"
    )


def test_a_lambda_with_a_name_is_fine():
    wrapped = functools.wraps(workflow, assigned=())(lambda ctx, input: workflow(ctx, input))
    assert as_orchestrator(wrapped, name="orders").__name__ == "orders"


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (workflow, "workflow"),
        (functools.partial(workflow), "workflow"),
        (Service(), "Service"),
        (Service().method, "method"),
    ],
)
def test_names_are_upstreams(function, name):
    assert function_name(function) == name


def test_objects_without_code_are_described_by_name_alone():
    assert describe_function(Service()) == "'Service'"
    assert describe_function(print) == "'print'"


async def with_context(ctx, /):
    pass


@pytest.mark.parametrize("function", [with_context, workflow, functools.partial(workflow), Service(), Service().method])
def test_an_orchestrator_has_the_two_parameters_of_upstreams(function):
    orchestrator = as_orchestrator(function)
    names = list(inspect.signature(orchestrator).parameters)
    assert len(names) == 2
    assert names[1] == "input"
    assert accepts(inspect.signature(orchestrator), 1) is accepts(inspect.signature(function), 1)


def test_accepts():
    assert accepts(inspect.signature(workflow), 2)
    assert not accepts(inspect.signature(workflow), 1)
