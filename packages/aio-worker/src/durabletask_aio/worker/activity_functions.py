"""Functions that are registered as activities: refused if they cannot be one, and registered with types to be read.

Used by the registration, by the execution of activities, and by the test kit.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.core.hosting import (
    FunctionKind,
    check_is_function,
    check_is_no_workflow,
    check_takes_input,
    describe_function,
    function_kind,
    function_name,
    unwrap_partial,
)

_WRAPPER_ATTRIBUTE = "__durabletask_aio_plain_wrapper__"
"""Set on a function that `with_type_hints` returns: whether the original is a plain function around an async one."""


def is_async(function: Any) -> bool:
    """Whether a call of `function` returns an awaitable, or may return one."""
    return function_kind(function) in (FunctionKind.COROUTINE, FunctionKind.WRAPPER)


def may_return_awaitable(activity: Any) -> bool:
    """Whether a registered activity is a plain function around an async one, so that only a call tells what it returns.

    It may return the coroutine, or run it and return its result.
    """
    return function_kind(activity) is FunctionKind.WRAPPER or getattr(activity, _WRAPPER_ATTRIBUTE, False)


def check_activity(function: Any, name: str | None = None) -> None:
    """Refuse what would fail at each call.

    Args:
        function: What is to be registered as an activity.
        name: The name that it is registered under; by default that of the function.

    Raises:
        WorkflowValidationError: For a coroutine in place of its function, for an async generator function, for a
            workflow or an orchestrator, and for a function that cannot be called with a context and an input.
    """
    if inspect.iscoroutine(function):
        name = function.__name__
        function.close()  # Otherwise Python warns that it was never awaited.
        raise WorkflowValidationError(
            f"{name}(...) was called, and its coroutine given in place of the function\n"
            f"  wrong: add_activity({name}(...))\n"
            f"  right: add_activity({name})"
        )
    if inspect.isasyncgenfunction(unwrap_partial(function)):
        name = function_name(function)
        raise WorkflowValidationError(
            f"{describe_function(function)} is an async generator: it has 'yield' in an 'async def' body, and an "
            "activity has one result\n"
            f"  wrong: async def {name}(ctx, input): yield item\n"
            f"  right: async def {name}(ctx, input): return [item]"
        )
    check_is_function("add_activity", function)
    if name is None and getattr(unwrap_partial(function), "__name__", "") == "<lambda>":
        raise WorkflowValidationError(
            "a lambda has no name to register it under\n"
            "  wrong: add_activity(lambda ctx, input: ...)\n"
            "  right: add_activity(lambda ctx, input: ..., name='work')"
        )
    check_is_no_workflow(function)
    check_takes_input(function)


def with_type_hints(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return `function`, or a function of this name around it from which upstream can read the types of its input.

    Args:
        function: An activity of any form.
        name: The name under which it is registered.

    Returns:
        A function that takes a context and an input. `function` itself if it is a function or a bound method, or if
        its annotations cannot be evaluated.
    """
    if inspect.isroutine(function):
        return function

    # Without `functools.wraps`: its `__wrapped__` would lead upstream past the types shown here.
    async def activity(ctx: Any, value: Any) -> Any:
        return await function(ctx, value)

    def plain_activity(ctx: Any, value: Any) -> Any:
        return function(ctx, value)

    kind = function_kind(function)
    proxy = activity if kind is FunctionKind.COROUTINE else plain_activity
    proxy.__name__ = proxy.__qualname__ = name
    setattr(proxy, _WRAPPER_ATTRIBUTE, kind is FunctionKind.WRAPPER)
    return proxy if copy_type_hints(function, proxy) else function


def copy_type_hints(function: Callable[..., Any], proxy: Any) -> bool:
    """Give `proxy`, which is called in place of `function`, the signature and the evaluated annotations of `function`.

    Upstream evaluates annotations with `typing.get_type_hints`, which does not support partials and objects with
    `__call__`; with `from __future__ import annotations`, their types would be ignored.

    Returns:
        Whether the annotations could be evaluated.
    """
    plain = unwrap_partial(function)
    try:
        hints = typing.get_type_hints(plain if inspect.isroutine(plain) else type(plain).__call__)
        signature = inspect.signature(function)
    except Exception:
        return False
    parameters = [
        parameter.replace(annotation=hints.get(parameter.name, parameter.annotation))
        for parameter in signature.parameters.values()
    ]
    proxy.__signature__ = signature.replace(
        parameters=parameters, return_annotation=hints.get("return", signature.return_annotation)
    )
    proxy.__annotations__ = {
        parameter.name: hints[parameter.name] for parameter in parameters if parameter.name in hints
    }
    return True


def call_to_future(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Call `function`, and return its result or its exception as a future that is done.

    For calls in a thread pool that an event loop waits for: an asyncio future does not accept `StopIteration`, and
    would never be done.
    """
    future: Future[Any] = Future()
    try:
        future.set_result(function(*arguments))
    except BaseException as error:
        future.set_exception(error)
    return future
