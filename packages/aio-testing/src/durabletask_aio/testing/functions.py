"""Registering the functions of a test, in the form in which upstream's executors expect them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, cast

from durabletask_aio.core import SandboxMode, as_orchestrator, hosting
from durabletask_aio.testing.registry import Registry
from durabletask_aio.worker.activity_functions import check_activity, with_type_hints

AnyFunction: TypeAlias = Callable[..., Any]
FunctionsByName: TypeAlias = Iterable[AnyFunction] | Mapping[str, AnyFunction]
"""Functions that are registered under their own names, or a mapping of names to functions."""


def new_registry(
    orchestrators: FunctionsByName = (),
    activities: FunctionsByName = (),
    entities: FunctionsByName = (),
    *,
    sandbox_mode: SandboxMode | str | None = None,
) -> Registry:
    """Return a registry of these functions.

    Raises:
        ValueError: as a worker does, for a name that is registered twice, and for an unknown sandbox mode.
        TypeError: as a worker does, for a function that cannot be an orchestrator, and for anything but a list or
            mapping of functions.
    """
    registry = Registry()
    if sandbox_mode is not None:
        SandboxMode.parse(sandbox_mode)  # Reports an unknown mode even if there is no workflow that would use it.
    for name, function in named_functions(orchestrators, "orchestrators"):
        hosting.check_is_no_activity(function)
        orchestrator = to_orchestrator(function, name=name, sandbox_mode=sandbox_mode)
        registry.add_named_orchestrator(name or hosting.function_name(orchestrator), orchestrator)
    for name, function in named_functions(activities, "activities"):
        registered_as = name or hosting.function_name(function)
        check_activity(function, name)
        registry.add_named_activity(registered_as, with_type_hints(function, registered_as))
    for name, function in named_functions(entities, "entities"):
        registry.add_entity(function, name)
    return registry


def to_orchestrator(
    function: AnyFunction, *, name: str | None = None, sandbox_mode: SandboxMode | str | None = None
) -> AnyFunction:
    """Return a generator orchestrator unchanged, and an async workflow as an orchestrator in the given mode.

    A workflow with a sandbox mode of its own keeps that mode.
    """
    info = hosting.orchestrator_info(function)
    if info is not None and info.sandbox_mode is not SandboxMode.OFF:
        return function
    if info is not None or is_async(function):
        return as_orchestrator(function, name=name, sandbox_mode=sandbox_mode)
    return function


def is_async(function: AnyFunction) -> bool:
    """Return whether the function is a coroutine function, or a wrapper of one."""
    return hosting.function_kind(function) in (hosting.FunctionKind.COROUTINE, hosting.FunctionKind.WRAPPER)


def named_functions(functions: FunctionsByName, parameter: str) -> list[tuple[str | None, AnyFunction]]:
    """Return pairs of name and function; the name is `None` for a function that is registered under its own.

    Args:
        functions: a list of functions, or a mapping of names to them.
        parameter: the name of the parameter, for messages.

    Raises:
        TypeError: for a single function, and for anything in it that is not callable.
    """
    given = cast("object", functions)
    if callable(given):
        raise TypeError(
            f"{parameter} takes a list of functions, or a mapping of names to them: "
            f"{parameter}=[{hosting.function_name(given)}]"
        )
    by_name: list[tuple[str | None, AnyFunction]]
    if isinstance(functions, Mapping):
        by_name = list(cast("Mapping[str | None, AnyFunction]", functions).items())
    else:
        by_name = [(None, function) for function in functions]
    for _, function in by_name:
        if not callable(function):
            raise TypeError(f"{parameter} takes functions, not {function!r}")
    return by_name


def registered_name(function: AnyFunction | str) -> str:
    """Return the name that a call with this function, or this name, refers to."""
    return function if isinstance(function, str) else hosting.function_name(function)
