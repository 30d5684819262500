"""Loading the orchestrators of a program from module references such as `shop.workflows:place_order`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from durabletask_aio.core import hosting
from durabletask_aio.testing.functions import is_async


class OrchestratorLookupError(LookupError):
    """A module cannot be imported, or does not have the orchestrator."""


def load_orchestrators(references: Iterable[str]) -> dict[str, Callable[..., Any]]:
    """Load orchestrators, keyed by the names under which they are registered.

    The current directory is put on the import path.

    Args:
        references: each is one of
            `package.module` for every async function, generator function and result of `as_orchestrator` in it;
            `package.module:function` for one function;
            `package.module:function=name` for a function that is registered under another name than its own.

    Returns:
        The orchestrators by name.

    Raises:
        OrchestratorLookupError: for a module that cannot be imported or has no such function.
    """
    orchestrators: dict[str, Callable[..., Any]] = {}
    for reference in references:
        module_name, _, attribute = reference.partition(":")
        module = import_module(module_name)
        if attribute:
            function_name, _, name = attribute.partition("=")
            function = _get_function(module, function_name)
            orchestrators[name or _registered_name(function)] = function
        else:
            functions = [value for value in vars(module).values() if _may_be_orchestrator(value)]
            if not functions:
                raise OrchestratorLookupError(
                    f"module {module_name!r} has no orchestrators: no async function, no generator function"
                )
            for function in functions:
                orchestrators.setdefault(_registered_name(function), function)
    return orchestrators


def import_module(name: str) -> ModuleType:
    """Import a module, for which the current directory is put on the import path.

    Raises:
        OrchestratorLookupError: if it cannot be imported; the message has the line that failed.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
        dotted = name.removesuffix(".py").replace("\\", "/").strip("./").replace("/", ".")
        raise OrchestratorLookupError(f"{name!r} is not the name of a module; to import it, write {dotted!r}")
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        # Importing runs arbitrary code. The message has the line that failed, without the stack of this command.
        raise OrchestratorLookupError(f"cannot import {name!r}: {_describe_import_error(error)}") from error


def _describe_import_error(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return str(error)
    lines = [f" ({line.filename}:{line.lineno})" for line in traceback.extract_tb(error.__traceback__)]
    outside_importlib = [line for line in lines if not line.startswith((" (<frozen", f" ({importlib.__file__}"))]
    # The text of a syntax error has its file and line already.
    location = outside_importlib[-1] if outside_importlib and not isinstance(error, SyntaxError) else ""
    return f"{type(error).__name__}: {error}{location}"


def _get_function(module: ModuleType, name: str) -> Callable[..., Any]:
    function: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(function):
        candidates = [attribute for attribute, value in vars(module).items() if _may_be_orchestrator(value)]
        close = difflib.get_close_matches(name, candidates, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise OrchestratorLookupError(f"module {module.__name__!r} has no function {name!r}{hint}")
    return function


def _may_be_orchestrator(value: Any) -> bool:
    if hosting.orchestrator_info(value) is not None:
        return True
    return inspect.isfunction(value) and (is_async(value) or inspect.isgeneratorfunction(value))


def _registered_name(function: Any) -> str:
    info = hosting.orchestrator_info(function)
    return str(info.name if info is not None else function.__name__)
