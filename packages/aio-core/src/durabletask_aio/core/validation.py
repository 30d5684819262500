"""The checks of a workflow function at its registration, and their messages."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from durabletask_aio.core.errors import WorkflowValidationError
from durabletask_aio.core.functions import describe_function, is_coroutine_callable, unwrap_partial


def validate_workflow_function(function: Any) -> None:
    """Refuse what cannot be an async workflow.

    Raises:
        WorkflowValidationError: unless `function` is a coroutine function that can be called with the context alone,
            or with the context and the input; the message shows the wrong and the right form.
    """
    if inspect.iscoroutine(function):
        name = function.__name__
        function.close()  # Unclosed, it warns that it was never awaited.
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
            f"{describe_function(plain)} is an async generator: it has 'yield' in an 'async def' body\n"
            f"  wrong: async def {name}(ctx, input): x = yield ctx.call_activity(...)\n"
            f"  right: async def {name}(ctx, input): x = await ctx.call_activity(...)"
        )
        raise WorkflowValidationError(msg)
    if inspect.isgeneratorfunction(plain):
        msg = (
            f"{describe_function(plain)} is a generator orchestrator, which needs no conversion\n"
            f"  either: worker.add_orchestrator({name})  # as it is, with 'yield'\n"
            f"  or:     async def {name}(ctx, input): x = await ctx.call_activity(...)"
        )
        raise WorkflowValidationError(msg)
    if not is_coroutine_callable(function):
        msg = (
            f"{describe_function(plain)} is not a coroutine function\n"
            f"  wrong: def {name}(ctx, input): ...\n"
            f"  right: async def {name}(ctx, input): ..."
        )
        raise WorkflowValidationError(msg)
    _validate_parameters(function, name)


def _validate_parameters(function: Callable[..., Any], name: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # A C callable, which has no signature to check.
        return
    if accepts(signature, 2) or accepts(signature, 1):
        return
    msg = (
        f"{describe_function(function)} takes {signature}; a workflow is called with the context, "
        f"or the context and its input\n"
        f"  wrong: async def {name}{signature}\n"
        f"  right: async def {name}(ctx) or async def {name}(ctx, input)"
    )
    raise WorkflowValidationError(msg)


def accepts(signature: inspect.Signature, count: int) -> bool:
    """Whether a call with `count` positional arguments fits `signature`."""
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True
