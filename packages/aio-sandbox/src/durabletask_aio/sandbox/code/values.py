"""The abstract values of the analysis: what an expression may stand for.

An expression has any number of possible values (a name may be assigned twice); none means that nothing is known.
"""

from __future__ import annotations

import ast
from collections.abc import Hashable, Iterable
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
class ExternalName(Value):
    """Something outside the checked source, by its full name: `datetime.datetime.now`."""

    name: str
    owner: Value | None = field(default=None, compare=False)
    """The class in the checked source that inherits it, if it was reached through one."""


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
    arguments: tuple[tuple[str, Value], ...] = field(default=(), compare=False)
    """What is known about the arguments with which it was created, by parameter of `__init__` or by field."""
    held: object = field(default=None, compare=False)
    """The object itself, if it is one of this process."""


@dataclass(frozen=True)
class SuperObject(Value):
    """What `super()` returns in a method of an object or class."""

    receiver: Value
    node: ast.Call
    """The call, which says in which class it is written."""
    namespace: object


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
    result: tuple[Value, ...] = field(default=(), compare=False)
    """What awaiting it returns, if that is known."""


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
class ImportTimeValue(Value):
    """A value that was computed when its module was imported, by a call that gives each process another result."""

    variable: str
    call: str
    """The full name of the call."""
    place: str
    """Where it is made, as file name and line."""


@dataclass(frozen=True)
class Argument(Value):
    """An unknown value that the caller passed."""


class _Key:
    """The key of a collection, which computes its hash once."""

    __slots__ = ("_elements", "_hash")

    def __init__(self, elements: tuple[Hashable, ...]) -> None:
        self._elements = elements
        self._hash = hash(elements)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, _Key) and self._hash == other._hash and self._elements == other._elements


@dataclass(frozen=True)
class ContainerValue(Value):
    """A list, tuple or dictionary with known elements."""

    elements: tuple[Value, ...]
    keys: dict[int, _Key] = field(default_factory=dict[int, _Key], compare=False, repr=False)
    """By depth: what `identity` returned, which for a collection of collections is long."""


@dataclass(frozen=True)
class PartialFunction(Value):
    """A function of the catalogue with some arguments already given, by `functools.partial`."""

    function: Value
    arguments: ArgumentSummary


def identity(value: Value | None, depth: int = 3) -> Hashable:
    """A hashable key that is equal for values that behave alike; used to remember what was evaluated or scanned.

    Functions in the checked source are created again whenever a name is evaluated, so they are told apart by their
    syntax and by what is known about the variables around them.
    """
    if depth == 0 or value is None:
        return type(value).__name__
    if isinstance(value, SourceFunction):
        return ("function", id(value.node), value.scope.key(depth - 1), identity(value.receiver, depth - 1))
    if isinstance(value, SourceClass):
        return ("class", id(value.node))
    if isinstance(value, Instance):
        arguments = tuple((name, identity(each, depth - 1)) for name, each in value.arguments)
        return ("instance", identity(value.cls, depth), value.is_shared, arguments, id(value.held))
    if isinstance(value, ContainerValue):
        if depth not in value.keys:
            value.keys[depth] = _Key(tuple(identity(each, depth - 1) for each in value.elements))
        return value.keys[depth]
    if isinstance(value, SharedObject):
        return ("shared", value.name, tuple(identity(each, depth - 1) for each in value.elements))
    return value


def distinct(values: Iterable[Value]) -> list[Value]:
    """The values without those that are alike."""
    found: dict[Hashable, Value] = {}
    for value in values:
        found.setdefault(identity(value), value)
    return list(found.values())
