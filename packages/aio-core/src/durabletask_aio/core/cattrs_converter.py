"""`CattrsDataConverter`: payloads are read with cattrs, the extra `cattrs`."""

from __future__ import annotations

import base64
import enum
import json
import pathlib
import re
import types
import typing
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Union
from uuid import UUID

import attrs
import cattrs

from durabletask_aio.core.converters import TypedDataConverter, is_json_type, kind_of, writes_itself

_DURATION = re.compile(r"(?P<sign>[+-]?)P(?:(?P<days>\d+)D)?(?:T(?:(?P<seconds>\d+)(?:\.(?P<fraction>\d{1,6}))?S)?)?")


class CattrsDataConverter(TypedDataConverter):
    """A data converter for dataclasses, attrs classes and the types of the standard library, with cattrs.

    For `data_converter=` of workers, clients and test environments; all of a hub need the same.  The page "Data" of the
    documentation has the types and their JSON form.

    Example:
        ```python
        converter = CattrsDataConverter()
        worker = TaskHubGrpcWorker(data_converter=converter)
        client = TaskHubGrpcClient(data_converter=converter)
        ```

    Args:
        lenient: whether a payload that does not fit the type is left as plain data, as upstream's converter does, where
            the default is to raise `PayloadTypeError`.
    """

    __module__ = "durabletask.aio.data"

    def __init__(self, *, lenient: bool = False) -> None:
        super().__init__(lenient=lenient)
        self._cattrs = cattrs.Converter(detailed_validation=False)
        for kind, structure in _STRUCTURES.items():
            self._cattrs.register_structure_hook(kind, structure)
        self._cattrs.register_structure_hook_func(_is_enum, self._structure_enum)
        self._cattrs.register_structure_hook_func(_is_union, self._structure_union)
        self._cattrs.register_structure_hook_func(_is_named_tuple, self._structure_named_tuple)
        self._cattrs.register_structure_hook_func(_reads_itself, super().coerce)

    def _encode(self, value: Any) -> Any:
        kind = kind_of(value)
        if attrs.has(kind) and not writes_itself(value):
            return {field.name: getattr(value, field.name) for field in attrs.fields(kind)}
        return super()._encode(value)

    def _supports(self, target_type: Any) -> bool:
        try:
            self._cattrs.get_structure_hook(target_type)
        except Exception:  # No hook, or an annotation that cannot be resolved.
            return False
        return True

    def _decode(self, document: Any, target_type: Any) -> Any:
        return self._cattrs.structure(document, target_type)

    def _structure_enum(self, value: Any, kind: Any) -> Any:
        """Find a member by the JSON of its value, since JSON has no tuples, for example."""
        wanted = json.dumps(value)
        for member in kind:
            if self.serialize(member.value) == wanted or (value is None and member.value is None):
                return member
        return kind(value)

    def _structure_named_tuple(self, value: Any, kind: Any) -> Any:
        """Make a named tuple of a list; cattrs does not resolve annotations that are strings."""
        hints = typing.get_type_hints(kind)
        names = kind._fields[: len(value)]
        return kind(*map(self._cattrs.structure, value, [hints.get(name, Any) for name in names]))

    def _structure_union(self, value: Any, union: Any) -> Any:
        """Return what the first type of a union makes of the value whose JSON then is the same; else of any type."""
        if value is None:
            return None
        wanted, candidates = json.dumps(value), list[Any]()
        for member in typing.get_args(union):
            if member is type(None):
                continue
            try:
                candidate = self._cattrs.structure(value, member)
                if self.serialize(candidate) == wanted:
                    return candidate
            except Exception:
                continue
            if not is_json_type(member) or (member is float and type(value) is int):
                candidates.append(candidate)
        if not candidates:
            raise ValueError(f"{value!r} is none of {union}")
        return candidates[0]


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "_fields") and issubclass(kind, tuple)


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (Union, types.UnionType)


def _reads_itself(kind: Any) -> bool:
    return isinstance(kind, type) and callable(getattr(kind, "from_json", None))


def _datetime(value: str, kind: Any) -> datetime:
    return datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith("Z") else value)


def _timedelta(value: Any, kind: Any) -> timedelta:
    if isinstance(value, int | float):
        return timedelta(seconds=value)
    found = _DURATION.fullmatch(value)
    if found is None:
        raise ValueError(f"{value!r} is no duration, such as 'P1DT0.5S'")
    parts = {name: int(found[name] or 0) for name in ("days", "seconds")}
    microseconds = int((found["fraction"] or "").ljust(6, "0"))
    sign = -1 if found["sign"] == "-" else 1
    days, seconds = sign * parts["days"], sign * parts["seconds"]
    return timedelta(days=days, seconds=seconds, microseconds=sign * microseconds)


def _date(value: str, kind: Any) -> date:
    return date.fromisoformat(value)


def _time(value: str, kind: Any) -> time:
    return time.fromisoformat(value)


def _decimal(value: Any, kind: Any) -> Decimal:
    return Decimal(str(value))


def _bytes(value: str, kind: Any) -> bytes:
    return base64.b64decode(value, altchars=b"-_", validate=True)


def _by_constructor(value: str, kind: Any) -> Any:
    return kind(value)


_STRUCTURES: dict[Any, Callable[[Any, Any], Any]] = {
    datetime: _datetime,
    date: _date,
    time: _time,
    timedelta: _timedelta,
    Decimal: _decimal,
    UUID: _by_constructor,
    bytes: _bytes,
    pathlib.Path: _by_constructor,
    pathlib.PurePath: _by_constructor,
    pathlib.PurePosixPath: _by_constructor,
    pathlib.PureWindowsPath: _by_constructor,
}
