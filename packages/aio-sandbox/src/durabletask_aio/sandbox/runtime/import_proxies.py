"""Imports inside of a workflow's functions: ``import time`` there gives a stand-in for the module.

The instruction's name is redirected like that of a global, to a module under a name of ours in :data:`sys.modules`.
Nothing else imports that name, and the module's own entry stays as it is.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from typing import Any, Final

from durabletask_aio.sandbox.code.bytecode import LocalImport
from durabletask_aio.sandbox.runtime.proxies import ModuleProxy, can_be_proxied, make_class_proxy, make_proxy
from durabletask_aio.sandbox.static.call_index import CallIndex

MODULES: Final = ("time", "random", "uuid", "datetime")
"""Those whose calls have deterministic values; the others are only looked at, which other layers do as well."""

PREFIX: Final = "__dt_import_"


def name_for(statement: LocalImport, index: CallIndex) -> str | None:
    """The name to import in place of the statement's; ``None`` to leave the statement alone."""
    if statement.module not in MODULES:
        return None
    name = PREFIX + statement.module
    if name not in sys.modules:
        sys.modules[name] = _proxy_of_module(importlib.import_module(statement.module), index)
    return name


def _proxy_of_module(module: types.ModuleType, index: CallIndex) -> types.ModuleType:
    replaced: dict[str, Any] = {}
    for name, value in vars(module).items():
        if isinstance(value, type):
            methods = _methods(value, module, name, index)
            if methods:
                replaced[name] = make_class_proxy(value, methods)
            continue
        call = index.find(value) if callable(value) else None
        if call is not None and can_be_proxied(call):
            replaced[name] = make_proxy(call, value, _reader(module, name))
    return ModuleProxy(module, replaced)


def _methods(kind: type[Any], module: types.ModuleType, name: str, index: CallIndex) -> dict[str, Any]:
    """Stand-ins for the class methods of ``kind`` that are in the catalogue: ``datetime.now`` and the like."""
    prefix = f"{module.__name__}.{name}."
    leaves = [call.removeprefix(prefix) for call in index.catalogue.calls if call.startswith(prefix)]
    found = {leaf: getattr(kind, leaf, None) for leaf in leaves}
    return {
        leaf: make_proxy(call, value, _reader(kind, leaf))
        for leaf, value in found.items()
        if isinstance(getattr(value, "__self__", None), type) and (call := index.find(value)) is not None
    }


def _reader(owner: Any, name: str) -> Callable[[], Any]:
    return lambda: getattr(owner, name)
