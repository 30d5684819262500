"""Durations and moments as users give them: what is accepted, and the errors for what is not."""

from __future__ import annotations

import math
from datetime import MAXYEAR, datetime, timedelta
from typing import TYPE_CHECKING, Any

from durabletask_aio.core.descriptions import close_if_coroutine
from durabletask_aio.core.errors import WorkflowValidationError, shown

if TYPE_CHECKING:
    from durabletask_aio.core.execution import Execution


def fire_time(execution: Execution, given: Any, call: str) -> timedelta | datetime:
    """Return the delay or the moment of a timer, for upstream.

    Args:
        execution: names the workflow in errors.
        given: seconds, a `timedelta` or a `datetime`.
        call: the call it was given to, up to this argument.

    Raises:
        OverflowError: if the seconds are more than a `timedelta` holds.
        WorkflowValidationError: for anything else.
    """
    if isinstance(given, timedelta | datetime):
        return given
    if _is_number(given) and math.isfinite(given):
        return timedelta(seconds=given)
    raise execution.usage_error(
        f"a timer takes seconds, a timedelta or a datetime, and not {shown(given)}",
        f"await {call}{shown(given)})",
        f"await {call}1.5) or await {call}timedelta(days=1))",
    )


def timeout_seconds(execution: Execution, awaitable: Any, timeout: Any) -> float | None:
    """Return the `timeout` of `ctx.with_timeout` in seconds; `None` stands for no limit.

    Raises:
        WorkflowValidationError: if it is no duration, or the two arguments are swapped.
    """
    if isinstance(awaitable, int | float | timedelta) and not isinstance(timeout, int | float | timedelta):
        close_if_coroutine(timeout)
        raise execution.usage_error(
            "the arguments of ctx.with_timeout are swapped",
            f"ctx.with_timeout({shown(awaitable)}, operation)",
            f"ctx.with_timeout(operation, {shown(awaitable)})",
        )
    if timeout is None:
        return None
    if isinstance(timeout, timedelta):
        return timeout.total_seconds()
    if _is_number(timeout) and (isinstance(timeout, int) or math.isfinite(timeout)):
        seconds: float = timeout
        return seconds
    close_if_coroutine(awaitable)
    raise execution.usage_error(
        f"the timeout of ctx.with_timeout is in seconds, or a timedelta, and not {shown(timeout)}",
        f"ctx.with_timeout(operation, {shown(timeout)})",
        "ctx.with_timeout(operation, 30) or ctx.with_timeout(operation, timedelta(minutes=5)); None waits forever",
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def timer_too_long(execution: Execution, delay: Any, call: str) -> WorkflowValidationError:
    """Return the error for a timer that would fire later than a `datetime` can say.

    Args:
        execution: names the workflow.
        delay: the delay as it was given.
        call: the wrong call, with `{}` where the delay belongs.

    Returns:
        The error, to be raised by the caller.
    """
    return execution.usage_error(
        f"a timer of {delay!r} would fire after the year {MAXYEAR}",
        call.format(repr(delay)),
        f"{call.format(None)}, if there is to be no limit"
        if "timeout" in call
        else "await ctx.wait_for_external_event('name'), if it is to wait until an event ends it",
    )


def in_words(seconds: float) -> str:
    """Return a duration for a message: `90 seconds`, `7200 seconds (2:00:00)`."""
    exact = f"{seconds:.15g} seconds"
    return f"{exact} ({timedelta(seconds=seconds)})" if seconds >= 3600 else exact
