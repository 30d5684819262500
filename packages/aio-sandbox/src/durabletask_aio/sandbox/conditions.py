"""The conditions under which some calls are harmful, decidable before and while the call is made.

A condition sees only a summary of the arguments, because that is all that every layer knows: the static analysis has
the syntax, a redirected name has the values, and the monitoring and profiling layers have the count alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Arguments:
    """What is known of a call's arguments."""

    positional: int = 0
    keywords: frozenset[str] = frozenset()
    first_is_none: bool = False
    """The first positional argument is the constant ``None``."""
    is_first_text: bool = False
    """The first positional argument is text or bytes; their hash is salted."""

    @property
    def total(self) -> int:
        return self.positional + len(self.keywords)


UNKNOWN_ARGUMENTS: Final = Arguments(positional=255)
"""For calls like ``f(*args)`` seen from outside: assume that the optional arguments are there and stay silent."""


def of_call(args: tuple[object, ...], kwargs: Mapping[str, object]) -> Arguments:
    """The summary of a call that is being made."""
    return Arguments(
        len(args),
        frozenset(kwargs),
        bool(args) and args[0] is None,
        bool(args) and isinstance(args[0], (str, bytes)),
    )


def _without_arguments(arguments: Arguments) -> bool:
    return arguments.total == 0 or (arguments.total == 1 and arguments.first_is_none)


CONDITIONS: Final[Mapping[str, tuple[Callable[[Arguments], bool], str]]] = {
    "without-arguments": (_without_arguments, "called without an argument"),
    "without-time": (lambda a: a.total < 2, "called without a time"),
    "without-seed": (lambda a: _without_arguments(a) and "x" not in a.keywords, "created without a seed"),
    "without-zone": (lambda a: a.positional < 2 and "tz" not in a.keywords, "called without a zone"),
    "with-argument": (lambda a: a.total > 0 and not a.first_is_none, "called with a time"),
    "of-text": (lambda a: a.is_first_text, "given text or bytes"),
}
"""By name: the predicate, and the words that the documentation uses for it."""


def holds(condition: str | None, arguments: Arguments) -> bool:
    """Whether a call with this condition and these arguments is harmful."""
    return condition is None or CONDITIONS[condition][0](arguments)
