"""From a loaded function to its definition in a source file, as the checker would find it."""

from __future__ import annotations

import ast
import sys
import types
from pathlib import Path
from typing import Any

from durabletask_aio.sandbox.code.scopes import Scope
from durabletask_aio.sandbox.code.values import Instance, SourceClass, SourceFunction
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.rules.ownership import OWNERSHIP
from durabletask_aio.sandbox.static import reachability
from durabletask_aio.sandbox.static.live_resolver import user_roots
from durabletask_aio.sandbox.static.source_classes import is_static
from durabletask_aio.sandbox.static.source_modules import read_source
from durabletask_aio.sandbox.static.source_resolver import SourceResolver


def definition_of(target: Any) -> tuple[SourceResolver, SourceFunction] | tuple[None, None]:
    """The definition of a loaded function, and a resolver for the files of this process.

    There is none for a function that is defined inside of another, whose names depend on a call, and for one that is
    not in a file of the user.
    """
    for function in reachability.functions_of(target):
        module = sys.modules.get(function.__module__)
        filename = function.__code__.co_filename
        if module is None or getattr(module, "__file__", None) != filename or not Path(filename).is_file():
            continue
        if not OWNERSHIP.is_user_file(filename) or OWNERSHIP.is_installed(filename):
            continue
        roots = [Path(root).absolute() for root in user_roots()]
        resolver = SourceResolver(default_catalogue(), roots, OWNERSHIP.packages, is_loaded=True)
        source = resolver.add(_name_of(module), Path(filename), read_source(Path(filename)))
        found = _definition(function, source.scope)
        if found is not None:
            return resolver, found
    return None, None


def _name_of(module: types.ModuleType) -> str:
    # A program is imported under another name than its file's.
    if module.__name__ != "__main__":
        return module.__name__
    name = Path(module.__file__ or "").stem
    return f"{module.__package__}.{name}" if module.__package__ else name


def _definition(function: types.FunctionType, scope: Scope) -> SourceFunction | None:
    """The statement that defines the function, with its class if it is a method."""
    statements: list[ast.stmt] = scope.source.tree.body if scope.source.tree is not None else []
    owner: SourceClass | None = None
    *classes, name = function.__qualname__.split(".")
    for each in classes:
        kind = next((node for node in statements if isinstance(node, ast.ClassDef) and node.name == each), None)
        if kind is None:
            return None
        owner, statements = SourceClass(kind, scope), kind.body
    found = [
        node
        for node in statements
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name == name
        and min([node.lineno, *(each.lineno for each in node.decorator_list)]) == function.__code__.co_firstlineno
    ]
    if not found:
        return None
    receiver = Instance(owner) if owner is not None and not is_static(found[0]) else None
    return SourceFunction(found[0], scope, receiver)
