"""The values of variables outside of all functions, which outlive every workflow."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Final

from durabletask_aio.sandbox.code.evaluator import Evaluator, set_from_call, set_from_display
from durabletask_aio.sandbox.code.name_resolver import NameResolver
from durabletask_aio.sandbox.code.scopes import Scope
from durabletask_aio.sandbox.code.sources import Source
from durabletask_aio.sandbox.code.values import (
    ImportTimeValue,
    Instance,
    PartialFunction,
    SharedObject,
    Value,
)
from durabletask_aio.sandbox.rules.catalogue import Catalogue, Category
from durabletask_aio.sandbox.rules.conditions import condition_holds, summary_of_node

_MUTABLE_MAKERS: Final = frozenset(
    {
        *("list", "dict", "set", "bytearray"),
        *("collections.deque", "collections.defaultdict", "collections.Counter", "collections.OrderedDict"),
    }
)
_ITERATOR_MAKERS: Final = frozenset({"iter", "itertools.count", "itertools.cycle"})
_IMPORT_TIME: Final = frozenset(
    {Category.CLOCK, Category.RANDOM, Category.UUID, Category.ENTROPY, Category.IDENTITY, Category.NETWORK}
)
"""Categories of calls whose result differs between processes, so that a module must not keep it for workflows."""
_COMPUTED: Final = (ast.Call, ast.BinOp, ast.JoinedStr, ast.IfExp, ast.Attribute, ast.Subscript, ast.BoolOp)
_READS: Final = frozenset({"builtins.open", "io.open", "pathlib.Path.read_text", "pathlib.Path.read_bytes"})
_TABLE_LIMIT: Final = 50


class SharedValues:
    """Evaluates what the top of a module, or the body of a class, assigns to variables."""

    def __init__(self, resolver: NameResolver, evaluator: Evaluator, catalogue: Catalogue) -> None:
        self._resolver = resolver
        self._evaluator = evaluator
        self._catalogue = catalogue

    def assigned(self, node: ast.expr, scope: Scope, name: str) -> list[Value]:
        """The values of a variable outside of all functions: an alias, or an object that outlives a workflow."""
        if isinstance(node, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)):
            kind = f"a {type(node).__name__.removesuffix('Comp').lower()}"
            shared = SharedObject(name, kind, elements=tuple(self._elements_of_table(node, scope)))
            return [shared, set_from_display(node)] if isinstance(node, ast.Set) else [shared]
        found = (
            self._call_result(node, scope, name) if isinstance(node, ast.Call) else self._evaluator.values(node, scope)
        )
        snapshot = self._import_time_value(node, scope, name)
        return found if snapshot is None else [*found, snapshot]

    def _import_time_value(self, node: ast.expr, scope: Scope, name: str) -> ImportTimeValue | None:
        """The call in an expression outside of all functions that gives each process another result."""
        if not isinstance(node, _COMPUTED):
            return None
        for each in ast.walk(node):
            if isinstance(each, (ast.Lambda, ast.GeneratorExp)):
                return None
            if not isinstance(each, ast.Call):
                continue
            for value in self._evaluator.values(each.func, scope):
                call = self._resolver.call(value)
                if call is None or not condition_holds(call.condition, summary_of_node(each)):
                    continue
                makes_object = self._makes_object(call.name)
                if (call.category in _IMPORT_TIME and not makes_object) or call.name in _READS:
                    line = f"{source_around(scope).filename}:{each.lineno}"
                    return ImportTimeValue(name, call.name, line)
        return None

    def _makes_object(self, name: str) -> bool:
        """Whether a call makes an object that is used later, such as a client or a generator."""
        return name in self._catalogue.results or name.rpartition(".")[2][:1].isupper()

    def _elements_of_table(self, node: ast.expr, scope: Scope) -> list[Value]:
        """The functions and objects in a list or dictionary outside of all functions."""
        parts = node.values if isinstance(node, ast.Dict) else getattr(node, "elts", [])
        plain = [part for part in parts if isinstance(part, (ast.Name, ast.Attribute, ast.Lambda, ast.Call))]
        return [value for part in plain[:_TABLE_LIMIT] for value in self._evaluator.values(part, scope)]

    def _call_result(self, node: ast.Call, scope: Scope, name: str) -> list[Value]:
        found: list[Value] = []
        for value in self._evaluator.values(node.func, scope):
            made = (self._resolver.full_name(value) or "").removeprefix("builtins.")
            if made in self._catalogue.generators:
                found.append(SharedObject(name, "a random generator", is_random=True))
            elif made in _MUTABLE_MAKERS:
                found.append(SharedObject(name, f"a {made.rpartition('.')[2]}"))
                found += [set_from_call(node)] if made == "set" else []
            elif made == "frozenset":
                found.append(set_from_call(node))
            elif made in _ITERATOR_MAKERS:
                found.append(SharedObject(name, "an iterator", is_iterator=True))
            elif made == "functools.partial" and node.args:
                found.extend(
                    PartialFunction(inner, summary_of_node(node, 1))
                    if self._resolver.call(inner) is not None
                    else inner
                    for inner in self._evaluator.values(node.args[0], scope)
                )
            else:
                found += [shared(each) for each in self._evaluator.result(value, node, scope)]
        return found


def shared(value: Value) -> Value:
    """The value as one that outlives a workflow."""
    if isinstance(value, Instance):
        return replace(value, is_shared=True)
    return value


def source_around(scope: Scope) -> Source:
    """The source that contains a scope."""
    current: Scope | None = scope
    while current is not None and current.source is None:
        current = current.parent
    assert current is not None, "every scope of a project is inside of a module's"
    source: Source = current.source
    return source
