"""The functions a test registers, as the executors want them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, cast

from durabletask_aio.core.functions import ORCHESTRATOR_ATTRIBUTE, is_coroutine_callable
from durabletask_aio.core.functions import function_name as callable_name
from durabletask_aio.core.orchestrator import as_orchestrator
from durabletask_aio.core.settings import SandboxMode
from durabletask_aio.testing._upstream import Registry
from durabletask_aio.worker.registration import discoverable

AnyFunction: TypeAlias = Callable[..., Any]
FunctionsByName: TypeAlias = Iterable[AnyFunction] | Mapping[str, AnyFunction]
"""Functions registered under their own names, or a mapping that says under which."""


def registry_of(
    orchestrators: FunctionsByName = (),
    activities: FunctionsByName = (),
    entities: FunctionsByName = (),
    *,
    sandbox_mode: SandboxMode | str | None = None,
) -> Registry:
    """Register everything.  Raises what a worker would: for taken names, and for what is no workflow."""
    registry = Registry()
    if sandbox_mode is not None:
        SandboxMode.parse(sandbox_mode)  # also where no workflow is there to ask for it
    for name, function in named(orchestrators, "orchestrators"):
        orchestrator = orchestrator_of(function, name=name, sandbox_mode=sandbox_mode)
        registry.add_named_orchestrator(name or callable_name(orchestrator), orchestrator)
    for name, function in named(activities, "activities"):
        registered_as = name or callable_name(function)
        registry.add_named_activity(registered_as, discoverable(function, registered_as))
    for name, function in named(entities, "entities"):
        registry.add_entity(function, name)
    return registry


def orchestrator_of(
    function: AnyFunction, *, name: str | None = None, sandbox_mode: SandboxMode | str | None = None
) -> AnyFunction:
    """A generator orchestrator as it is, an async workflow as an orchestrator in the given mode.

    A workflow that says itself in which mode it runs keeps that mode.
    """
    info = getattr(function, ORCHESTRATOR_ATTRIBUTE, None)
    if info is not None and info.sandbox_mode is not SandboxMode.OFF:
        return function
    if info is not None or is_coroutine_callable(function):
        return as_orchestrator(function, name=name, sandbox_mode=sandbox_mode)
    return function


def named(functions: FunctionsByName, kind: str) -> list[tuple[str | None, AnyFunction]]:
    given = cast("object", functions)
    if callable(given):
        raise TypeError(
            f"{kind} takes a list of functions, or a mapping of names to them: {kind}=[{callable_name(given)}]"
        )
    by_name: list[tuple[str | None, AnyFunction]]
    if isinstance(functions, Mapping):
        by_name = list(cast("Mapping[str | None, AnyFunction]", functions).items())
    else:
        by_name = [(None, function) for function in functions]
    for _, function in by_name:
        if not callable(function):
            raise TypeError(f"{kind} takes functions, and {function!r} is none")
    return by_name


def name_of(function: AnyFunction | str) -> str:
    """The name that a call with this function or string asks for."""
    return function if isinstance(function, str) else callable_name(function)
