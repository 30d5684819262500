"""Finding the orchestrators of a program by the name of its module."""

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

from durabletask_aio.core.functions import ORCHESTRATOR_ATTRIBUTE, is_coroutine_callable, is_orchestrator


class OrchestratorLookupError(LookupError):
    """A module cannot be imported, or has no such orchestrator."""


def load_orchestrators(references: Iterable[str]) -> dict[str, Callable[..., Any]]:
    """Orchestrators by the names under which they are registered.

    A reference is ``package.module``, which means every async function, every result of ``as_orchestrator`` and every
    generator function in it, or ``package.module:function`` for one of them, or ``package.module:function=name`` if it
    is registered under another name than its own.  The current directory can be imported from.
    Raises :class:`OrchestratorLookupError` for what cannot be found.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found: dict[str, Callable[..., Any]] = {}
    for reference in references:
        module_name, _, attribute = reference.partition(":")
        module = _imported(module_name)
        if attribute:
            function, _, name = attribute.partition("=")
            value = _one(module, function)
            found[name or _name(value)] = value
        else:
            values = [value for value in vars(module).values() if _could_be_one(value)]
            if not values:
                raise OrchestratorLookupError(
                    f"module {module_name!r} has no orchestrators: no async function, no generator function"
                )
            for value in values:
                found.setdefault(_name(value), value)
    return found


def _imported(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
        dotted = name.removesuffix(".py").replace("\\", "/").strip("./").replace("/", ".")
        raise OrchestratorLookupError(f"{name!r} is no name of a module; as one imports it, it is {dotted!r}")
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        # Whatever a module does while it is imported, and where: a stack of this command would hide it.
        raise OrchestratorLookupError(f"cannot import {name!r}: {_described(error)}") from error


def _described(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return str(error)
    lines = [f" ({line.filename}:{line.lineno})" for line in traceback.extract_tb(error.__traceback__)]
    ours = [line for line in lines if not line.startswith((" (<frozen", f" ({importlib.__file__}"))]
    # A syntax error says itself where it is.
    where = ours[-1] if ours and not isinstance(error, SyntaxError) else ""
    return f"{type(error).__name__}: {error}{where}"


def _one(module: ModuleType, attribute: str) -> Callable[..., Any]:
    value: Callable[..., Any] | None = getattr(module, attribute, None)
    if not callable(value):
        names = [name for name, each in vars(module).items() if _could_be_one(each)]
        close = difflib.get_close_matches(attribute, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise OrchestratorLookupError(f"module {module.__name__!r} has no function {attribute!r}{hint}")
    return value


def _could_be_one(value: Any) -> bool:
    if is_orchestrator(value):
        return True
    return inspect.isfunction(value) and (is_coroutine_callable(value) or inspect.isgeneratorfunction(value))


def _name(function: Any) -> str:
    info = getattr(function, ORCHESTRATOR_ATTRIBUTE, None)
    return str(info.name if info is not None else function.__name__)
