"""Results of activities that cannot be serialised: what is wrong with them, and what to return."""

from __future__ import annotations

from typing import Any

from durabletask_aio.core.descriptions import AWAITABLES, call_of, close_if_coroutine, describe_awaitable
from durabletask_aio.core.functions import describe_function
from durabletask_aio.core.serialization import SERIALIZABLE, SERIALIZABLE_VALUES, find_unserializable

_MARK = "_durabletask_aio_unserializable"


def serialize_activity_result(converter: Any, result: Any, name: str, function: Any = None) -> str | None:
    """Serialise the result of an activity.

    Args:
        converter: the data converter.
        result: what the activity returned.
        name: the name under which it is registered.
        function: the function, or `None` if a stub took its place.

    Returns:
        The serialised result, `None` for none.

    Raises:
        TypeError: if it cannot be serialised; with the part of it, the line of the function, and what to return.
    """
    try:
        encoded: str | None = converter.serialize(result)
    except (TypeError, ValueError, RecursionError) as error:
        message = _message(result, converter.serialize, repr(name) if function is None else describe_function(function))
        if message is None:
            raise
        # The type that upstream's converter raises.
        unserializable = TypeError(message)
        setattr(unserializable, _MARK, True)
        failure = unserializable.with_traceback(error.__traceback__)
    else:
        return encoded
    raise failure  # Outside of the except block, or the converter's error would be recorded as its context.


def is_unserializable_result(error: BaseException) -> bool:
    """Whether `error` is one of `serialize_activity_result`, whose traceback has no line of the user's."""
    return isinstance(error, TypeError) and getattr(error, _MARK, False) is True


def _message(result: Any, serialize: Any, activity: str) -> str | None:
    found = find_unserializable(result, "result", serialize)
    if found.value is SERIALIZABLE:
        return None
    if isinstance(found.value, AWAITABLES):
        call = call_of(found.value)
        described = describe_awaitable(found.value)
        close_if_coroutine(found.value)
        return (
            f"{found.path} of activity {activity} is {described} that was never awaited\n"
            f"  wrong: return {call}\n"
            f"  right: return await {call}"
        )
    return (
        f"{found.path} of activity {activity} cannot be serialised: {found.reason}\n"
        f"  wrong: return {found.wrong}\n"
        f"  right: return {found.replacement or SERIALIZABLE_VALUES}{found.converter_hint}"
    )
