"""Redirection of names in workflow code: `time.time` and the like lead to proxies. Nothing else changes.

A function that calls `time.time()` loads the global `time`. In a copy of its bytecode, that instruction loads
`__dt_time_`, a name that is added to the function's module and leads to a proxy. Only loads that lead to a call of the
catalogue are rewritten: `datetime(2024, 1, 1)` and `isinstance(x, datetime)` in the same function still use the class
itself. Lines, columns and names of arguments stay the same, and with them tracebacks, coverage and breakpoints.

The format of the instruction depends on the Python version. A trial function is rewritten and run at import; if the
result is wrong, redirection is off and the other layers work without it.
"""

from __future__ import annotations

import builtins
import sys
import time
import types
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from durabletask_aio.core.hosting import annotated_kind
from durabletask_aio.sandbox.code import _interpreter, bytecode
from durabletask_aio.sandbox.rules.catalogue import Call
from durabletask_aio.sandbox.rules.ownership import OWNERSHIP
from durabletask_aio.sandbox.runtime import import_proxies
from durabletask_aio.sandbox.runtime.proxies import (
    MappingProxy,
    NamespaceProxy,
    can_be_proxied,
    make_direct_call_proxy,
    make_proxy,
)
from durabletask_aio.sandbox.static.call_index import PROXY_ATTRIBUTE, CallIndex, call_index

_ProxyFactory: TypeAlias = Callable[[Callable[[], Any]], Any]

_PREFIX: Final = "__dt_"
_MISSING: Final = object()
_BUILTINS: Final = vars(builtins)


class Redirector:
    """Rewrites functions, each at most once."""

    def __init__(self, index: CallIndex) -> None:
        self._index = index
        # Keyed by id, and the object is kept: code objects compare by value and could be confused.
        self._done: dict[int, types.CodeType] = {}

    def redirect(self, functions: Iterable[types.FunctionType]) -> None:
        """Rewrite the code, default arguments and closure of each function, in place."""
        for function in functions:
            if id(function.__code__) in self._done:
                continue
            code = self.rewritten(function.__code__, function.__globals__)
            if code is not function.__code__:
                function.__code__ = code
            self._done[id(code)] = code
            if OWNERSHIP.is_user_file(code.co_filename):
                self._rewrite_defaults(function)
                self._rewrite_closure(function)

    def rewritten(self, code: types.CodeType, module: dict[str, Any]) -> types.CodeType:
        """`code` with its loads and imports redirected; `code` itself if there is nothing to redirect."""
        names = list(code.co_names)
        raw = bytearray(code.co_code)
        changed = False
        for chain in bytecode.global_chains(code):
            new_name = self._name_for(chain, module, code.co_filename)
            if new_name is None:
                continue
            if new_name not in names:
                names.append(new_name)
            if _patch(raw, chain, names.index(new_name)):
                changed = True
        # A module proxy replaces all calls of the module, which would be too much for a package that is followed for
        # I/O.
        is_own = OWNERSHIP.is_user_file(code.co_filename)
        for statement in bytecode.local_imports(code) if is_own else ():
            new_name = import_proxies.name_for(statement, self._index)
            if new_name is None:
                continue
            if new_name not in names:
                names.append(new_name)
            index = names.index(new_name)
            if index <= 255 and statement.argument <= 255:
                raw[statement.offset + 1] = index
                changed = True
        constants = tuple(
            self.rewritten(constant, module) if isinstance(constant, types.CodeType) else constant
            for constant in code.co_consts
        )
        if any(new is not old for new, old in zip(constants, code.co_consts, strict=False)):
            code = code.replace(co_consts=constants)
        return code.replace(co_code=bytes(raw), co_names=tuple(names)) if changed else code

    def _name_for(self, chain: bytecode.Chain, module: dict[str, Any], filename: str) -> str | None:
        """The name to load in place of the chain's global, created on demand; `None` to leave the load unchanged."""
        if chain.name.startswith(_PREFIX):
            return None
        root = module.get(chain.name, _MISSING)
        if root is _MISSING:
            root = _BUILTINS.get(chain.name, _MISSING)
        if root is _MISSING:
            return None
        current: Any = root
        for depth in range(len(chain.attributes) + 1):
            if depth > 0:
                if not isinstance(current, (types.ModuleType, type)):
                    return None
                current = getattr(current, chain.attributes[depth - 1], _MISSING)
                if current is _MISSING:
                    return None
            call = self._index.find(current)
            if chain.called[depth] and is_activity(current):
                is_own = OWNERSHIP.is_user_file(filename)
                return _install(module, chain, depth, _direct_call_proxy_of(current)) if is_own else None
            if call is not None and _needs_proxy(current, is_called=chain.called[depth]):
                concerned = can_be_proxied(call) and OWNERSHIP.applies(filename, call.rule)
                return _install(module, chain, depth, _proxy_of(current, call, filename)) if concerned else None
        return None

    def _rewrite_defaults(self, function: types.FunctionType) -> None:
        if function.__defaults__ is not None:
            function.__defaults__ = tuple(self._value(default) for default in function.__defaults__)
        if function.__kwdefaults__ is not None:
            for name, default in function.__kwdefaults__.items():
                function.__kwdefaults__[name] = self._value(default)

    def _rewrite_closure(self, function: types.FunctionType) -> None:
        for cell in function.__closure__ or ():
            content = _interpreter.cell_content(cell, None)
            replacement = self._value(content)
            if replacement is not content:
                cell.cell_contents = replacement

    def _value(self, value: Any) -> Any:
        """A proxy for a function of the catalogue that is held by value; classes and modules keep their identity."""
        if isinstance(value, type) or not callable(value):
            return value
        call = self._index.find(value)
        if call is None or not can_be_proxied(call) or getattr(value, PROXY_ATTRIBUTE, None) is not None:
            return value
        return make_proxy(call, value, lambda: value)


def _needs_proxy(value: Any, *, is_called: bool) -> bool:
    # A class may also be used in isinstance; it is replaced only where it is called.
    return is_called if isinstance(value, type) else True


def _proxy_of(original: Any, call: Call, filename: str) -> _ProxyFactory:
    """A function that makes the proxy of a call of the catalogue, given one that looks up what it stands for."""
    if _is_mapping(original):
        return lambda look_up: MappingProxy(call, original, look_up)
    watched_file = filename if OWNERSHIP.is_installed(filename) else None
    return lambda look_up: make_proxy(call, original, look_up, filename=watched_file)


def _direct_call_proxy_of(activity: Any) -> _ProxyFactory:
    return lambda look_up: make_direct_call_proxy(activity, look_up)


def is_activity(value: Any) -> bool:
    """Whether `value` is a function that is annotated as an activity."""
    return isinstance(value, types.FunctionType) and bool(value.__annotations__) and annotated_kind(value) == "activity"


def _install(module: dict[str, Any], chain: bytecode.Chain, depth: int, make: _ProxyFactory) -> str:
    """Make sure that the module contains the proxy; return the name for the redirected load."""
    path = chain.attributes[:depth]
    leaf: Any = make(_looks_up(module, chain.name, path))
    if depth == 0:
        name = f"{_PREFIX}{chain.name}"
        module.setdefault(name, leaf)
        return name
    # A name such as `__dt_datetime_` for a class or module whose attribute is taken. The attributes in between are
    # namespace proxies too.
    name = f"{_PREFIX}{'_'.join((chain.name, *path[:-1]))}_"
    owner = module.get(name)
    if owner is None:
        owner = module[name] = NamespaceProxy(_looks_up(module, chain.name, ()))
    for position, attribute in enumerate(path[:-1], 1):
        inner = vars(owner).get(attribute)
        if inner is None:
            inner = NamespaceProxy(_looks_up(module, chain.name, path[:position]))
            vars(owner)[attribute] = inner
        owner = inner
    vars(owner).setdefault(path[-1], leaf)
    return name


def _is_mapping(value: Any) -> bool:
    return not callable(value)


def _looks_up(module: dict[str, Any], name: str, path: tuple[str, ...]) -> Callable[[], Any]:
    """A function that evaluates the original expression as it stands now."""

    def root() -> Any:
        found = module.get(name, _MISSING)
        return _BUILTINS[name] if found is _MISSING else found

    if not path:
        return root
    if len(path) == 1:
        attribute = path[0]
        return lambda: getattr(root(), attribute)

    def follow() -> Any:
        value = root()
        for part in path:
            value = getattr(value, part)
        return value

    return follow


def _patch(raw: bytearray, chain: bytecode.Chain, index: int) -> bool:
    """Point the load at `chain.offset` to the name at `index`; return `False` if that does not fit into one byte."""
    old = bytecode.is_old_layout()
    argument = index if old else index << 1 | (chain.argument & 1)
    if argument > 255 or chain.argument > 255:
        return False
    raw[chain.offset + 1] = argument
    return True


def _trial() -> float:
    return time.time()


def _self_test() -> bool:
    """Whether a rewritten function loads the new name and computes with it."""
    try:
        module: dict[str, Any] = {"time": time}
        # Under a file name outside this package, because the rules do not apply to its own code.
        trial = types.FunctionType(_trial.__code__.replace(co_filename="<trial>"), module)
        Redirector(call_index()).rewritten(trial.__code__, module)
        names = [name for name in module if name.startswith(_PREFIX)]
        if names != [f"{_PREFIX}time_"]:
            return False
        module[names[0]] = types.SimpleNamespace(time=lambda: -1.0)
        trial.__code__ = Redirector(call_index()).rewritten(trial.__code__, module)
        return bool(trial() == -1.0)
    except Exception:
        # Whatever fails on an unknown interpreter, the only consequence is that this layer is off.
        return False


IS_SUPPORTED: Final = sys.implementation.name == "cpython" and _self_test()
"""Whether the bytecode of this interpreter can be rewritten."""
