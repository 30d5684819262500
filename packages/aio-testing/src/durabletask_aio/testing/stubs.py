"""Activities that a test answers itself, and the record of all that were called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast, get_type_hints


class _Never:
    def __repr__(self) -> str:
        return "NEVER"


NEVER: Final = _Never()
"""In a sequence of outcomes: this call gets no answer."""

NOTHING: Final = object()
"""No value was given; ``None`` would be one."""


@dataclass
class ActivityCall:
    """One call of one activity, stubbed or not."""

    name: str
    input: Any
    """As the workflow passed it, read back from its encoded form: plain data, no dataclasses."""

    instance_id: str
    task_id: int
    at: datetime
    """When it started, on the environment's clock."""

    tags: Mapping[str, str]
    result: Any = None
    error: BaseException | None = None
    is_done: bool = False


class StubExhaustedError(AssertionError):
    """A stub was called more often than it has outcomes."""


class Stub:
    """What an activity does in a test; made by :meth:`WorkflowEnvironment.stub`."""

    def __init__(
        self,
        name: str,
        answer: Callable[[Any, Any], Any],
        delay: timedelta,
        function: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self.name = name
        self.delay = delay
        self.function = function
        """The test's own, as an activity: its annotation says of which type it wants the input."""
        self.calls: list[ActivityCall] = []
        """The calls so far, oldest first."""
        self._answer = answer

    def answer(self, context: Any, value: Any) -> Any:
        """The outcome of the next call: a value, an awaitable of one, :data:`NEVER`; or it raises."""
        return self._answer(context, value)

    def __repr__(self) -> str:
        return f"<Stub of {self.name!r}: {len(self.calls)} calls>"


def make_stub(
    name: str,
    *,
    returns: Any = NOTHING,
    raises: BaseException | type[BaseException] | None = None,
    calls: Callable[..., Any] | None = None,
    sequence: Iterable[Any] | None = None,
    never: bool = False,
    delay: timedelta | float = 0,
) -> Stub:
    """See :meth:`WorkflowEnvironment.stub`."""
    chosen = {
        "returns": returns is not NOTHING,
        "raises": raises is not None,
        "calls": calls is not None,
        "sequence": sequence is not None,
        "never": never,
    }
    given = [keyword for keyword, is_given in chosen.items() if is_given]
    if len(given) > 1:
        raise TypeError(f"a stub does one thing; {' and '.join(given)} were given for {name!r}")
    if not given and not delay:
        raise TypeError(
            f"say what the stub for {name!r} does: returns=value, raises=error, calls=function, sequence=[...], "
            "never=True or delay=timedelta(...)"
        )
    pause = _pause(name, delay)
    if calls is not None:
        if not callable(calls):
            raise TypeError(f"calls= of the stub for {name!r} takes a function, not {calls!r}; for a value: returns=")
        function = _fitting(calls)
        return Stub(name, function, pause, function)
    if sequence is not None:
        return Stub(name, _one_by_one(name, sequence), pause)
    if raises is not None and not _is_error(raises):
        raise TypeError(f"raises= of the stub for {name!r} takes an exception, not {raises!r}; for a value: returns=")
    outcome = raises if raises is not None else NEVER if never else None if returns is NOTHING else returns
    return Stub(name, lambda context, value: _play(outcome), pause)


def _pause(name: str, delay: timedelta | float) -> timedelta:
    try:
        pause = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
    except TypeError:
        raise TypeError(f"delay= of the stub for {name!r} takes seconds or a timedelta, not {delay!r}") from None
    if pause < timedelta(0):
        raise ValueError(f"delay= of the stub for {name!r} is negative, and time does not go backwards: {delay!r}")
    return pause


def _fitting(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """Accept functions of the context and the input, as activities are, of the input alone, or of nothing."""
    parameters = inspect.signature(function).parameters.values()
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if any(each.kind is each.VAR_POSITIONAL for each in parameters) or len(positional) >= 2:
        return function
    if positional:

        def of_the_input(context: Any, value: Any) -> Any:
            return function(value)

        of_the_input.__annotations__["value"] = _annotation(function, positional[0])
        return of_the_input
    return lambda context, value: function()


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    is_object = not (inspect.isroutine(function) or inspect.isclass(function))
    try:
        return get_type_hints(type(function).__call__ if is_object else function).get(parameter.name, Any)
    except Exception:  # annotations are evaluated for this, and some are meant for type checkers only
        return Any


def _one_by_one(name: str, outcomes: Iterable[Any]) -> Callable[[Any, Any], Any]:
    # Texts and mappings would be played letter by letter and key by key, sets in any order.
    given = cast("object", outcomes)
    if isinstance(given, str | bytes | Mapping | AbstractSet) or not isinstance(given, Iterable):
        raise TypeError(f"sequence= of the stub for {name!r} takes a list of outcomes, one a call, not {outcomes!r}")
    left: Iterator[Any] = iter(outcomes)
    played = 0

    def answer(context: Any, value: Any) -> Any:
        nonlocal played
        for outcome in left:
            played += 1
            return _play(outcome)
        raise StubExhaustedError(
            f"the stub for {name!r} has {played} outcomes and was called once more; "
            "add outcomes to its sequence, or stub it again"
        )

    return answer


def _is_error(outcome: Any) -> bool:
    return isinstance(outcome, BaseException) or (inspect.isclass(outcome) and issubclass(outcome, BaseException))


def _play(outcome: Any) -> Any:
    if _is_error(outcome):
        raise outcome
    return outcome
