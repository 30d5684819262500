"""What can be told about a workflow function before it runs, and the messages that say it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from durabletask_aio.core.errors import WorkflowValidationError


def unwrap_partial(function: Any) -> Any:
    """The function at the bottom of any number of :func:`functools.partial` objects."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def is_coroutine_callable(function: Any) -> bool:
    """Whether calling ``function`` gives a coroutine.

    Sees through :func:`functools.partial`, :func:`functools.wraps`, bound methods, and objects whose ``__call__`` is
    ``async``; :func:`inspect.iscoroutinefunction` alone misses wrappers and such objects.
    """
    function = unwrap_partial(function)
    if inspect.iscoroutinefunction(function):
        return True
    if inspect.isclass(function) or is_orchestrator(function):
        return False
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and not inspect.isgeneratorfunction(function):
        # A plain wrapper around an async function hands its coroutine on; a generator wrapper is its own thing.
        return is_coroutine_callable(wrapped)
    call = getattr(function, "__call__", None)  # noqa: B004 - its kind matters, not whether there is one
    return call is not None and inspect.iscoroutinefunction(getattr(call, "__func__", call))


def is_plain_wrapper(function: Any) -> bool:
    """Whether ``function`` is itself no coroutine function, and is taken for one because it wraps one.

    Only a call tells whether it hands the coroutine on, or runs it and returns its result.
    """
    function = unwrap_partial(function)
    if inspect.iscoroutinefunction(function) or not is_coroutine_callable(function):
        return False
    call = function.__call__
    return not inspect.iscoroutinefunction(getattr(call, "__func__", call))


ORCHESTRATOR_ATTRIBUTE = "__durabletask_aio__"
"""Where ``as_orchestrator`` leaves its facts on the generator orchestrator that it makes."""


def is_orchestrator(function: Any) -> bool:
    """Whether ``function`` is what :func:`as_orchestrator` returns."""
    return hasattr(function, ORCHESTRATOR_ATTRIBUTE)


def describe(function: Any) -> str:
    """A function as a reader would look for it: its name, and where it was defined."""
    plain = unwrap_partial(function)
    name = getattr(plain, "__qualname__", None) or type(plain).__qualname__
    code = getattr(inspect.unwrap(plain) if callable(plain) else plain, "__code__", None)
    return f"{name!r} ({code.co_filename}:{code.co_firstlineno})" if code is not None else repr(name)


def callable_name(function: Any) -> str:
    """The name under which upstream would register ``function``; raises where there is none to infer."""
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


def validate_workflow_function(function: Any) -> None:
    """Refuse, with the wrong form beside the right one, what cannot be an async workflow.

    Raises :class:`WorkflowValidationError` unless ``function`` is a coroutine function that can be called with the
    context alone or with the context and the input.
    """
    if inspect.iscoroutine(function):
        name = function.__name__
        function.close()  # or Python complains, on top, that it was never awaited
        msg = (
            f"{name}(...) was called, and its coroutine given in place of the function\n"
            f"  wrong: add_orchestrator({name}(...))\n"
            f"  right: add_orchestrator({name})"
        )
        raise WorkflowValidationError(msg)
    if not callable(function):
        msg = f"a workflow is an 'async def' function, not {type(function).__name__!r}: {function!r}"
        raise WorkflowValidationError(msg)
    plain = unwrap_partial(function)
    name = getattr(plain, "__name__", type(plain).__name__)
    if inspect.isasyncgenfunction(plain):
        msg = (
            f"{describe(plain)} is an async generator: it has 'yield' in an 'async def' body\n"
            f"  wrong: async def {name}(ctx, input): x = yield ctx.call_activity(...)\n"
            f"  right: async def {name}(ctx, input): x = await ctx.call_activity(...)"
        )
        raise WorkflowValidationError(msg)
    if inspect.isgeneratorfunction(plain):
        msg = (
            f"{describe(plain)} is a generator orchestrator, which needs no conversion\n"
            f"  either: worker.add_orchestrator({name})  # as it is, with 'yield'\n"
            f"  or:     async def {name}(ctx, input): x = await ctx.call_activity(...)"
        )
        raise WorkflowValidationError(msg)
    if not is_coroutine_callable(function):
        msg = (
            f"{describe(plain)} is not a coroutine function\n"
            f"  wrong: def {name}(ctx, input): ...\n"
            f"  right: async def {name}(ctx, input): ..."
        )
        raise WorkflowValidationError(msg)
    _validate_parameters(function, name)


def _validate_parameters(function: Callable[..., Any], name: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a C callable: nothing to look at, so nothing to refuse
        return
    if accepts(signature, 2) or accepts(signature, 1):
        return
    msg = (
        f"{describe(function)} takes {signature}; a workflow is called with the context, or the context and its input\n"
        f"  wrong: async def {name}{signature}\n"
        f"  right: async def {name}(ctx) or async def {name}(ctx, input)"
    )
    raise WorkflowValidationError(msg)


def accepts(signature: inspect.Signature, count: int) -> bool:
    """Whether a call with ``count`` positional arguments fits ``signature``."""
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True
