"""The functions that a library may call on behalf of a workflow: validators, converters, descriptors.

They are on no path that the analysis follows: the workflow names a class, and the library calls what the class holds,
often from compiled code.  From Python 3.12 on, only code that has been instrumented is watched, so they are looked for
before the workflow runs: in the classes that its functions name, and in what those classes hold.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

from durabletask_aio.sandbox.code import bytecode
from durabletask_aio.sandbox.code._interpreter import lru_cache_wrapper, type_of
from durabletask_aio.sandbox.rules.ownership import OWNERSHIP
from durabletask_aio.sandbox.static.reachability import codes_of, functions_of, is_followed

_MAX_OBJECTS: Final = 10_000
"""Objects that are looked at for one set of functions; a class of a large application may hold all of it."""

_MAX_LENGTH: Final = 1_000
"""Containers with more elements are data."""

_SKIPPED: Final = frozenset(
    {"__del__", "__pydantic_core_schema__", "__pydantic_validator__", "__pydantic_serializer__", "__signature__"}
)
"""Members of classes that are not looked at: the finalizer, and large structures that are made from other members."""

_PLAIN: Final = (str, bytes, int, float, complex, type(None), types.ModuleType, types.CodeType, types.FrameType)
_RUNNING: Final = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)
_CONTAINERS: Final = (dict, list, tuple, set, frozenset)
_HOLD_FUNCTIONS: Final = (
    *(type, types.FunctionType, types.MethodType, staticmethod, classmethod, property, functools.partial),
    *(functools.partialmethod, functools.cached_property, functools.singledispatchmethod, lru_cache_wrapper),
)


def functions_held_by(functions: Iterable[types.FunctionType]) -> list[types.FunctionType]:
    """Return the functions of followed code that the classes hold which `functions` name.

    Args:
        functions: the functions that a workflow reaches.

    Returns:
        Further functions, each once: methods, validators, converters, default factories, `__get__` of descriptors, and
        those that the classes of these hold, and so on.  `__del__` is left out: it runs whenever the collector decides.
    """
    known = {id(function): function for function in functions}
    given = set(known)
    seen: dict[int, Any] = {}  # with the objects, so that no id is used again
    for function in list(known.values()):
        _add_held(deque(_named_classes(function)), known, seen)
    return [function for key, function in known.items() if key not in given]


def _add_held(queue: deque[Any], known: dict[int, types.FunctionType], seen: dict[int, Any]) -> None:
    while queue and len(seen) < _MAX_OBJECTS:
        value = queue.popleft()
        # Its type, and not `isinstance`, which asks lazy proxies for their `__class__`, and so evaluates them.
        kind = type_of(value)
        if issubclass(kind, (*_PLAIN, *_RUNNING)) or id(value) in seen:
            continue
        seen[id(value)] = value
        if issubclass(kind, _HOLD_FUNCTIONS):
            for function in functions_of(value):
                if is_followed(function) and id(function) not in known:
                    known[id(function)] = function
                    queue.extend(_named_classes(function))
        queue.extend(_parts(value, kind))


def _named_classes(function: types.FunctionType) -> Iterator[type[Any]]:
    """The user's classes among the globals that a function uses, and in its closure."""
    for code in codes_of(function.__code__):
        for chain in bytecode.global_chains(code):
            value: Any = function.__globals__.get(chain.name)
            # `call_activity(Payments.charge)` mentions a function, and uses nothing of the class.
            if issubclass(type(value), type) and _is_users(value) and (len(chain.called) == 1 or any(chain.called)):
                yield value
    for cell in function.__closure__ or ():
        try:
            content: Any = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        if issubclass(type(content), type) and _is_users(content):
            yield content


def _parts(value: Any, kind: type[Any]) -> Iterator[Any]:
    if issubclass(kind, type):
        if _is_users(value):
            yield from (held for name, held in vars(cast("type[Any]", value)).items() if name not in _SKIPPED)
            yield from cast("type[Any]", value).__bases__
            yield kind
    elif issubclass(kind, types.FunctionType):
        # Not its globals; but a library's wrapper holds the user's function in its closure.
        yield from value.__closure__ or ()
    elif not (issubclass(kind, _CONTAINERS) and len(value) > _MAX_LENGTH):
        yield from gc.get_referents(value)


def _is_users(kind: type[Any]) -> bool:
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return OWNERSHIP.is_followed(file)
    return kind.__module__ == "__main__"
