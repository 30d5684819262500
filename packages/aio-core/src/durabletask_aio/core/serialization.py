"""Values that cannot be serialised: which part of a value it is, and what to send instead."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast


class _Serializable:
    """The type of the marker for a value that can be serialised."""


SERIALIZABLE = _Serializable()

SERIALIZABLE_VALUES = "dicts, lists, strings, numbers, dataclasses, or whatever the worker's data converter takes"
"""What can be serialised, for messages."""

_MAX_DEPTH = 10


class UnserializablePart(NamedTuple):
    """The part of a value that cannot be serialised."""

    path: str
    """The way to the part, as `input['orders'][2].due`."""
    value: Any
    """The part, or `SERIALIZABLE` if nothing is wrong with the value."""
    reason: str = ""
    replacement: str = ""
    """What people send in its place, as an expression of `value`; empty if there is no usual form."""

    @property
    def wrong(self) -> str:
        """The part as an expression."""
        return f"{type(self.value).__name__}(...)"

    @property
    def converter_hint(self) -> str:
        """A comment that names the data converter that takes the part, with its extra; empty if there is none."""
        part: object = self.value
        kind = type(part)
        library = "pydantic" if hasattr(kind, "__pydantic_serializer__") else ""
        if hasattr(kind, "__attrs_attrs__") or any(each.__name__ in _CONVERTED for each in kind.__mro__):
            library = "cattrs"
        if not library:
            return ""
        return f"   # or data_converter={library.capitalize()}DataConverter() of durabletask-aio-core[{library}]"


_CONVERTED = {
    *("datetime", "date", "time", "timedelta", "Decimal", "UUID", "bytes", "set", "frozenset", "PurePath"),
}
"""The names of the types that the data converters take; see `converters`, which is not imported for a message."""

_REPLACEMENTS: dict[str, str] = {
    "datetime": "value.isoformat()",
    "date": "value.isoformat()",
    "time": "value.isoformat()",
    "timedelta": "value.total_seconds()",
    "set": "sorted(value)",
    "frozenset": "sorted(value)",
    "UUID": "str(value)",
    "Decimal": "str(value)",
    "bytes": "value.hex()",
    "generator": "list(value)",
}
"""By type name.  (A set in another order would be another input on each replay, hence `sorted`.)"""


def find_unserializable(
    value: Any, path: str, serialize: Callable[[Any], object], _around: tuple[Any, ...] = ()
) -> UnserializablePart:
    """Find what in `value` cannot be serialised.

    Args:
        value: the value that was to be serialised.
        path: the expression that the messages begin with, as `input`.
        serialize: the data converter's function; raises `TypeError`, `ValueError` or `RecursionError`.

    Returns:
        The innermost such part; its `value` is `SERIALIZABLE` if there is none.
    """
    try:
        serialize(value)
    except (TypeError, ValueError, RecursionError):
        pass
    else:
        return UnserializablePart(path, SERIALIZABLE)
    if any(value is outer for outer in _around):
        return UnserializablePart(path, value, "it contains itself")
    if len(_around) < _MAX_DEPTH:
        for step, part in _parts(value):
            found = find_unserializable(part, f"{path}{step}", serialize, (*_around, value))
            if found.value is not SERIALIZABLE:
                return found
    kind = type(value).__name__
    keys = list(cast("dict[object, object]", value)) if isinstance(value, dict) else []
    odd = next((key for key in keys if not isinstance(key, str | int | float | None)), SERIALIZABLE)
    if odd is not SERIALIZABLE:
        return UnserializablePart(path, value, f"it has a key of type {type(odd).__name__!r}", "{str(key): ...}")
    return UnserializablePart(path, value, f"its type is {kind!r}", _REPLACEMENTS.get(kind, ""))


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    """Return the parts of a value, each with the step that leads to it."""
    if isinstance(value, dict):
        items = cast("dict[object, object]", value)
        return [(f"[{key!r}]", part) for key, part in items.items()]
    if isinstance(value, list | tuple):
        several = cast("list[Any]", value)
        return [(f"[{index}]", part) for index, part in enumerate(several)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return [(f".{name}", getattr(value, name)) for name in names if hasattr(value, name)]
    return ()
