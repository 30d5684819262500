"""What can become of a scenario, and the checks that a scenario makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TypeVar

import grpc

_T = TypeVar("_T")

_MAX_SHOWN = 300
"""Characters of a value that a detail shows."""

_MAX_DETAIL = 1000
"""Characters of a detail."""


class Outcome(Enum):
    """What became of a scenario; the value is the text in tables and documents."""

    WORKS = "works"
    """The engine did what the scenario asks for."""

    REFUSED = "refused clearly"
    """The engine answered that it does not do that."""

    WRONG = "wrong"
    """The engine answered something else."""

    HANGS = "hangs"
    """What should have happened did not happen within the time limit."""

    LOST = "lost"
    """Something that the engine had accepted is gone."""

    DOUBLED = "doubled"
    """Something happened more often than it was asked for."""

    DIED = "died"
    """The process of the scenario ended without an answer."""

    NOT_RUN = "not run"
    """The scenario needs what this run does not have."""


class UnexpectedOutcome(Exception):
    """The engine did not do what the scenario asks for."""

    outcome = Outcome.WRONG


class Hangs(UnexpectedOutcome):
    """What should have happened did not happen in time."""

    outcome = Outcome.HANGS


class Lost(UnexpectedOutcome):
    """Something that the engine had accepted is gone."""

    outcome = Outcome.LOST


class Doubled(UnexpectedOutcome):
    """Something happened more often than it was asked for."""

    outcome = Outcome.DOUBLED


class Refused(UnexpectedOutcome):
    """The engine answered that it does not do that."""

    outcome = Outcome.REFUSED


def check(condition: bool, detail: str) -> None:
    """Fail the scenario unless a condition holds.

    Args:
        condition: What must hold.
        detail: What was found instead.

    Raises:
        UnexpectedOutcome: The condition does not hold.
    """
    if not condition:
        raise UnexpectedOutcome(detail)


def check_equal(found: object, expected: object, what: str = "result") -> None:
    """Fail the scenario unless two values are equal.

    Args:
        found: What the engine delivered.
        expected: What it should have delivered.
        what: A name for the value.

    Raises:
        UnexpectedOutcome: The values differ.
    """
    if found != expected:
        raise UnexpectedOutcome(f"{what}: expected {_shown(expected)}, got {_shown(found)}")


def check_delivered(found: Sequence[_T], expected: Sequence[_T], what: str = "delivered") -> None:
    """Fail the scenario unless every item arrived, once and in order.

    Args:
        found: What arrived.
        expected: What was sent.
        what: A name for the items.

    Raises:
        Lost: An item is missing.
        Doubled: An item arrived more than once.
        UnexpectedOutcome: The items arrived in another order.
    """
    missing = Counter(expected) - Counter(found)
    if missing:
        raise Lost(f"{what}: {sum(missing.values())} of {len(expected)} missing, such as {_shown(next(iter(missing)))}")
    check_once(found, expected, what)
    check_equal(list(found), list(expected), what)


def check_once(found: Sequence[_T], expected: Sequence[_T], what: str = "runs") -> None:
    """Fail the scenario if something happened that should not have happened, or happened again.

    Args:
        found: What happened.
        expected: What should have happened.
        what: A name for the items.

    Raises:
        Doubled: Something happened more often than it should have.
    """
    again = Counter(found) - Counter(expected)
    if again:
        raise Doubled(f"{what}: {sum(again.values())} more than expected, such as {_shown(next(iter(again)))}")


def refusal(error: grpc.RpcError) -> grpc.StatusCode | None:
    """Return the status code of an engine's clear refusal, `None` for every other error of a call.

    Args:
        error: The error of a call.

    Returns:
        The code, if it says that the request cannot be done or is not allowed.
    """
    code = status_code(error)
    return code if code in _REFUSALS else None


_REFUSALS = frozenset(
    {
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


def status_code(error: grpc.RpcError) -> grpc.StatusCode:
    """Return the status code of an error that a call raised; gRPC's type of such errors does not declare it.

    Args:
        error: The error.

    Returns:
        The code; `UNKNOWN` if it has none.
    """
    read: Callable[[], object] = getattr(error, "code", lambda: None)
    code = read()
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def classify(error: BaseException) -> tuple[Outcome, str]:
    """Say what an exception that left a scenario means.

    Args:
        error: The exception.

    Returns:
        The outcome and the detail for the table.
    """
    if isinstance(error, UnexpectedOutcome):
        return error.outcome, _on_one_line(str(error))
    if isinstance(error, grpc.RpcError):
        code = status_code(error)
        read: Callable[[], object] = getattr(error, "details", lambda: error)
        outcome = Outcome.WRONG if refusal(error) is None else Outcome.REFUSED
        return outcome, f"{code.name}: {_on_one_line(str(read()))}"
    if isinstance(error, TimeoutError):
        return Outcome.HANGS, _on_one_line(str(error)) or "timed out"
    return Outcome.WRONG, f"{type(error).__name__}: {_on_one_line(str(error))}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}... ({len(text)} characters)"


def _on_one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_DETAIL else f"{line[:_MAX_DETAIL]}..."
