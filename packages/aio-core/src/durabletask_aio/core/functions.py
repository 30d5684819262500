"""Functions that users register or call by name: what kind each is, and the name it goes by.

One place decides, for the core and for its companions, so that a function is never async in one of them and plain in
another.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from durabletask_aio.core.errors import WorkflowValidationError, shown

if TYPE_CHECKING:
    from durabletask_aio.core.settings import SandboxMode

ORCHESTRATOR_ATTRIBUTE = "__durabletask_aio__"
"""The attribute in which `as_orchestrator` stores the [`OrchestratorInfo`] of what it returns."""


class FunctionKind(Enum):
    """How a function has to be run."""

    ORCHESTRATOR = "orchestrator"
    """A result of `as_orchestrator`: a generator function that drives a coroutine."""
    COROUTINE = "coroutine"
    """A coroutine function, a partial of one, a bound method, or an object whose `__call__` is one."""
    WRAPPER = "wrapper"
    """A plain function around a coroutine function: only a call tells whether it returns an awaitable."""
    ASYNC_GENERATOR = "async generator"
    GENERATOR = "generator"
    PLAIN = "plain"


class OrchestratorInfo(NamedTuple):
    """What `as_orchestrator` was given."""

    function: Callable[..., Coroutine[Any, Any, Any]]
    name: str
    sandbox_mode: SandboxMode


def function_kind(function: Any) -> FunctionKind:
    """Tell how `function`, a callable of any shape, has to be run."""
    if orchestrator_info(function) is not None:
        return FunctionKind.ORCHESTRATOR
    if is_plain_wrapper(function):
        return FunctionKind.WRAPPER
    if is_coroutine_callable(function):
        return FunctionKind.COROUTINE
    plain = unwrap_partial(function)
    if inspect.isasyncgenfunction(plain):
        return FunctionKind.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(plain):
        return FunctionKind.GENERATOR
    return FunctionKind.PLAIN


def orchestrator_info(function: Any) -> OrchestratorInfo | None:
    """Return what `as_orchestrator` was given for `function`, or `None` if it did not make it."""
    info: OrchestratorInfo | None = getattr(function, ORCHESTRATOR_ATTRIBUTE, None)
    return info


def is_orchestrator(function: Any) -> bool:
    """Whether `function` is a result of `as_orchestrator`."""
    return hasattr(function, ORCHESTRATOR_ATTRIBUTE)


def unwrap_partial(function: Any) -> Any:
    """Return the function below any number of `functools.partial` objects."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def is_coroutine_callable(function: Any) -> bool:
    """Whether a call of `function` returns a coroutine, or may do so because it wraps a coroutine function.

    Sees through `functools.partial`, `functools.wraps`, bound methods, and objects whose `__call__` is `async`;
    `inspect.iscoroutinefunction` alone misses wrappers and such objects.
    """
    function = unwrap_partial(function)
    if inspect.iscoroutinefunction(function):
        return True
    if inspect.isclass(function) or is_orchestrator(function):
        return False
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and not inspect.isgeneratorfunction(function):
        # A plain wrapper around an async function usually returns its coroutine; a generator wrapper does not.
        return is_coroutine_callable(wrapped)
    call = getattr(function, "__call__", None)  # noqa: B004 - whether it is async matters, not whether it exists
    return call is not None and inspect.iscoroutinefunction(getattr(call, "__func__", call))


def is_plain_wrapper(function: Any) -> bool:
    """Whether `function` is a plain function around a coroutine function.

    Such a wrapper may return the coroutine, or run it and return its result; only a call tells.
    """
    function = unwrap_partial(function)
    if inspect.iscoroutinefunction(function) or not is_coroutine_callable(function):
        return False
    call = function.__call__
    return not inspect.iscoroutinefunction(getattr(call, "__func__", call))


def function_name(function: Any) -> str:
    """Return the name under which upstream would register `function`.

    Raises:
        WorkflowValidationError: for a lambda, which has no usable name.
    """
    plain = unwrap_partial(function)
    name = getattr(plain, "__name__", None)
    if name is None:
        name = type(plain).__name__
    if name == "<lambda>":
        msg = (
            "a lambda has no name to register it under\n"
            "  wrong: add_orchestrator(lambda ctx, x: ...)\n"
            "  right: as_orchestrator(function, name='...')"
        )
        raise WorkflowValidationError(msg)
    return str(name)


def check_functions(method: str, functions: Sequence[Any]) -> None:
    """Check what a method that registers several functions was given, before it registers the first.

    Args:
        method: the name of the method, for the message.
        functions: its arguments.

    Raises:
        WorkflowValidationError: for anything that cannot be called, such as one list of functions.
    """
    for function in functions:
        if callable(function) or inspect.iscoroutine(function):
            continue  # A coroutine gets its own message where each function is registered.
        is_collection = isinstance(function, list | tuple | set | frozenset | dict)
        right = f"worker.{method}(*functions)" if is_collection else f"worker.{method}(first, second)"
        msg = (
            f"{method}() takes functions, and one of its arguments is a {type(function).__name__}\n"
            f"  wrong: worker.{method}({'functions' if is_collection else shown(function)})\n"
            f"  right: {right}"
        )
        raise WorkflowValidationError(msg)


def describe_function(function: Any) -> str:
    """Describe a function for a message: its qualified name, and `file:line` of its definition."""
    plain = unwrap_partial(function)
    name = getattr(plain, "__qualname__", None) or type(plain).__qualname__
    code = getattr(inspect.unwrap(plain) if callable(plain) else plain, "__code__", None)
    return f"{name!r} ({code.co_filename}:{code.co_firstlineno})" if code is not None else repr(name)
