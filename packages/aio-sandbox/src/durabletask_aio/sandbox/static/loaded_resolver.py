"""The resolver for the modules of this process: the one for source files, where names lead to what a program holds.

A loaded function is turned into its definition in its file, and so are classes; other objects become the values that
the checker knows (`code.values`), so that one scanner serves both. What this layer adds is what only a loaded object
tells: which object a name or an attribute holds now, whatever a file says.
"""

from __future__ import annotations

import ast
import functools
import inspect
import random
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

from durabletask_aio.sandbox.code import _interpreter
from durabletask_aio.sandbox.code.name_resolver import FunctionBody
from durabletask_aio.sandbox.code.scopes import Scope, own_nodes
from durabletask_aio.sandbox.code.sources import node_of, syntax_tree
from durabletask_aio.sandbox.code.values import (
    ContainerValue,
    ExternalName,
    ImportTimeValue,
    Instance,
    PartialFunction,
    SharedObject,
    SourceClass,
    SourceFunction,
    UnorderedValue,
    Value,
    distinct,
)
from durabletask_aio.sandbox.rules import allowance
from durabletask_aio.sandbox.rules.conditions import ArgumentSummary, with_partial
from durabletask_aio.sandbox.rules.ownership import OWNERSHIP, is_standard_module
from durabletask_aio.sandbox.static import reachability, source_classes
from durabletask_aio.sandbox.static.call_index import PROXY_ATTRIBUTE, CallIndex, imported_object
from durabletask_aio.sandbox.static.source_modules import SourceModule
from durabletask_aio.sandbox.static.source_resolver import SourceResolver

_MISSING: Final = object()
_TABLE_LIMIT: Final = 50
_NESTED_TABLES: Final = 2
_MUTABLE: Final = (list, dict, set, bytearray, deque, defaultdict, Counter, OrderedDict)
_FUNCTIONS: Final = (
    types.FunctionType,
    types.MethodType,
    staticmethod,
    classmethod,
    functools.partialmethod,
    functools.singledispatchmethod,
    _interpreter.lru_cache_wrapper,
)
_PROPERTIES: Final = (property, functools.cached_property)
_BUILT_IN: Final = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
)
_DEFINITIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class LoadedResolver(SourceResolver):
    """Looks names up in loaded modules, and in files those that are not imported yet."""

    def __init__(self, index: CallIndex, *, is_certain: bool) -> None:
        """`is_certain` leaves out what only the files show, since a program may have replaced it."""
        super().__init__(index.catalogue, user_roots(), OWNERSHIP.packages)
        self._index = index
        self._is_certain = is_certain
        self.scanned: dict[int, types.FunctionType] = {}
        """By id: the loaded functions that the workflow calls."""
        self.classes: dict[int, type] = {}
        """By id: the loaded classes of which the workflow creates objects."""
        self._loaded: dict[tuple[int, str], SourceModule] = {}
        self._definitions: dict[int, SourceFunction] = {}
        self._functions: dict[tuple[int, int], types.FunctionType] = {}
        """By the ids of a definition and of its scope."""
        self._source_classes: dict[int, SourceClass] = {}
        self._types: dict[int, type] = {}
        """By id of the syntax of a class."""
        self._references: list[object] = []

    def definitions_of(self, target: Any) -> list[SourceFunction]:
        """The definitions of what calling `target` runs."""
        values = self.values_of(target)
        called = [
            each
            for value in values
            for each in (self.attribute(value, "__call__") if isinstance(value, Instance) else [value])
        ]
        return [each for each in called if isinstance(each, SourceFunction)]

    # From objects to values --------------------------------------------------------------------------------------

    def values_of(self, held: Any, name: str = "", receiver: Value | None = None, *, depth: int = 0) -> list[Value]:
        """The values of the checker that stand for a loaded object; none for plain data."""
        self._references.append(held)
        if isinstance(held, types.FunctionType) and hasattr(held, PROXY_ATTRIBUTE):
            # A proxy that redirection installed stands for the function that it replaces.
            held = vars(held).get("__wrapped__", held)
        if isinstance(held, functools.partial):
            given = with_partial(ArgumentSummary(), held)  # pyright: ignore[reportUnknownMemberType]
            inner = self.values_of(held.func)
            return [PartialFunction(each, given) if self.call(each) is not None else each for each in inner]
        call = self._index.find(held)
        if call is not None:
            return [ExternalName(call.name)]
        if isinstance(held, types.ModuleType):
            return [self._module_of(held) or ExternalName(self._index.owner_names.get(id(held), held.__name__))]
        if isinstance(held, type):
            return [ExternalName(self._class_name(held)) if is_foreign(held) else self._class(held)]
        if isinstance(held, _FUNCTIONS):
            return self._of_functions(held, receiver)
        if isinstance(held, _BUILT_IN):
            return [ExternalName(_full_name(held))]
        return self._of_data(held, name, depth)

    def _of_functions(self, held: Any, receiver: Value | None) -> list[Value]:
        if isinstance(held, types.MethodType):
            receiver = next(iter(self.values_of(held.__self__)), None)
        functions = [each for each in reachability.functions_of(held) if reachability.is_followed(each)]
        found = [each for function in functions for each in self._definition(function, receiver)]
        return [*found] if functions else [ExternalName(_full_name(getattr(held, "__func__", held)))]

    def _definition(self, function: types.FunctionType, receiver: Value | None) -> list[SourceFunction]:
        known = self._definitions.get(id(function))
        if known is None:
            found = node_of(function.__code__, function.__globals__)
            if found is None:
                return []
            module = self._module(function.__globals__, function.__code__.co_filename)
            scope = self._closure([function], module)
            known = self._definitions[id(function)] = SourceFunction(found[0], scope)
            self._functions[id(found[0]), id(scope)] = function
            self._fill(scope, [function])
        return [replace(known, receiver=receiver)]

    def _closure(self, functions: list[types.FunctionType], module: SourceModule) -> Scope:
        has_cells = any(function.__closure__ for function in functions)
        return Scope(module, module.scope, source=module.source) if has_cells else module.scope

    def _fill(self, scope: Scope, functions: list[types.FunctionType]) -> None:
        """Enter what the variables around nested functions hold; functions may refer to themselves."""
        for function in functions:
            for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
                content = _interpreter.cell_content(cell, _MISSING)
                if content is not _MISSING and name not in scope.argument_values:
                    scope.argument_values[name] = []
                    scope.argument_values[name] += self.values_of(content, name)

    def _class(self, kind: type[Any]) -> SourceClass:
        known = self._source_classes.get(id(kind))
        if known is None:
            methods = [each for each in vars(kind).values() if isinstance(each, types.FunctionType)]
            followed = [each for each in methods if reachability.is_followed(each)]
            loaded = sys.modules.get(kind.__module__)
            module = self._module_of(loaded) if loaded is not None else None
            if module is None:
                module = self._module(followed[0].__globals__, followed[0].__code__.co_filename)
            scope = self._closure(followed, module)
            node = _class_definition(module, kind)
            known = self._source_classes[id(kind)] = SourceClass(node, scope)
            self._types[id(node)] = kind
            self._fill(scope, followed)
        return known

    def _of_data(self, held: Any, name: str, depth: int) -> list[Value]:
        kind, plain = _interpreter.type_of(held), cast("object", held)
        if isinstance(held, random.Random) and not isinstance(held, random.SystemRandom):
            return [SharedObject(name, "a random generator", is_random=True)]
        if isinstance(held, (*_MUTABLE, frozenset, tuple)):
            return self._of_collection(held, name, depth)
        if kind.__module__ == "builtins" and not isinstance(held, Iterator):
            return []
        if not is_foreign(kind):
            return [Instance(self._class(kind), is_shared=True, held=plain)]
        iterators = [SharedObject(name, "an iterator", is_iterator=True)] if isinstance(held, Iterator) else []
        return [*iterators, Instance(ExternalName(self._class_name(kind)), is_shared=True, held=plain)]

    def _of_collection(self, held: Any, name: str, depth: int) -> list[Value]:
        found: list[Value] = []
        if isinstance(held, (set, frozenset)):
            texts = any(isinstance(each, (str, bytes)) for each in _interpreter.elements(held))
            found.append(UnorderedValue(True, texts))
        table = cast("Any", held)
        parts = table.values() if isinstance(held, dict) else table
        is_table = isinstance(held, (dict, list, tuple, deque)) and depth < _NESTED_TABLES
        nested = _interpreter.elements(parts)[:_TABLE_LIMIT] if is_table else []
        elements = tuple(distinct(each for part in nested for each in self.values_of(part, name, depth=depth + 1)))
        if isinstance(held, tuple):
            return [ContainerValue(elements)]
        if isinstance(held, _MUTABLE):
            found.append(SharedObject(name, f"a {_interpreter.type_of(held).__name__}", elements=elements))
        return found

    def _class_name(self, kind: type[Any]) -> str:
        known = (self._index.owner_names.get(id(base)) for base in _interpreter.bases(kind))
        return next(filter(None, known), None) or _full_name(kind)

    # Modules -----------------------------------------------------------------------------------------------------

    def _module(self, names: dict[str, Any], filename: str) -> SourceModule:
        known = self._loaded.get((id(names), filename))
        if known is None:
            name = str(names.get("__name__", ""))
            if name == "__main__":
                # A program is imported under another name than its file's.
                name = ".".join(filter(None, (str(names.get("__package__") or ""), Path(filename).stem)))
            io_only = not OWNERSHIP.is_user_file(filename)
            known = SourceModule(name, filename, "", "__path__" in names, io_only=io_only, names=names)
            self._loaded[id(names), filename] = known
        return known

    def _module_of(self, module: types.ModuleType) -> SourceModule | None:
        names = vars(module)
        functions = [each for each in names.values() if isinstance(each, types.FunctionType)]
        # A notebook, or a module that a program has made, has no file of its own.
        files = [each.__code__.co_filename for each in functions if each.__globals__ is names]
        filename = names.get("__file__") or next(iter(files), None)
        return self._module(names, filename) if filename and OWNERSHIP.is_followed(filename) else None

    def module(self, name: str, importer: SourceModule | None = None) -> SourceModule | None:
        loaded = sys.modules.get(name)
        if loaded is not None:
            return self._module_of(loaded)
        return None if is_standard_module(name) else super().module(name, importer)

    def _in_module(self, module: SourceModule, name: str) -> list[Value]:
        held = _MISSING if module.names is None else module.names.get(name, _MISSING)
        if held is _MISSING:
            return super()._in_module(module, name)
        found = self.values_of(held, name)
        if not self._is_certain:
            return distinct([*found, *super()._in_module(module, name)])
        if not found:
            found += [each for each in super()._in_module(module, name) if isinstance(each, ImportTimeValue)]
        return found

    # Attributes --------------------------------------------------------------------------------------------------

    def attribute(self, value: Value, name: str) -> list[Value]:
        owner = imported_object(value.name) if isinstance(value, ExternalName) else None
        if owner is None or not isinstance(value, ExternalName):
            return super().attribute(value, name)
        return self._of_foreign(owner, name, ExternalName(f"{value.name}.{name}", value.owner))

    def _of_foreign(self, owner: Any, name: str, otherwise: ExternalName) -> list[Value]:
        """An attribute of something outside the user's code, by identity; `otherwise` by its name."""
        if isinstance(owner, types.ModuleType):
            held = vars(owner).get(name, _MISSING)
        else:
            held = inspect.getattr_static(owner, name, _MISSING)
            if isinstance(held, _PROPERTIES):
                return []
            if held is not _MISSING:
                # Class methods of built-in types (`datetime.now`) are in the catalogue in bound form.
                held = getattr(owner, name, held)
        if held is _MISSING:
            return [otherwise]
        call = self._index.find(held)
        if call is not None:
            return [ExternalName(call.name, otherwise.owner)]
        is_data = isinstance(held, types.ModuleType) or not (callable(held) or isinstance(held, _BUILT_IN))
        return (self.values_of(held, name) if is_data else []) or [otherwise]

    def _of_instance(self, value: Instance, name: str) -> list[Value]:
        if value.held is None:
            static = self._static(value.cls, name) if self._is_certain else []
            is_getter = any(isinstance(each, _PROPERTIES) for each in static)
            return [] if is_getter else super()._of_instance(value, name)
        own = getattr(value.held, "__dict__", {})
        if isinstance(own, dict) and name in own:
            return self.values_of(own[name], name)  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(value.cls, ExternalName):
            return self._of_foreign(value.held, name, ExternalName(f"{value.cls.name}.{name}"))
        return super()._of_instance(value, name)

    def _static(self, kind: Value, name: str) -> list[Any]:
        """What a loaded class has under a name, without running descriptors; nothing for other classes."""
        held = self._types.get(id(kind.node)) if isinstance(kind, SourceClass) else None
        found = _MISSING if held is None else inspect.getattr_static(held, name, _MISSING)
        return [] if found is _MISSING else [found]

    def _of_class(self, kind: Value, name: str, receiver: Value | None) -> list[Value]:
        held = self._types.get(id(kind.node)) if isinstance(kind, SourceClass) else None
        if held is None:
            return super()._of_class(kind, name, receiver)
        for static in self._static(kind, name):
            if isinstance(static, _FUNCTIONS):
                found = self.values_of(static, name, None if isinstance(static, staticmethod) else receiver)
                if any(isinstance(each, SourceFunction) for each in found):
                    return found
            is_method = isinstance(static, (*_FUNCTIONS, *_BUILT_IN))
            bound: Any = getattr(held, name, None) if is_method else None
            call = self._index.find(bound)
            if call is not None:
                return [ExternalName(call.name, kind)]
            if bound is not None:
                definer = next(base for base in _interpreter.bases(held) if name in vars(base))
                return [ExternalName(f"{self._class_name(definer)}.{name}", kind)]
        return []

    def _of_class_body(self, kind: SourceClass, name: str, *, is_shared: bool) -> list[Value]:
        plain = (*_FUNCTIONS, *_PROPERTIES, *_BUILT_IN)
        held = [each for each in self._static(kind, name) if is_shared and not isinstance(each, plain)]
        found = [value for each in held for value in self.values_of(each, name)]
        return found if found or self._is_certain else super()._of_class_body(kind, name, is_shared=is_shared)

    def _held(self, value: Instance, kind: SourceClass, name: str) -> list[Value]:
        if not self._is_certain:
            return super()._held(value, kind, name)
        on_self = (each for base in self._lineage(kind) for each in source_classes.values_on_self(base, name))
        return self._of_class_body(kind, name, is_shared=next(on_self, None) is None)

    def _bases(self, kind: SourceClass) -> list[Value]:
        held = self._types.get(id(kind.node))
        if held is None:
            return super()._bases(kind)
        return [each for base in held.__bases__ for each in self.values_of(base)]

    def _metaclasses(self, kind: SourceClass) -> list[Value]:
        held = self._types.get(id(kind.node))
        return super()._metaclasses(kind) if held is None else self.values_of(type(held))

    # What values are ---------------------------------------------------------------------------------------------

    def owns_calls(self, value: Value) -> bool:
        if isinstance(value, Instance) and id(value.held) in self._index.owner_names:
            return True
        return super().owns_calls(value)

    def bodies(self, value: Value) -> list[FunctionBody]:
        if isinstance(value, SourceClass) and id(value.node) in self._types:
            held = self._types[id(value.node)]
            self.classes[id(held)] = held
        elif isinstance(value, SourceFunction) and self._function(value) is not None:
            return [self.body_of(value)]  # decorators have been applied
        return super().bodies(value)

    def body_of(self, value: SourceFunction) -> FunctionBody:
        function = self._function(value)
        if function is not None:
            self.scanned[id(function)] = function
        return super().body_of(value)

    def _function(self, value: SourceFunction) -> types.FunctionType | None:
        return self._functions.get((id(value.node), id(value.scope)))

    def _allowed(self, value: SourceFunction) -> list[str]:
        function = self._function(value)
        return super()._allowed(value) if function is None else [*allowance.of_function(function)]


def is_foreign(kind: type[Any]) -> bool:
    """Whether a class is not the user's, so that reading its attributes runs no user code."""
    filename = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if filename is not None and OWNERSHIP.is_followed(filename):
        return False
    return not any(reachability.is_followed(each) for each in vars(kind).values())


def user_roots() -> list[Path]:
    """The folders of the search path that contain the user's own modules."""
    paths = [Path(entry or ".").absolute() for entry in sys.path]
    return [path for path in paths if path.is_dir() and OWNERSHIP.is_user_file(str(path / "module.py"))]


def _class_definition(module: SourceModule, kind: type[Any]) -> ast.ClassDef:
    """The statement that defines a class; an empty one for a class that no statement defines."""
    statements: list[ast.stmt] = module.source.tree.body if module.source.tree is not None else []
    found: ast.stmt | None = None
    for part in kind.__qualname__.split("."):
        if part != "<locals>":
            nodes = [each for statement in statements for each in own_nodes(statement)]
            named = [each for each in nodes if isinstance(each, _DEFINITIONS) and each.name == part]
            found = named[-1] if named else None
            statements = named[-1].body if named else []
    if isinstance(found, ast.ClassDef):
        return found
    made = syntax_tree(f"class {kind.__name__}: pass" if kind.__name__.isidentifier() else "class _: pass").body[0]
    assert isinstance(made, ast.ClassDef)
    return made


def _full_name(held: Any) -> str:
    name = getattr(held, "__qualname__", None) or getattr(held, "__name__", "")
    module = getattr(held, "__module__", None)
    return f"{module}.{name}" if isinstance(module, str) else str(name)
