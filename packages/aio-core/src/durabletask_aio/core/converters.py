"""`TypedDataConverter`: the JSON form of common types, and what the converters for the libraries have in common.

A converter writes what upstream's `JsonDataConverter` can write in the very same way, so that workflows may change over
to it while instances are running.  What it also writes is described on the page "data" of the documentation; a type
is never written into the payload.  Payloads are read by annotation, with a library: `cattrs_converter`,
`pydantic_converter`.
"""

from __future__ import annotations

import base64
import functools
import json
import types
import typing
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Literal, TypeVar, Union, cast
from uuid import UUID

from durabletask_aio.core._upstream_data import JsonDataConverter, encode_as_upstream, without_legacy_marker
from durabletask_aio.core.errors import AsyncWorkflowError, shown


class PayloadTypeError(AsyncWorkflowError, TypeError, ValueError):
    """A payload does not fit the type that it is to be read as; the cause is the error of the library.

    Attributes:
        expected_type: the type.
        payload: the payload, in JSON.
    """

    def __init__(self, expected_type: Any, payload: str, problem: str) -> None:
        """Create the error for a payload.

        Args:
            expected_type: the type.
            payload: the payload, in JSON.
            problem: what does not fit.
        """
        super().__init__(
            f"a payload cannot be read as {_name_of(expected_type)}: {problem}\n  payload: {shown(payload)}"
        )
        self.expected_type = expected_type
        self.payload = payload


class TypedDataConverter(JsonDataConverter):
    """Reads payloads as the types that functions are annotated with, and writes more types than upstream's converter.

    The base class of the two converters, which differ in the library that they read with.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        """Create a converter; one can serve any number of workers and clients.

        Args:
            lenient: whether a payload that does not fit the type is left as plain data, as upstream's converter does,
                where the default is to raise `PayloadTypeError`.
        """
        self._lenient = lenient
        self._is_supported: Callable[[Any], bool] = cached_by_type(self._find_out_whether_supported)

    def serialize(self, value: Any) -> str | None:
        """Write a value as JSON.

        Args:
            value: the value.

        Returns:
            The JSON; `None` for `None`.  The same value is always written in the same way.

        Raises:
            TypeError: if the value, or a part of it, cannot be written.
            ValueError: if it contains itself.
        """
        if value is None:
            return None
        try:
            return json.dumps(value, default=self._encode)
        except TypeError as error:
            raise TypeError(f"Failed to serialize object of type '{type(value).__name__}' to JSON: {error}") from error

    def deserialize(self, data: str | None, target_type: Any = None) -> Any:
        """Read JSON as a type.

        Args:
            data: the JSON, or `None`.
            target_type: the type; `None` for plain data.

        Returns:
            The value; `None` for no JSON and for `null`.

        Raises:
            PayloadTypeError: if the JSON does not fit the type, unless the converter is lenient.
        """
        if not data or target_type is None or not self._is_supported(target_type):
            return super().deserialize(data, target_type)
        document = without_legacy_marker(data)
        if document is None:
            return None
        try:
            return self._decode(document, target_type)
        except Exception as error:
            if self._lenient:
                return super().deserialize(data)
            raise PayloadTypeError(target_type, data, self._describe(error)) from error

    def coerce(self, value: Any, target_type: Any = None) -> Any:
        """Make a type of plain data.

        Args:
            value: the data, or a value that has the type already.
            target_type: the type; `None` leaves the value as it is.

        Returns:
            The value.

        Raises:
            PayloadTypeError: if the data does not fit the type, unless the converter is lenient.
        """
        if value is None or target_type is None or not self._is_supported(target_type):
            return super().coerce(value, target_type)
        if target_type in type(value).__mro__:  # Not isinstance(), which typed dicts refuse.
            return value
        return self.deserialize(self.serialize(value), target_type)

    def can_reconstruct(self, target_type: Any) -> bool:
        """Tell upstream whether payloads are to be read as a type.

        Args:
            target_type: the annotation of an input or of a result.

        Returns:
            `False` for types that JSON has itself, such as `str` or `list[int]`: such payloads are left as they are.
        """
        return self._is_supported(target_type) or super().can_reconstruct(target_type)

    def _find_out_whether_supported(self, target_type: Any) -> bool:
        if is_json_type(target_type) or callable(getattr(target_type, "from_json", None)):
            return False  # The second is upstream's own way to read a type.
        return self._supports(target_type)

    def _encode(self, value: Any) -> Any:
        """Return what JSON has for a value that it does not have itself; the `default` of `json.dumps`."""
        if writes_itself(value):
            return encode_as_upstream(value)
        if isinstance(value, set | frozenset):
            return self.in_order(cast("set[Any]", value))
        for known, encode in _ENCODERS.items():
            if isinstance(value, known):
                return encode(value)
        return encode_as_upstream(value)

    def in_order(self, values: Iterable[Any]) -> list[Any]:
        """Return the elements of a set by their JSON: the order of a set differs between processes."""
        return sorted(values, key=lambda each: json.dumps(each, default=self._encode))

    def _describe(self, error: Exception) -> str:
        """Say in one line what does not fit, from the error of the library."""
        return f"{type(error).__name__}: {error}"

    @abstractmethod
    def _supports(self, target_type: Any) -> bool:
        """Whether the library can make values of a type."""

    @abstractmethod
    def _decode(self, document: Any, target_type: Any) -> Any:
        """Make a value of plain data, which is not `None`; raises any error if it does not fit."""


def kind_of(value: object) -> type[Any]:
    """Return the type of any value."""
    return type(value)


def writes_itself(value: object) -> bool:
    """Whether a type has upstream's own way to write itself."""
    return callable(getattr(type(value), "to_json", None))


def duration(value: timedelta) -> str:
    """Return a duration as ISO 8601 has it, exactly: `-P1DT0.5S`."""
    sign, value = ("-", -value) if value < timedelta(0) and value != timedelta.min else ("", value)
    if value.days < 0:  # -value would be too large.
        return f"-P{-value.days}D"
    seconds = f"{value.seconds}.{value.microseconds:06}".rstrip("0").rstrip(".")
    return f"{sign}P{value.days}DT{seconds}S"


def base64_text(value: bytes) -> str:
    """Return bytes as URL-safe base64."""
    return base64.urlsafe_b64encode(value).decode("ascii")


_ENCODERS: dict[type[Any], Callable[[Any], Any]] = {
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: duration,
    Decimal: str,
    UUID: str,
    bytes: base64_text,
    PurePath: str,
}
"""The first that fits is used: a datetime is a date."""

_JSON_TYPES: tuple[Any, ...] = (str, int, float, bool, type(None), list, dict, object, Any)
_JSON_CONTAINERS: tuple[Any, ...] = (list, dict, Sequence, Mapping, Union, types.UnionType)


def is_json_type(target_type: Any) -> bool:
    """Whether a type, with all of its arguments, is one that JSON has itself, or one that tells nothing of JSON."""
    if target_type is None or isinstance(target_type, str | TypeVar | typing.ForwardRef):
        return True
    origin = typing.get_origin(target_type)
    if origin is None:
        return any(target_type is each for each in (*_JSON_TYPES, *_JSON_CONTAINERS))
    if origin is Literal or origin is Callable:
        return True
    return any(origin is each for each in _JSON_CONTAINERS) and all(map(is_json_type, typing.get_args(target_type)))


def cached_by_type(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function of a type that remembers its results, also for types that cannot be hashed."""
    cached = functools.lru_cache(maxsize=1024)(function)

    def call(target_type: Any) -> Any:
        try:
            hash(target_type)
        except TypeError:
            return function(target_type)
        return cached(target_type)

    return call


def _name_of(target_type: Any) -> str:
    return (
        target_type.__qualname__
        if isinstance(target_type, type) and not hasattr(target_type, "__args__")
        else str(target_type)
    )
