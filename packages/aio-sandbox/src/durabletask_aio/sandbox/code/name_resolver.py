"""How the analysis finds out what names and attributes stand for: the interface of a resolver, and its results.

`static.source_resolver` follows the import statements of source files; `static.loaded_resolver` is the same for modules
of this process, whose names it looks up in what they hold.
"""

from __future__ import annotations

import ast
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from durabletask_aio.sandbox.code.scopes import Scope, parameters
from durabletask_aio.sandbox.code.sources import FunctionNode, Source
from durabletask_aio.sandbox.code.values import SourceClass, Value
from durabletask_aio.sandbox.rules.catalogue import Call


@dataclass(frozen=True)
class DefaultFactory:
    """A function that provides the value of a field when a new object is created without it."""

    name: str
    aliases: frozenset[str]
    """Other keywords that provide the field."""
    position: int
    function: Value


@dataclass(frozen=True)
class FunctionBody:
    """A function of the user, or of a followed package, whose body the analysis scans."""

    key: Hashable
    node: FunctionNode
    source: Source
    scope: Scope
    """The scope in which the function is defined."""
    label: str
    """The name that messages show."""
    allowed: tuple[str, ...] = ()
    receiver: Value | None = None
    io_only: bool = False
    """Whether it belongs to a package that is followed for files, network, processes and threads only."""
    field: str = ""
    """The field for which it provides a value, if the object is created without one."""

    def parameter_names(self) -> list[str]:
        """The names of the parameters that a call may give by position, which the receiver is not one of."""
        names = [parameter.arg for parameter in parameters(self.node.args)]
        return names if self.receiver is None else names[1:]


class NameResolver(Protocol):
    """Looks up names and attributes for the evaluator and the scanner; see `static.source_resolver`."""

    def look_up(self, name: str, scope: Scope) -> list[Value]:
        """The values of a name that no function around `scope` binds."""
        ...

    def attribute(self, value: Value, name: str) -> list[Value]: ...

    def element(self, value: Value) -> list[Value]:
        """The values of `value[...]`."""
        ...

    def result(self, value: Value) -> list[Value]:
        """The values of `value(...)`; mostly instances of classes."""
        ...

    def call(self, value: Value) -> Call | None:
        """The entry of the catalogue for `value`, if there is one."""
        ...

    def owns_calls(self, value: Value) -> bool:
        """Whether `value` is a module or class to which a call in the catalogue belongs."""
        ...

    def bodies(self, value: Value) -> list[FunctionBody]:
        """The functions to scan that run when `value` is called."""
        ...

    def factories(self, value: Value) -> list[DefaultFactory]:
        """The functions that creating an object of the class `value` calls for fields without a value."""
        ...

    def creation_parameters(self, value: SourceClass) -> list[str]:
        """The names of the arguments with which an object of a class is created, in order."""
        ...

    def reading(self, value: Value, name: str) -> list[FunctionBody]:
        """The functions to scan that run when the attribute `name` of `value` is read."""
        ...

    def full_name(self, value: Value) -> str | None:
        """The dotted name of something outside the user's code."""
        ...

    def annotated(self, node: ast.expr, scope: Scope) -> list[Value]:
        """The values of a parameter or variable with this annotation."""
        ...

    def import_module(self, name: str, scope: Scope) -> list[Value]: ...

    def is_async(self, value: Value) -> bool:
        """Whether calling `value` returns a coroutine."""
        ...
