"""What CPython has but its documentation, or the oldest Python we support, does not promise; in one place."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeAlias, cast

PositionTuple: TypeAlias = "tuple[int | None, int | None, int | None, int | None]"
"""Line, last line, column, last column; lines from one, columns from zero in bytes."""

HAS_POSITIONS: Final = sys.version_info >= (3, 11)
"""Whether code objects know the columns of their instructions."""

lru_cache_wrapper: Final[type] = type(functools.lru_cache(len))
"""What ``functools.lru_cache`` and ``functools.cache`` return."""


def positions(code: types.CodeType) -> Iterator[PositionTuple]:
    """The position of each instruction; none before Python 3.11."""
    if not HAS_POSITIONS:
        return
    entries: Iterable[PositionTuple] = cast("Any", code).co_positions()
    yield from entries


def position_at(code: types.CodeType, offset: int) -> PositionTuple:
    """The position of the instruction at a byte offset."""
    return next(islice(positions(code), offset // 2, None), (None, None, None, None))


def frame(depth: int) -> types.FrameType | None:
    """The frame ``depth`` levels above the caller's own, or ``None`` if the stack is not that deep."""
    try:
        return sys._getframe(depth + 1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    except ValueError:
        return None


def implementations(dispatcher: Any) -> Iterator[Any]:
    """The registered functions of a ``functools.singledispatch`` function or method."""
    inner: Any = getattr(dispatcher, "dispatcher", dispatcher)
    registry: Any = getattr(inner, "registry", None)
    if isinstance(registry, types.MappingProxyType):
        yield from registry.values()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def cell_content(cell: types.CellType, default: object) -> Any:
    """What a closure's cell holds, or ``default`` while its variable has no value."""
    try:
        return cell.cell_contents
    except ValueError:
        return default


def wrapped_function(method: Any) -> Any:
    """The function inside a bound, static or class method."""
    return method.__func__


def metaclass_call(kind: Any) -> Any:
    """What calling a class runs: its metaclass's ``__call__``."""
    return inspect.getattr_static(type_of(kind), "__call__", None)


def bases(kind: Any) -> tuple[type[Any], ...]:
    """A class and its bases, in the order of attribute look-up."""
    found: tuple[type[Any], ...] = kind.__mro__
    return found


def type_of(value: Any) -> type[Any]:
    """``type(value)``, whose own type is clear to type checkers."""
    kind: type[Any] = type(value)  # pyright: ignore[reportUnknownVariableType]
    return kind


def elements(value: Any) -> list[Any]:
    """The elements of a container whose type is not known any closer."""
    return list(value)


def strings(values: Any) -> tuple[str, ...]:
    """The elements of a constant tuple, as strings."""
    return tuple(map(str, values))


def attributes(kind: Any) -> list[tuple[str, Any]]:
    """What a class's own body defined, by name."""
    namespace = cast("dict[str, Any]", vars(kind))
    return [*namespace.items()]
