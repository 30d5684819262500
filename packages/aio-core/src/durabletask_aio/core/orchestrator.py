"""`as_orchestrator`: from a coroutine function to an orchestrator that any host of upstream's can run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar, cast, overload

from durabletask_aio.core import installation, plugins
from durabletask_aio.core._upstream import task
from durabletask_aio.core.context import AsyncWorkflowContext
from durabletask_aio.core.driver import WorkflowRun
from durabletask_aio.core.functions import (
    ORCHESTRATOR_ATTRIBUTE,
    OrchestratorInfo,
    function_name,
    orchestrator_info,
)
from durabletask_aio.core.settings import SandboxMode
from durabletask_aio.core.validation import accepts, validate_workflow_function

TInput = TypeVar("TInput")
TOutput = TypeVar("TOutput")


class _Decorator(Protocol):
    """The result of `as_orchestrator` without a function."""

    @overload
    def __call__(
        self, fn: Callable[[AsyncWorkflowContext, TInput], Coroutine[Any, Any, TOutput]], /
    ) -> task.Orchestrator[TInput, TOutput]: ...

    @overload
    def __call__(
        self, fn: Callable[[AsyncWorkflowContext], Coroutine[Any, Any, TOutput]], /
    ) -> task.Orchestrator[Any, TOutput]: ...


@overload
def as_orchestrator(
    fn: Callable[[AsyncWorkflowContext, TInput], Coroutine[Any, Any, TOutput]],
    *,
    name: str | None = None,
    sandbox_mode: SandboxMode | str | None = None,
) -> task.Orchestrator[TInput, TOutput]: ...


@overload
def as_orchestrator(
    fn: Callable[[AsyncWorkflowContext], Coroutine[Any, Any, TOutput]],
    *,
    name: str | None = None,
    sandbox_mode: SandboxMode | str | None = None,
) -> task.Orchestrator[Any, TOutput]: ...


@overload
def as_orchestrator(
    fn: task.Orchestrator[TInput, TOutput],
    *,
    name: str | None = None,
    sandbox_mode: SandboxMode | str | None = None,
) -> task.Orchestrator[TInput, TOutput]: ...


@overload
def as_orchestrator(
    fn: None = None, *, name: str | None = None, sandbox_mode: SandboxMode | str | None = None
) -> _Decorator: ...


def as_orchestrator(fn: Any = None, *, name: str | None = None, sandbox_mode: SandboxMode | str | None = None) -> Any:
    """Turn an `async def` workflow into an orchestrator that any host of upstream's can run.

    Also a decorator, with or without arguments.  The result is accepted by `add_orchestrator` of any worker, by
    `schedule_new_orchestration` and by `call_sub_orchestrator`; given to `as_orchestrator` again, it is returned
    unchanged.

    Args:
        fn: a coroutine function of the context, or of the context and the input.
        name: the name it is registered under; by default the function's name.
        sandbox_mode: how non-deterministic calls are treated; by default `"off"`.

    Returns:
        The orchestrator; without `fn`, a decorator.

    Raises:
        WorkflowValidationError: for anything that is not such a function, and for a sandbox mode that does not exist or
            whose package is not installed.
        SandboxViolationError: in `"strict"` mode, for a call that static analysis finds.
    """
    if fn is None:
        return functools.partial(as_orchestrator, name=name, sandbox_mode=sandbox_mode)
    info = orchestrator_info(fn)
    if info is not None:
        return _again(fn, info, name, sandbox_mode)
    installation.verify_installation()
    validate_workflow_function(fn)
    mode = SandboxMode.OFF if sandbox_mode is None else SandboxMode.parse(sandbox_mode)
    info = OrchestratorInfo(fn, name or function_name(fn), mode)
    guard = plugins.guard_for(fn, info.name, mode)
    function = fn if guard is None else guard.function
    takes_input = _takes_input(fn)

    def orchestrator(ctx: task.OrchestrationContext, input: Any = None) -> Any:  # noqa: A002 - upstream's name
        arguments = (input,) if takes_input else ()
        return WorkflowRun(ctx, info, guard).drive(ctx, function, arguments)

    # Upstream also reads the type of the input through __wrapped__.
    functools.update_wrapper(orchestrator, fn, assigned=_assigned(fn))
    orchestrator.__name__ = info.name
    orchestrator.__qualname__ = info.name if name else getattr(fn, "__qualname__", info.name)
    if not takes_input:
        # Hosts count the parameters, and `inspect.signature` would show those of the function.
        cast("Any", orchestrator).__signature__ = _with_input(inspect.signature(fn))
    setattr(orchestrator, ORCHESTRATOR_ATTRIBUTE, info)
    return orchestrator


def _with_input(signature: inspect.Signature) -> inspect.Signature:
    """Return the signature of a workflow that takes the context alone, with upstream's second parameter."""
    context = next(iter(signature.parameters.values()))
    added = inspect.Parameter("input", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)
    first = context.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD, default=inspect.Parameter.empty)
    return signature.replace(parameters=[first, added])


def _again(fn: Any, info: OrchestratorInfo, name: str | None, sandbox_mode: SandboxMode | str | None) -> Any:
    mode = info.sandbox_mode if sandbox_mode is None else SandboxMode.parse(sandbox_mode)
    if (name or info.name) == info.name and mode == info.sandbox_mode:
        return fn
    return as_orchestrator(info.function, name=name or info.name, sandbox_mode=mode)


def _assigned(fn: Any) -> tuple[str, ...]:
    return tuple(name for name in functools.WRAPPER_ASSIGNMENTS if hasattr(fn, name))


def _takes_input(fn: Any) -> bool:
    try:
        return accepts(inspect.signature(fn), 2)
    except (TypeError, ValueError):
        return True
