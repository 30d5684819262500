"""Imports inside a workflow's functions: `import time` there gets a proxy of the module.

The name in the import instruction is redirected, as for a global, to a proxy under a private name in `sys.modules`. No
other code imports that name, and the module's own entry is not changed.
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
"""Modules with calls that have deterministic values. For other modules, the other layers report the calls."""

PREFIX: Final = "__dt_import_"


def name_for(statement: LocalImport, index: CallIndex) -> str | None:
    """The name to import in place of the statement's; `None` to leave the statement unchanged."""
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
    """Proxies of the class methods of `kind` that are in the catalogue, such as `datetime.now`."""
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
