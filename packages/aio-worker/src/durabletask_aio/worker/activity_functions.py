"""Activity functions as they are registered: what is refused, and how upstream reads the types of any callable."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.core.hosting import (
    FunctionKind,
    describe_function,
    function_kind,
    function_name,
    unwrap_partial,
)


def show_types(function: Callable[..., Any], wrapper: Any) -> bool:
    """Copy the types of `function` to `wrapper`, which is called in its place.

    Upstream resolves annotations with `typing.get_type_hints`, which does not support partials and objects with
    `__call__`; with `from __future__ import annotations` their types would silently be lost.

    Returns:
        Whether the types could be read.
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
    wrapper.__signature__ = signature.replace(
        parameters=parameters, return_annotation=hints.get("return", signature.return_annotation)
    )
    wrapper.__annotations__ = {
        parameter.name: hints[parameter.name] for parameter in parameters if parameter.name in hints
    }
    return True


def check_activity(function: Any) -> None:
    """Refuse a function whose every call would fail.

    Raises:
        WorkflowValidationError: for a coroutine in place of its function, and for an async generator; the message shows
            the wrong and the right form.
    """
    if inspect.iscoroutine(function):
        name = function.__name__
        function.close()  # Unclosed, it warns that it was never awaited.
        raise WorkflowValidationError(
            f"{name}(...) was called, and its coroutine given in place of the function\n"
            f"  wrong: add_activity({name}(...))\n"
            f"  right: add_activity({name})"
        )
    if inspect.isasyncgenfunction(unwrap_partial(function)):
        name = function_name(function)
        raise WorkflowValidationError(
            f"{describe_function(function)} is an async generator: it has 'yield' in an 'async def' body, "
            "and an activity has one result\n"
            f"  wrong: async def {name}(ctx, input): yield item\n"
            f"  right: async def {name}(ctx, input): return [item]"
        )


_MAY_RETURN_AWAITABLE = "__durabletask_aio_may_return_awaitable__"
"""Set on the wrapper of a plain function around an async one."""


def may_return_awaitable(activity: Any) -> bool:
    """Whether a registered activity is a plain function around an async one: only a call tells what it returns."""
    return function_kind(activity) is FunctionKind.WRAPPER or getattr(activity, _MAY_RETURN_AWAITABLE, False)


def is_async(function: Any) -> bool:
    """Whether a call of `function` returns a coroutine, or may do so."""
    return function_kind(function) in (FunctionKind.COROUTINE, FunctionKind.WRAPPER)


def with_type_hints(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return `function`, or a wrapper of this name from which upstream can read the types of input and result."""
    if inspect.isroutine(function):
        return function

    # Named like the function, but without `__wrapped__`, which upstream would follow past the types shown here.
    async def activity(ctx: Any, value: Any) -> Any:
        return await function(ctx, value)

    def plain_activity(ctx: Any, value: Any) -> Any:
        return function(ctx, value)

    kind = function_kind(function)
    wrapper = activity if kind is FunctionKind.COROUTINE else plain_activity
    wrapper.__name__ = wrapper.__qualname__ = name
    setattr(wrapper, _MAY_RETURN_AWAITABLE, kind is FunctionKind.WRAPPER)
    return wrapper if show_types(function, wrapper) else function
