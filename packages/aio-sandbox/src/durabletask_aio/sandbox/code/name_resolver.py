"""How the analysis finds out what names and attributes stand for: the interface of a resolver, and what it returns.

There are two resolvers. `static.live_resolver` looks names up in live objects, `static.source_resolver` follows the
import statements of source files. The analysis works with either.
"""

from __future__ import annotations

import ast
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from durabletask_aio.sandbox.code.scopes import Scope
from durabletask_aio.sandbox.code.sources import FunctionNode, Source
from durabletask_aio.sandbox.code.values import Value
from durabletask_aio.sandbox.rules.catalogue import Call


@dataclass(frozen=True)
class DefaultFactory:
    """What gives a field of a new object its value, unless the one who makes the object gives it."""

    name: str
    aliases: frozenset[str]
    """What the field may be given by besides."""
    position: int
    function: Value


@dataclass(frozen=True)
class FunctionBody:
    """A function of the user's that the analysis goes into."""

    key: Hashable
    node: FunctionNode
    source: Source
    scope: Scope
    """The scope in which the function is defined."""
    label: str
    """Its name, as messages show it."""
    allowed: tuple[str, ...] = ()
    receiver: Value | None = None
    io_only: bool = False
    """Whether it is a followed package's, of which only files, network, processes and threads are told."""


class NameResolver(Protocol):
    """Where names come from: live objects (:mod:`.live`), or import statements alone (:mod:`.project`)."""

    def look_up(self, name: str, scope: Scope) -> list[Value]:
        """What a name that no function binds stands for."""
        ...

    def attribute(self, value: Value, name: str) -> list[Value]: ...

    def element(self, value: Value) -> list[Value]:
        """What ``value[...]`` may be."""
        ...

    def result(self, value: Value) -> list[Value]:
        """What calling ``value`` gives; instances of classes, mostly."""
        ...

    def call(self, value: Value) -> Call | None:
        """The entry of the catalogue that ``value`` is."""
        ...

    def owns_calls(self, value: Value) -> bool:
        """Whether ``value`` is a module or class that something in the catalogue is taken from."""
        ...

    def bodies(self, value: Value) -> list[FunctionBody]:
        """The user's functions that run when ``value`` is called."""
        ...

    def factories(self, value: Value) -> list[DefaultFactory]:
        """What making an object of the class ``value`` calls for fields that are not given."""
        ...

    def reading(self, value: Value, name: str) -> list[FunctionBody]:
        """The user's functions that run when the attribute ``name`` of ``value`` is read."""
        ...

    def full_name(self, value: Value) -> str | None:
        """The dotted name of something outside of the user's code."""
        ...

    def annotated(self, node: ast.expr, scope: Scope) -> list[Value]:
        """What a parameter or variable with this annotation holds."""
        ...

    def import_module(self, name: str, scope: Scope) -> list[Value]: ...

    def is_async(self, value: Value) -> bool:
        """Whether calling ``value`` gives a coroutine."""
        ...
