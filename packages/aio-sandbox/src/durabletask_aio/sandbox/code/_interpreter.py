"""Access to details of CPython that its documentation, or the oldest supported Python, does not guarantee."""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeAlias, cast

PositionTuple: TypeAlias = "tuple[int | None, int | None, int | None, int | None]"
"""Line, last line, column, last column. Lines count from one, columns are byte offsets from zero."""

HAS_POSITIONS: Final = sys.version_info >= (3, 11)
"""Whether code objects know the columns of their instructions."""

lru_cache_wrapper: Final[type] = type(functools.lru_cache(len))
"""The type of what `functools.lru_cache` and `functools.cache` return."""


def positions(code: types.CodeType) -> Iterator[PositionTuple]:
    """The position of each instruction; nothing before Python 3.11."""
    if not HAS_POSITIONS:
        return
    entries: Iterable[PositionTuple] = cast("Any", code).co_positions()
    yield from entries


def position_at(code: types.CodeType, offset: int) -> PositionTuple:
    """The position of the instruction at a byte offset."""
    return next(islice(positions(code), offset // 2, None), (None, None, None, None))


def frame(depth: int) -> types.FrameType | None:
    """The frame `depth` levels above the caller's own, or `None` if the stack is not that deep."""
    try:
        return sys._getframe(depth + 1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    except ValueError:
        return None


def entered_managers(suspended: Any, suspended_frame: types.FrameType | None) -> Iterator[Any]:
    """The context managers of the `with` blocks in which a coroutine or generator is suspended.

    CPython keeps the bound `__exit__` of each on the stack of values, which the garbage collector sees: on 3.10 that of
    the frame, later that of the coroutine.
    """
    for value in gc.get_referents(suspended_frame if not HAS_POSITIONS else suspended):
        if isinstance(value, (types.MethodType, types.BuiltinMethodType)) and value.__name__ == "__exit__":
            yield value.__self__


def inner_managers(manager: Any) -> Iterator[Any]:
    """The managers that are entered inside of one of `contextlib`: by its generator, or on its stack."""
    generator = getattr(manager, "gen", None)
    if isinstance(generator, types.GeneratorType):
        yield from entered_managers(generator, generator.gi_frame)
    if isinstance(manager, contextlib.ExitStack):
        callbacks: Any = getattr(cast("Any", manager), "_exit_callbacks", ())
        for _is_sync, callback in list(callbacks):
            if isinstance(callback, (types.MethodType, types.BuiltinMethodType)):
                yield callback.__self__


def implementations(dispatcher: Any) -> Iterator[Any]:
    """The registered functions of a `functools.singledispatch` function or method."""
    inner: Any = getattr(dispatcher, "dispatcher", dispatcher)
    registry: Any = getattr(inner, "registry", None)
    if isinstance(registry, types.MappingProxyType):
        yield from registry.values()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def cell_content(cell: types.CellType, default: object) -> Any:
    """The content of a closure's cell, or `default` while its variable is unbound."""
    try:
        return cell.cell_contents
    except ValueError:
        return default


def wrapped_function(method: Any) -> Any:
    """The function inside a bound, static or class method."""
    return method.__func__


def metaclass_call(kind: Any) -> Any:
    """What calling a class runs: the `__call__` of its metaclass."""
    return inspect.getattr_static(type_of(kind), "__call__", None)


def bases(kind: Any) -> tuple[type[Any], ...]:
    """A class and its bases, in the order of attribute look-up."""
    found: tuple[type[Any], ...] = kind.__mro__
    return found


def type_of(value: Any) -> type[Any]:
    """`type(value)`, typed so that type checkers accept it for values of unknown type."""
    kind: type[Any] = type(value)  # pyright: ignore[reportUnknownVariableType]
    return kind


def elements(value: Any) -> list[Any]:
    """The elements of a container of unknown type."""
    return list(value)


def strings(values: Any) -> tuple[str, ...]:
    """The elements of a constant tuple, as strings."""
    return tuple(map(str, values))


def attributes(kind: Any) -> list[tuple[str, Any]]:
    """The names and values that a class's own body defined."""
    namespace = cast("dict[str, Any]", vars(kind))
    return [*namespace.items()]
