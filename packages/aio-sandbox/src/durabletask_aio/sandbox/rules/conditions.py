"""Conditions under which some calls break a rule, such as `datetime.fromtimestamp` without a time zone.

A condition is evaluated on a summary of the arguments, because not every layer knows more: the static analysis has the
syntax and a proxy has the values, but the monitoring and profiling layers have only their number.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class ArgumentSummary:
    """What is known about the arguments of a call."""

    positional: int = 0
    keywords: frozenset[str] = frozenset()
    first_is_none: bool = False
    """The first positional argument is the constant `None`."""
    is_first_text: bool = False
    """The first positional argument is text or bytes, whose hash differs from process to process."""

    @property
    def total(self) -> int:
        return self.positional + len(self.keywords)


MANY_ARGUMENTS: Final = 255
UNKNOWN_ARGUMENTS: Final = ArgumentSummary(positional=MANY_ARGUMENTS)
"""For calls such as `f(*args)`: assumes that all optional arguments are given, so that no condition holds."""


def summary_of_call(args: tuple[object, ...], kwargs: Mapping[str, object]) -> ArgumentSummary:
    """The summary of actual arguments."""
    return ArgumentSummary(
        len(args),
        frozenset(kwargs),
        bool(args) and args[0] is None,
        bool(args) and isinstance(args[0], (str, bytes)),
    )


def summary_of_node(node: ast.Call, first: int = 0) -> ArgumentSummary:
    """The summary of a call's arguments in the syntax, from position `first` on; a starred argument counts as many."""
    given = node.args[first:]
    starred = any(isinstance(argument, ast.Starred) for argument in given)
    open_ended = any(keyword.arg is None for keyword in node.keywords)
    leading = given[0] if given else None
    constant = leading.value if isinstance(leading, ast.Constant) else ...
    return ArgumentSummary(
        MANY_ARGUMENTS if starred or open_ended else len(given),
        frozenset(keyword.arg for keyword in node.keywords if keyword.arg is not None),
        constant is None,
        isinstance(constant, (str, bytes)) or isinstance(leading, ast.JoinedStr),
    )


def unwrap_partial(
    target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The function behind a `functools.partial`, and all arguments that it will be called with."""
    while type(target) is functools.partial:
        args, kwargs = (*target.args, *args), {**target.keywords, **kwargs}
        target = target.func
    return target, args, kwargs


def with_partial(arguments: ArgumentSummary, called: Any) -> ArgumentSummary:
    """`arguments`, preceded by those that `called` holds if it is a `functools.partial`."""
    if type(called) is not functools.partial:
        return arguments
    _function, args, kwargs = unwrap_partial(called, (), {})
    return combined(summary_of_call(args, kwargs), arguments)


def combined(first: ArgumentSummary, then: ArgumentSummary) -> ArgumentSummary:
    """The summary of a call whose first arguments were given earlier, to `functools.partial`."""
    leading = first if first.positional else then
    return ArgumentSummary(
        first.positional + then.positional,
        first.keywords | then.keywords,
        leading.first_is_none,
        leading.is_first_text,
    )


def _without_arguments(arguments: ArgumentSummary) -> bool:
    return arguments.total == 0 or (arguments.total == 1 and arguments.first_is_none)


CONDITIONS: Final[Mapping[str, tuple[Callable[[ArgumentSummary], bool], str]]] = {
    "without-arguments": (_without_arguments, "called without an argument"),
    "without-time": (lambda a: a.total < 2, "called without a time"),
    "without-seed": (lambda a: _without_arguments(a) and "x" not in a.keywords, "created without a seed"),
    "without-zone": (lambda a: a.positional < 2 and "tz" not in a.keywords, "called without a zone"),
    "with-argument": (lambda a: a.total > 0 and not a.first_is_none, "called with a time"),
    "of-text": (lambda a: a.is_first_text, "given text or bytes"),
}
"""By name: the predicate, and its description in the documentation."""


_WITHOUT: Final = "without:"
_WITH: Final = "with:"


def condition_holds(condition: str | None, arguments: ArgumentSummary) -> bool:
    """Whether a call with this condition and these arguments breaks its rule.

    `without:name` and `with:name` are about the keyword `name`; a call whose arguments are not known breaks no rule.
    """
    if condition is None:
        return True
    if condition.startswith(_WITHOUT):
        return condition.removeprefix(_WITHOUT) not in arguments.keywords and arguments.positional < MANY_ARGUMENTS
    if condition.startswith(_WITH):
        return condition.removeprefix(_WITH) in arguments.keywords
    return CONDITIONS[condition][0](arguments)


def description_of(condition: str) -> str:
    """What a condition says, for the documentation; completes a sentence such as "... is not deterministic if"."""
    word, _, keyword = condition.partition(":")
    return f"called {word} `{keyword}=`" if keyword else CONDITIONS[condition][1]


def is_condition(condition: str) -> bool:
    """Whether there is a condition of this name."""
    return condition in CONDITIONS or condition.startswith((_WITHOUT, _WITH))
