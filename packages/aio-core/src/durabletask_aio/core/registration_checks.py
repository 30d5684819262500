"""Mistakes in what is registered with a worker: what is wrong, where, and what to write.

A function whose first parameter is annotated with a context is of that kind; nothing is concluded from a function
without such an annotation, or from one that another function is wrapped in.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

from durabletask_aio.core._upstream import ActivityContext, task
from durabletask_aio.core.context import AsyncWorkflowContext
from durabletask_aio.core.errors import WorkflowValidationError, shown
from durabletask_aio.core.functions import (
    FunctionKind,
    describe_function,
    function_kind,
    function_name,
    orchestrator_info,
    unwrap_partial,
)
from durabletask_aio.core.validation import accepts

_CONTEXTS: dict[type, Literal["activity", "workflow", "orchestrator"]] = {
    ActivityContext: "activity",
    AsyncWorkflowContext: "workflow",
    task.OrchestrationContext: "orchestrator",
}


# -- the kind of a function -------------------------------------------------------------------------------------------


def annotated_kind(function: Any) -> Literal["activity", "workflow", "orchestrator"] | None:
    """Return what the annotation of the first parameter says that `function` is; `None` without one."""
    plain = unwrap_partial(function)
    if inspect.isclass(plain) or hasattr(plain, "__wrapped__"):
        return None
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # A C callable, or one of an odd signature.
        return None
    annotation = parameters[0].annotation if parameters else None
    if isinstance(annotation, str):
        code_owner = plain if inspect.isroutine(plain) else type(plain).__call__
        annotation = _resolved(annotation, getattr(code_owner, "__globals__", {}))
    if not isinstance(annotation, type):
        return None
    return next((kind for context, kind in _CONTEXTS.items() if issubclass(annotation, context)), None)


def _resolved(annotation: str, namespace: Mapping[str, Any]) -> object:
    """Return what a dotted name stands for; of one that is imported for type checkers only, the context so called."""
    root, *path = annotation.strip("'\" ").split(".")
    if root not in namespace:
        return next((context for context in _CONTEXTS if context.__name__ == [root, *path][-1]), None)
    value = namespace[root]
    for name in path:
        value = getattr(value, name, None)
    return value


# -- registration -----------------------------------------------------------------------------------------------------


def check_is_function(method: str, function: object) -> None:
    """Refuse what cannot be called.

    Args:
        method: The method of the worker that was given it.
        function: What it was given.

    Raises:
        WorkflowValidationError: `function` is no function, nor any other callable, nor a coroutine, which gets a
            message of its own.
    """
    if callable(function) or inspect.iscoroutine(function):
        return
    msg = (
        f"{method}() takes a function, and not {shown(function)}\n"
        f"  wrong: worker.{method}({shown(function)})\n"
        f"  right: worker.{method}(function)"
    )
    raise WorkflowValidationError(msg)


def check_is_no_activity(function: Any) -> None:
    """Refuse an activity in place of a workflow or orchestrator, and a workflow that is not async.

    Raises:
        WorkflowValidationError: Its first parameter is annotated so, and it is not a generator function.
    """
    kind = annotated_kind(function)
    name = function_name(function) if kind is not None else ""
    if kind == "activity":
        msg = (
            f"{describe_function(function)} is an activity: its first parameter is an ActivityContext\n"
            f"  wrong: worker.add_orchestrator({name})\n"
            f"  right: worker.add_activity({name})"
        )
        raise WorkflowValidationError(msg)
    if kind == "workflow" and function_kind(function) is FunctionKind.PLAIN:
        msg = (
            f"{describe_function(function)} takes an AsyncWorkflowContext, and is not async\n"
            f"  wrong: def {name}(ctx, input): ...\n"
            f"  right: async def {name}(ctx, input): ..."
        )
        raise WorkflowValidationError(msg)


def check_is_no_workflow(function: Any) -> None:
    """Refuse a workflow or orchestrator in place of an activity.

    Raises:
        WorkflowValidationError: Its first parameter is annotated so, or it is a generator function or a result of
            `as_orchestrator`.
    """
    kind, form = annotated_kind(function), function_kind(function)
    if form is FunctionKind.GENERATOR:
        why = "a generator function, which only an orchestrator can be"
    elif form is FunctionKind.ORCHESTRATOR:
        why = "a result of as_orchestrator()"
    elif kind == "workflow":
        why = "a workflow: its first parameter is an AsyncWorkflowContext"
    elif kind == "orchestrator":
        why = "an orchestrator: its first parameter is an OrchestrationContext"
    else:
        return
    name = function_name(function)
    msg = (
        f"{describe_function(function)} is {why}\n"
        f"  wrong: worker.add_activity({name})\n"
        f"  right: worker.add_orchestrator({name})"
    )
    raise WorkflowValidationError(msg)


def check_takes_input(function: Any) -> None:
    """Refuse an activity that cannot be called with its context and its input.

    Raises:
        WorkflowValidationError: It takes another number of arguments.
    """
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # A C callable, which has no signature to check.
        return
    if accepts(signature, 2):
        return
    name = function_name(function)
    parameters = [each for each in signature.parameters if each not in ("ctx", "context")]
    taken = f"({', '.join(map(str, _without_types(signature)))})"
    form = "async def" if function_kind(function) is FunctionKind.COROUTINE else "def"
    msg = (
        f"{describe_function(function)} takes {taken}; an activity is called with its context and its input\n"
        f"  wrong: {form} {name}{taken}: ...\n"
        f"  right: {form} {name}(ctx, {parameters[0] if len(parameters) == 1 else 'input'}): ..."
    )
    raise WorkflowValidationError(msg)


def _without_types(signature: inspect.Signature) -> list[inspect.Parameter]:
    return [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]


def check_name_is_free(kind: str, name: str, registered: Any, function: Any) -> None:
    """Refuse a second function under one name.

    Args:
        kind: `"orchestrator"` or `"activity"`.
        name: The name.
        registered: What is registered under it, or `None`.
        function: What is to be.

    Raises:
        ValueError: There is one.
    """
    if registered is None:
        return
    info = orchestrator_info(registered)
    held = registered if info is None else info.function
    method, called = f"worker.add_{kind}", function_name(function)
    if held == function:
        raise ValueError(
            f"A {name!r} {kind} already exists: {describe_function(function)} is registered twice\n"
            f"  wrong: {method}({called}); {method}({called})\n"
            f"  right: {method}({called})"
        )
    raise ValueError(
        f"A {name!r} {kind} already exists: {describe_function(held)}, and {describe_function(function)} cannot have "
        f"its name too\n"
        f"  wrong: {method}({called})\n"
        f"  right: {method}({called}, name={f'another_{name}'!r})"
    )
