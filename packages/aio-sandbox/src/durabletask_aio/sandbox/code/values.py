"""The abstract values of the analysis: what an expression may stand for.

An expression has any number of possible values (a name may be assigned twice); none means that nothing is known.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from durabletask_aio.sandbox.rules.conditions import ArgumentSummary

if TYPE_CHECKING:
    from durabletask_aio.sandbox.code.scopes import Scope
    from durabletask_aio.sandbox.code.sources import FunctionNode


class Value:
    """Base of all abstract values."""

    __slots__ = ()


@dataclass(frozen=True)
class ObjectValue(Value):
    """A live object, compared by identity. `receiver` is the object that a method was taken from."""

    value: object = field(compare=False)
    identity: int
    receiver: Value | None = field(default=None, compare=False)

    @staticmethod
    def of(value: object, receiver: Value | None = None) -> ObjectValue:
        return ObjectValue(value, id(value), receiver)


@dataclass(frozen=True)
class ExternalName(Value):
    """Something outside the checked source, by its full name: `datetime.datetime.now`."""

    name: str


@dataclass(frozen=True, eq=False)
class SourceFunction(Value):
    """A function or lambda in the checked source, with the enclosing scope."""

    node: FunctionNode
    scope: Scope
    receiver: Value | None = None


@dataclass(frozen=True, eq=False)
class SourceClass(Value):
    """A class in the checked source, with the enclosing scope."""

    node: ast.ClassDef
    scope: Scope


@dataclass(frozen=True)
class Instance(Value):
    """An object of a class."""

    cls: Value
    is_shared: bool = False
    """Whether a variable outside of all functions holds it, so that it outlives the workflow."""


@dataclass(frozen=True)
class ContextValue(Value):
    """The workflow's context."""


@dataclass(frozen=True)
class ContextMethod(Value):
    """A method of the workflow's context."""

    name: str


@dataclass(frozen=True)
class UnawaitedValue(Value):
    """A durable operation or coroutine that has to be awaited; `description` is the call, such as `ctx.sleep()`."""

    description: str


@dataclass(frozen=True)
class UnorderedValue(Value):
    """A set, or a sequence in the order of a set."""

    is_set: bool
    is_certain: bool
    """Whether the order is known to differ between processes: so for text, not for numbers."""
    is_element: bool = False
    """Whether it is a single element, taken because it came first."""
    is_tasks: bool = False
    """Whether it is the set that `asyncio.all_tasks()` returns, or one made from it."""


@dataclass(frozen=True)
class SharedObject(Value):
    """An object that a variable outside of all functions holds; `kind` describes it in words."""

    name: str
    kind: str
    is_random: bool = False
    is_iterator: bool = False
    elements: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Argument(Value):
    """An unknown value that the caller passed."""


@dataclass(frozen=True)
class ContainerValue(Value):
    """A list, tuple or dictionary with known elements."""

    elements: tuple[Value, ...]


@dataclass(frozen=True)
class PartialFunction(Value):
    """A function of the catalogue with some arguments already given, by `functools.partial`."""

    function: Value
    arguments: ArgumentSummary
