"""What an expression may stand for, as far as the analysis can tell: a small abstract domain.

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
    """Base of everything that an expression may stand for."""

    __slots__ = ()


@dataclass(frozen=True)
class ObjectValue(Value):
    """A live object, compared by identity.  ``receiver`` is what a method was taken from."""

    value: object = field(compare=False)
    identity: int
    receiver: Value | None = field(default=None, compare=False)

    @staticmethod
    def of(value: object, receiver: Value | None = None) -> ObjectValue:
        return ObjectValue(value, id(value), receiver)


@dataclass(frozen=True)
class ExternalName(Value):
    """Something outside of the checked source, by its full name: ``datetime.datetime.now``."""

    name: str


@dataclass(frozen=True, eq=False)
class SourceFunction(Value):
    """A function or lambda in the checked source, with the scope around it."""

    node: FunctionNode
    scope: Scope
    receiver: Value | None = None


@dataclass(frozen=True, eq=False)
class SourceClass(Value):
    """A class in the checked source, with the scope around it."""

    node: ast.ClassDef
    scope: Scope


@dataclass(frozen=True)
class Instance(Value):
    """Some object of a class."""

    cls: Value
    is_shared: bool = False
    """Whether a variable outside of all functions holds it."""


@dataclass(frozen=True)
class ContextValue(Value):
    """The workflow's context."""


@dataclass(frozen=True)
class ContextMethod(Value):
    """A method of the workflow's context."""

    name: str


@dataclass(frozen=True)
class UnawaitedValue(Value):
    """A durable operation or coroutine that somebody has to await."""

    description: str


@dataclass(frozen=True)
class UnorderedValue(Value):
    """A set, or a sequence whose order is that of a set."""

    is_set: bool
    is_certain: bool
    """Whether its elements are known to be ordered differently in each process (text, as opposed to numbers)."""
    is_element: bool = False
    """Whether it is not a sequence at all, but an element that was taken because it came first."""


@dataclass(frozen=True)
class SharedObject(Value):
    """An object that a variable outside of all functions holds; ``kind`` says what it is, in words."""

    name: str
    kind: str
    is_random: bool = False
    is_iterator: bool = False
    elements: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Argument(Value):
    """Something that is not known, except that the caller gave it."""


@dataclass(frozen=True)
class ContainerValue(Value):
    """A list, tuple or dictionary whose elements are known."""

    elements: tuple[Value, ...]


@dataclass(frozen=True)
class PartialFunction(Value):
    """A function that is looked for, with some of its arguments, from ``functools.partial``."""

    function: Value
    arguments: ArgumentSummary
