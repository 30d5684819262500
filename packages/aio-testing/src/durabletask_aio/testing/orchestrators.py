"""Finding the orchestrators of a program by the name of its module."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from durabletask_aio.core.validation import ORCHESTRATOR_ATTRIBUTE, is_coroutine_callable, is_orchestrator


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
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise OrchestratorLookupError(f"cannot import {module_name!r}: {error}") from error
        if attribute:
            function, _, name = attribute.partition("=")
            value = _one(module, function)
            found[name or _name(value)] = value
        else:
            for value in vars(module).values():
                if _could_be_one(value):
                    found.setdefault(_name(value), value)
    return found


def _one(module: Any, attribute: str) -> Callable[..., Any]:
    value: Callable[..., Any] | None = getattr(module, attribute, None)
    if not callable(value):
        raise OrchestratorLookupError(f"module {module.__name__!r} has no function {attribute!r}")
    return value


def _could_be_one(value: Any) -> bool:
    if is_orchestrator(value):
        return True
    return inspect.isfunction(value) and (is_coroutine_callable(value) or inspect.isgeneratorfunction(value))


def _name(function: Any) -> str:
    info = getattr(function, ORCHESTRATOR_ATTRIBUTE, None)
    return str(info.name if info is not None else function.__name__)
