"""The functions that a workflow function calls, read from objects and bytecode; no source is needed.

The result is coarse; what the analysis finds in the source is added to it. A function that is only mentioned is not
followed, since `ctx.call_activity(charge)` mentions an activity.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any, Final, cast

from durabletask_aio.sandbox.code import _interpreter, bytecode
from durabletask_aio.sandbox.rules.ownership import OWNERSHIP

_BUILTINS: Final = vars(builtins)
_ELEMENTS: Final = 50
"""Number of elements of a container that are followed."""


def functions_of(target: Any) -> Iterator[types.FunctionType]:
    """The plain functions behind a callable: through partials, methods, `__wrapped__`, descriptors and `__call__`."""
    seen: set[int] = set()
    queue: list[Any] = [target]
    while queue:
        current = queue.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, types.FunctionType):
            yield current
        queue.extend(_behind(current))


def _behind(value: Any) -> Iterator[Any]:
    if isinstance(value, types.FunctionType):
        wrapped = vars(value).get("__wrapped__")
        if wrapped is not None:
            yield wrapped
        yield from _interpreter.implementations(value)
    elif isinstance(value, (functools.partial, functools.partialmethod, functools.cached_property)):
        yield value.func  # pyright: ignore[reportUnknownMemberType]
    elif isinstance(value, (types.MethodType, staticmethod, classmethod)):
        yield _interpreter.wrapped_function(value)
    elif isinstance(value, property):
        yield from filter(None, (value.fget, value.fset))
    elif isinstance(value, functools.singledispatchmethod):
        yield from _interpreter.implementations(value)
    elif isinstance(value, _interpreter.lru_cache_wrapper):
        yield getattr(value, "__wrapped__", None)
    else:
        yield from _behind_class(value)


def _behind_class(value: Any) -> Iterator[Any]:
    if isinstance(value, type):
        yield _interpreter.metaclass_call(value)
        if _is_followed_class(value):
            # Creating an instance runs these; other methods are found where they are called.
            for kind in _interpreter.bases(value):
                yield from (vars(kind)[name] for name in _CREATION if name in vars(kind))
    elif _is_followed_class(_interpreter.type_of(value)):
        call: Any = inspect.getattr_static(_interpreter.type_of(value), "__call__", None)
        if call is not None:
            yield call


_CREATION: Final = ("__new__", "__init__", "__post_init__")


def _is_followed_class(kind: type) -> bool:
    return any(is_followed(value) for value in vars(kind).values()) or any(
        is_followed(function) for _name, _aliases, _position, function in factories_of(kind)
    )


def factories_of(kind: type[Any]) -> list[tuple[str, frozenset[str], int, Any]]:
    """The functions that provide missing fields, in classes of dataclasses, attrs and pydantic.

    For each: the name of the field, its aliases, its position among the arguments, and the function. pydantic calls
    them from compiled code, so they are visible on the class only.
    """
    fields: list[tuple[str, Any]] = []
    for attribute in _FIELDS:
        held = _held(kind, attribute)
        if attribute == "__dataclass_fields__" and isinstance(held, dict):
            # `__dataclass_fields__` also contains class variables, which `dataclasses.fields()` leaves out.
            fields = [(each.name, each) for each in dataclasses.fields(kind)]
        elif isinstance(held, dict):
            fields = [*cast("dict[str, Any]", held).items()]
        elif isinstance(held, tuple):
            fields = [(each.name, each) for each in _interpreter.elements(held)]
        if fields:
            break
    found: list[tuple[str, frozenset[str], int, Any]] = []
    for position, (name, each) in enumerate(fields):
        default = getattr(each, "default", None)
        function = getattr(each, "default_factory", None) or getattr(default, "factory", None)
        if callable(function):
            aliases = (getattr(each, "alias", None), getattr(each, "validation_alias", None))
            found.append((name, frozenset(given for given in aliases if isinstance(given, str)), position, function))
    return found


def _held(kind: type[Any], attribute: str) -> Any:
    """The attribute of a class as stored. `inspect.getattr_static` would take half the time of a registration."""
    return next((vars(base)[attribute] for base in kind.__mro__ if attribute in vars(base)), None)


_FIELDS: Final = ("__dataclass_fields__", "__pydantic_fields__", "__attrs_attrs__")


def methods_of(kind: type[Any]) -> Iterator[types.FunctionType]:
    """All functions in the followed part of a class, since operators, `len()` and the like call methods implicitly.

    `__del__` is left out: it runs whenever the collector decides, and must not raise.
    """
    for base in _interpreter.bases(kind):
        for name, value in _interpreter.attributes(base):
            if name == "__del__" or isinstance(value, type):
                continue
            yield from (each for each in functions_of(value) if is_followed(each))
    for _name, _aliases, _position, made in factories_of(kind):
        yield from (each for each in functions_of(made) if is_followed(each))


def is_followed(value: object) -> bool:
    """Whether `value` is a Python function of the user's own, or of a followed package."""
    return isinstance(value, types.FunctionType) and OWNERSHIP.is_followed(value.__code__.co_filename)


def reachable(target: Any) -> list[types.FunctionType]:
    """The functions of followed code that calling `target` may run, each once, nearest first."""
    found: dict[int, types.FunctionType] = {}
    queue: list[Any] = [target]
    while queue:
        current = queue.pop(0)
        functions = list(functions_of(current))
        if isinstance(current, type) and _is_followed_class(current):
            functions += [*methods_of(current), *methods_of(type(current))]
        for function in functions:
            if id(function) in found or not is_followed(function):
                continue
            found[id(function)] = function
            queue.extend(_called_by(function))
    return list(found.values())


def _called_by(function: types.FunctionType) -> Iterator[Any]:
    for code in codes_of(function.__code__):
        for chain in bytecode.global_chains(code):
            value = function.__globals__.get(chain.name, _BUILTINS.get(chain.name))
            for depth, is_called in enumerate(chain.called):
                if depth > 0:
                    if not isinstance(value, (types.ModuleType, type)) and not _is_followed_class(
                        _interpreter.type_of(value)
                    ):
                        break
                    owner, value = value, inspect.getattr_static(value, chain.attributes[depth - 1], None)
                    if value is None and isinstance(owner, types.ModuleType):
                        # The attribute does not exist: the module's `__getattr__` provides it.
                        yield vars(owner).get("__getattr__")
                if is_called:
                    yield value
                yield from _classes_behind(value)
    for cell in function.__closure__ or ():
        content = _interpreter.cell_content(cell, None)
        yield content
        yield from _classes_behind(content)


def _classes_behind(value: Any) -> Iterator[type[Any]]:
    """The classes of objects that the function can reach; Python calls methods such as `__getattr__` implicitly."""
    kind = _interpreter.type_of(value)
    parts = [value]
    if kind in (dict, list, tuple):
        parts = _interpreter.elements(value.values() if kind is dict else value)[:_ELEMENTS]
    for part in parts:
        kind = _interpreter.type_of(part)
        if not isinstance(part, type) and kind.__module__ != "builtins" and _is_followed_class(kind):
            yield kind


def codes_of(code: types.CodeType) -> Iterator[types.CodeType]:
    """`code`, and the code of the functions, lambdas and comprehensions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_of(constant)
