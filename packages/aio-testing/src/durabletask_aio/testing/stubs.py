"""Stubs of activities: outcomes that a test chooses, and the record of every activity call."""

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
"""An outcome in the `sequence` of a stub: the call never completes."""

NOTHING: Final = object()
"""The default of `returns`, since `None` is a possible result."""


@dataclass
class ActivityCall:
    """One execution of an activity in a [`WorkflowEnvironment`][durabletask.aio.testing.WorkflowEnvironment].

    Stubbed and real activities are recorded alike; each attempt of a retried activity is a call of its own.
    """

    name: str
    """The name under which the activity was called."""

    input: Any
    """The input as plain data: what the data converter reads back from the encoded input without a type.

    Of a step that a stub replaces: the list of its arguments.
    """

    instance_id: str
    """The instance that called it."""

    task_id: int
    """The number of the step in the history of the instance."""

    at: datetime
    """When it started on the environment's clock; aware, UTC."""

    tags: Mapping[str, str]
    """The tags of the call, metadata included."""

    result: Any = None
    """What it returned, `None` until then."""

    error: BaseException | None = None
    """What it raised, if it failed."""

    is_done: bool = False
    """Whether it has returned or raised."""


class StubExhaustedError(AssertionError):
    """A stub was called more often than its `sequence` has outcomes.

    The activity fails with this error, so its workflow sees it as a failed activity.
    """


class Stub:
    """Takes the place of an activity.

    Made by [`WorkflowEnvironment.stub`][durabletask.aio.testing.WorkflowEnvironment.stub], not directly.

    Attributes:
        name: the name of the activity.
        delay: how long each call takes on the environment's clock.
        function: the function that was given as `calls`, else `None`; its annotation is the type of the input.
        calls: the calls so far, oldest first.
    """

    def __init__(
        self,
        name: str,
        outcome: Callable[[Any, Any], Any],
        delay: timedelta,
        function: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self.name = name
        self.delay = delay
        self.function = function
        self.replacement: Callable[..., Any] | None = None
        """What was given as `calls`, which a step calls with its own arguments."""
        self.calls: list[ActivityCall] = []
        self._outcome = outcome

    def answer(self, context: Any, value: Any) -> Any:
        """Produce the outcome of the next call.

        Args:
            context: the activity context of the call.
            value: the input of the call.

        Returns:
            The result, a coroutine that returns it, or [`NEVER`][durabletask.aio.testing.NEVER].

        Raises:
            StubExhaustedError: if there is no outcome left.
            BaseException: the error that the stub was made to raise.
        """
        return self._outcome(context, value)

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
    """Make a stub; the parameters are those of `WorkflowEnvironment.stub`."""
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
    pause = _to_timedelta(name, delay)
    if calls is not None:
        if not callable(calls):
            raise TypeError(f"calls= of the stub for {name!r} takes a function, not {calls!r}; for a value: returns=")
        function = _with_activity_signature(calls)
        stub = Stub(name, function, pause, function)
        stub.replacement = calls
        return stub
    if sequence is not None:
        return Stub(name, _next_of(name, sequence), pause)
    if raises is not None and not _is_exception(raises):
        raise TypeError(f"raises= of the stub for {name!r} takes an exception, not {raises!r}; for a value: returns=")
    outcome = raises if raises is not None else NEVER if never else None if returns is NOTHING else returns
    return Stub(name, lambda context, value: _return_or_raise(outcome), pause)


def _to_timedelta(name: str, delay: timedelta | float) -> timedelta:
    try:
        pause = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
    except TypeError:
        raise TypeError(f"delay= of the stub for {name!r} takes seconds or a timedelta, not {delay!r}") from None
    if pause < timedelta(0):
        raise ValueError(f"delay= of the stub for {name!r} is negative, and time does not go backwards: {delay!r}")
    return pause


def _with_activity_signature(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """Adapt a function of the context and the input, of the input alone, or of nothing, to the first of these."""
    parameters = inspect.signature(function).parameters.values()
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if any(each.kind is each.VAR_POSITIONAL for each in parameters) or len(positional) >= 2:
        return function
    if positional:

        def with_input(context: Any, value: Any) -> Any:
            return function(value)

        with_input.__annotations__["value"] = _annotation(function, positional[0])
        return with_input
    return lambda context, value: function()


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    is_object = not (inspect.isroutine(function) or inspect.isclass(function))
    try:
        return get_type_hints(type(function).__call__ if is_object else function).get(parameter.name, Any)
    except Exception:  # Evaluating annotations fails for names that only a type checker imports.
        return Any


def _next_of(name: str, outcomes: Iterable[Any]) -> Callable[[Any, Any], Any]:
    # A string or a mapping would give its letters or keys as outcomes, a set its items in no defined order.
    given = cast("object", outcomes)
    if isinstance(given, str | bytes | Mapping | AbstractSet) or not isinstance(given, Iterable):
        raise TypeError(f"sequence= of the stub for {name!r} takes a list of outcomes, one a call, not {outcomes!r}")
    remaining: Iterator[Any] = iter(outcomes)
    used = 0

    def next_outcome(context: Any, value: Any) -> Any:
        nonlocal used
        for outcome in remaining:
            used += 1
            return _return_or_raise(outcome)
        raise StubExhaustedError(
            f"the stub for {name!r} has {used} outcomes and was called once more; "
            "add outcomes to its sequence, or stub it again"
        )

    return next_outcome


def _is_exception(outcome: Any) -> bool:
    return isinstance(outcome, BaseException) or (inspect.isclass(outcome) and issubclass(outcome, BaseException))


def _return_or_raise(outcome: Any) -> Any:
    if _is_exception(outcome):
        raise outcome
    return outcome
