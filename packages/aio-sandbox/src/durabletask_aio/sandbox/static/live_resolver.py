"""The resolver for live functions: names are looked up in their globals and closures, attributes in objects."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final, cast

from durabletask_aio.core import AsyncWorkflowContext, UnsupportedInWorkflowError
from durabletask_aio.sandbox.code import _interpreter, bytecode
from durabletask_aio.sandbox.code.name_resolver import DefaultFactory, FunctionBody
from durabletask_aio.sandbox.code.scopes import Scope
from durabletask_aio.sandbox.code.sources import FunctionNode, node_of
from durabletask_aio.sandbox.code.values import (
    ContextValue,
    ExternalName,
    Instance,
    ObjectValue,
    SharedObject,
    SourceClass,
    SourceFunction,
    Value,
)
from durabletask_aio.sandbox.rules import allowance
from durabletask_aio.sandbox.rules.catalogue import Call
from durabletask_aio.sandbox.rules.ownership import OWNERSHIP, is_standard_module
from durabletask_aio.sandbox.static import reachability
from durabletask_aio.sandbox.static.call_index import PROXY_ATTRIBUTE, CallIndex
from durabletask_aio.sandbox.static.source_classes import default_factories, may_have_attribute
from durabletask_aio.sandbox.static.source_modules import SourceModule
from durabletask_aio.sandbox.static.source_resolver import PATH_RETURNING_METHODS, SourceResolver

_MISSING: Final = object()
_TABLE_LIMIT: Final = 50
_PATH_RETURNING_METHODS: Final = frozenset(id(getattr(Path, name)) for name in PATH_RETURNING_METHODS)
MUTABLE: Final = (list, dict, set, bytearray, deque, defaultdict, Counter, OrderedDict)


@dataclass(frozen=True, eq=False)
class LiveNamespace:
    """The names around a live function: those of its module and of its closure."""

    globals: dict[str, Any]
    closure: Mapping[str, Any]


class LiveResolver:
    """Implements `code.name_resolver.NameResolver` on live objects."""

    def __init__(self, index: CallIndex) -> None:
        self._index = index
        # For modules that are not imported yet, because the workflow imports them when it runs.
        self._project = SourceResolver(index.catalogue, user_roots(), OWNERSHIP.packages)
        self.functions_by_node: dict[int, types.FunctionType] = {}
        """By id of a syntax node: the function that was compiled from it, for all functions scanned."""
        self.classes: dict[int, type] = {}
        """By id: the classes of which the workflow creates objects."""
        self._references: list[object] = []

    def look_up(self, name: str, scope: Scope) -> list[Value]:
        namespace: Any = scope.namespace
        if isinstance(namespace, SourceModule):
            return self._project.look_up(name, scope)
        for names in (namespace.closure, namespace.globals, vars(builtins)):
            value = names.get(name, _MISSING)
            if value is not _MISSING:
                return self._known(value)
        return []

    def _known(self, value: Any, receiver: Value | None = None) -> list[Value]:
        self._references.append(value)
        # A proxy that redirection installed stands for the function that it replaces.
        original = (
            vars(value).get("__wrapped__")
            if isinstance(value, types.FunctionType) and hasattr(value, PROXY_ATTRIBUTE)
            else None
        )
        return [ObjectValue.of(value if original is None else original, receiver)]

    def attribute(self, value: Value, name: str) -> list[Value]:
        if is_from_source(value):
            return self._project.attribute(value, name)
        if isinstance(value, ObjectValue):
            return self._of_object(value.value, name)
        if isinstance(value, Instance):
            return self._of_instance(value, name)
        if isinstance(value, ExternalName):
            found = _import_named(value.name)
            # A module that is not imported yet is known by name only.
            return self._of_object(found, name) if found is not None else [ExternalName(f"{value.name}.{name}")]
        if isinstance(value, SourceClass):
            return _member(value, name, None)
        return []

    def _of_object(self, owner: Any, name: str) -> list[Value]:
        if isinstance(owner, types.ModuleType):
            found = vars(owner).get(name, _MISSING)
            return [] if found is _MISSING else self._known(found)
        static: Any = inspect.getattr_static(owner, name, _MISSING)
        if static is _MISSING:
            return []
        if isinstance(static, (property, functools.cached_property)):
            return []
        receiver = ObjectValue.of(owner)
        if isinstance(static, (staticmethod, classmethod)):
            return self._known(_interpreter.wrapped_function(static), receiver)
        if isinstance(static, types.FunctionType):
            bound = static if isinstance(owner, type) else types.MethodType(static, owner)
            return self._known(bound, receiver)
        if is_foreign(owner if isinstance(owner, type) else type(owner)):
            # Class methods of built-in types (`datetime.now`) are in the catalogue in bound form.
            return self._known(getattr(owner, name, static), receiver)
        return self._known(_bound_in_base(owner, name, static), receiver)

    def _of_instance(self, value: Instance, name: str) -> list[Value]:
        kind = value.cls
        if isinstance(kind, SourceClass):
            return _member(kind, name, value)
        owner = (
            kind.value
            if isinstance(kind, ObjectValue)
            else _import_named(kind.name)
            if isinstance(kind, ExternalName)
            else None
        )
        static: Any = inspect.getattr_static(owner, name, _MISSING) if isinstance(owner, type) else _MISSING
        if name == "parent" and static is vars(PurePath)["parent"]:
            return [value]
        if static is _MISSING or isinstance(static, (property, functools.cached_property)):
            return []
        if isinstance(static, MUTABLE) and isinstance(owner, type) and _sets_own_attribute(owner, name):
            return []
        if isinstance(static, (staticmethod, classmethod)):
            static = _interpreter.wrapped_function(static)
        return self._known(static, value)

    def element(self, value: Value) -> list[Value]:
        if isinstance(value, SharedObject):
            return self._project.element(value)
        held = value.value if isinstance(value, ObjectValue) else None
        parts: list[Any] = []
        if isinstance(held, dict):
            parts = [*held.values()]  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(held, (list, tuple)):
            parts = [*held]  # pyright: ignore[reportUnknownArgumentType]
        return [found for part in parts[:_TABLE_LIMIT] if callable(part) for found in self._known(part)]

    def result(self, value: Value) -> list[Value]:
        if (
            isinstance(value, ObjectValue)
            and value.identity in _PATH_RETURNING_METHODS
            and isinstance(value.receiver, Instance)
        ):
            return [value.receiver]
        if isinstance(value, ObjectValue) and isinstance(value.value, type):
            self.classes[id(value.value)] = value.value
            return [Instance(value)]
        if isinstance(value, SourceClass):
            return [Instance(value)]
        return []

    def call(self, value: Value) -> Call | None:
        if isinstance(value, ObjectValue):
            receiver = value.receiver
            first = receiver.value if isinstance(receiver, ObjectValue) else None
            return self._index.find(value.value, first)
        if isinstance(value, ExternalName):
            return self._index.catalogue.find(value.name)
        return None

    def owns_calls(self, value: Value) -> bool:
        return isinstance(value, ObjectValue) and self._index.owns_calls(value.value)

    def bodies(self, value: Value) -> list[FunctionBody]:
        if is_from_source(value):
            return self._project.bodies(value)
        if isinstance(value, SourceFunction):
            return [body_of_definition(value)]
        if isinstance(value, SourceClass):
            return [
                body
                for name in ("__init__", "__post_init__")
                for member in _member(value, name, Instance(value))
                for body in self.bodies(member)
            ]
        if not isinstance(value, ObjectValue):
            return []
        receiver = value.receiver if not isinstance(value.value, type) else Instance(value)
        return list(self._live_bodies(value.value, receiver))

    def factories(self, value: Value) -> list[DefaultFactory]:
        if isinstance(value, SourceClass):
            return default_factories(value)
        kind = value.value if isinstance(value, ObjectValue) else None
        if not isinstance(kind, type) or is_foreign(kind):
            return []
        return [
            DefaultFactory(name, aliases, position, found)
            for name, aliases, position, function in reachability.factories_of(kind)
            for found in self._known(function)
        ]

    def _live_bodies(self, target: Any, receiver: Value | None) -> Iterator[FunctionBody]:
        if isinstance(target, types.MethodType):
            receiver = ObjectValue.of(target.__self__)
            self._references.append(target.__self__)
        elif not isinstance(target, type) and not is_foreign(cast("type[object]", type(target))):
            # A callable object: its `__call__` runs.
            receiver = ObjectValue.of(target)
        for function in reachability.functions_of(target):
            if reachability.is_followed(function):
                body = self.body_of(function, receiver)
                if body is not None:
                    yield body

    def body_of(self, function: types.FunctionType, receiver: Value | None = None) -> FunctionBody | None:
        """The body of a live function, or `None` if its source is not available."""
        found = node_of(function.__code__, function.__globals__)
        if found is None:
            return None
        node, source = found
        cells = function.__closure__ or ()
        closure = {
            name: _interpreter.cell_content(cell, _MISSING)
            for name, cell in zip(function.__code__.co_freevars, cells, strict=True)
        }
        self.functions_by_node[id(node)] = function
        return FunctionBody(
            # Functions that one decorator returns share their code but may call different functions through their
            # closures.
            key=(id(function.__code__), *map(id, cells)),
            node=node,
            source=source,
            scope=Scope(LiveNamespace(function.__globals__, closure)),
            label=function.__name__,
            allowed=allowance.of_function(function),
            receiver=receiver if _takes_receiver(function, receiver) else None,
            io_only=not OWNERSHIP.is_user_file(source.filename),
        )

    def creation_parameters(self, value: SourceClass) -> list[str]:
        return self._project.creation_parameters(value) if is_from_source(value) else []

    def reading(self, value: Value, name: str) -> list[FunctionBody]:
        if is_from_source(value):
            return self._project.reading(value, name)
        owner: Any = None
        if isinstance(value, ObjectValue):
            owner = value.value
        elif isinstance(value, Instance) and isinstance(value.cls, ObjectValue):
            owner = value.cls.value
        elif isinstance(value, Instance) and isinstance(value.cls, SourceClass):
            read = [
                member
                for member in _member(value.cls, name, value)
                if isinstance(member, SourceFunction) and _is_property(member.node)
            ]
            if not may_have_attribute(value.cls.node, name):
                read += [each for each in _member(value.cls, "__getattr__", value) if isinstance(each, SourceFunction)]
            return [body_of_definition(member) for member in read]
        receiver = value if isinstance(value, Instance) else ObjectValue.of(owner)
        return [body for each in _attribute_hooks(owner, name) for body in self._live_bodies(each, receiver)]

    def full_name(self, value: Value) -> str | None:
        if isinstance(value, ExternalName):
            return value.name
        if not isinstance(value, ObjectValue):
            return None
        held = value.value
        call = self.call(value)
        if call is not None:
            return call.name
        module = getattr(held, "__module__", None) if not isinstance(held, types.ModuleType) else ""
        name = getattr(held, "__qualname__", None) or getattr(held, "__name__", None)
        if not isinstance(name, str):
            return None
        return f"{module}.{name}" if module and isinstance(module, str) else name

    def annotated(self, node: ast.expr, scope: Scope) -> list[Value]:
        if isinstance(scope.namespace, SourceModule):
            return self._project.annotated(node, scope)
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)
        name, *attributes = text.split("|")[0].split("[")[0].strip().split(".")
        found = self.look_up(name, scope) if name.isidentifier() else []
        for attribute in attributes:
            found = [member for value in found for member in self.attribute(value, attribute)]
        return [
            ContextValue() if _is_context(value.value) else Instance(value)
            for value in found
            if isinstance(value, ObjectValue) and isinstance(value.value, type)
        ]

    def import_module(self, name: str, scope: Scope) -> list[Value]:
        if isinstance(scope.namespace, SourceModule):
            return self._project.import_module(name, scope)
        if name.startswith("."):
            package = str(scope.namespace.globals.get("__package__") or "")
            level = len(name) - len(name.lstrip("."))
            base = package.split(".")[: len(package.split(".")) - level + 1]
            name = ".".join([*base, name.lstrip(".")]).rstrip(".")
        module = sys.modules.get(name)
        if module is not None:
            return self._known(module)
        source = None if is_standard_module(name) else self._project.module(name)
        return [ExternalName(name) if source is None else source]

    def is_async(self, value: Value) -> bool:
        if isinstance(value, ObjectValue):
            return inspect.iscoroutinefunction(value.value)
        return isinstance(value, SourceFunction) and isinstance(value.node, ast.AsyncFunctionDef)


def _attribute_hooks(owner: Any, name: str) -> Iterator[Any]:
    """The functions that reading the attribute `name` may run; `owner` is an object, or a class for all its objects."""
    if owner is None:
        return
    if isinstance(owner, types.ModuleType):
        if name not in vars(owner):
            yield vars(owner).get("__getattr__")
        return
    kind: Any = owner if isinstance(owner, type) else type(owner)
    static: Any = inspect.getattr_static(kind, name, _MISSING)
    if isinstance(static, (property, functools.cached_property)):
        yield static
    yield inspect.getattr_static(kind, "__getattribute__", None)
    if (
        static is _MISSING
        and inspect.getattr_static(owner, name, _MISSING) is _MISSING
        and not _mentions_attribute(kind, name)
    ):
        yield inspect.getattr_static(kind, "__getattr__", None)


def _mentions_attribute(kind: type, name: str) -> bool:
    """Whether a method of the class mentions the attribute, as `__init__` does when it sets it."""
    return any(
        name in code.co_names
        for method in reachability.methods_of(kind)
        if method.__name__ != "__getattr__"
        for code in reachability.codes_of(method.__code__)
    )


def is_from_source(value: Value) -> bool:
    """Whether `value` comes from a source file, not from an imported module."""
    if isinstance(value, (SourceModule, SharedObject)):
        return True
    kind = value.cls if isinstance(value, Instance) else value
    return isinstance(kind, (SourceFunction, SourceClass)) and isinstance(kind.scope.namespace, SourceModule)


def user_roots() -> list[Path]:
    """The folders of the search path that contain the user's own modules."""
    paths = [Path(entry or ".") for entry in sys.path]
    return [path for path in paths if path.is_dir() and OWNERSHIP.is_user_file(str(path / "module.py"))]


def body_of_definition(value: SourceFunction) -> FunctionBody:
    """The body of a function that is known from the source only, such as a nested one."""
    label = "<lambda>" if isinstance(value.node, ast.Lambda) else value.node.name
    source = source_of_scope(value.scope)
    io_only = not OWNERSHIP.is_user_file(source.filename)
    return FunctionBody(id(value.node), value.node, source, value.scope, label, (), value.receiver, io_only)


def source_of_scope(scope: Scope) -> Any:
    """The source that contains a scope; the scan of a function sets it on the scope of the body."""
    current: Scope | None = scope
    while current is not None:
        if current.source is not None:
            return current.source
        current = current.parent
    msg = "a scope without a source"
    raise UnsupportedInWorkflowError(msg)


def class_member(kind: SourceClass, name: str) -> FunctionNode | ast.expr | None:
    """The statement or expression to which the class body binds `name`."""
    for statement in kind.node.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and statement.name == name:
            return statement
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in statement.targets
        ):
            return statement.value
    return None


def _member(kind: SourceClass, name: str, receiver: Value | None) -> list[Value]:
    found = class_member(kind, name)
    if isinstance(found, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return [SourceFunction(found, kind.scope, receiver)]
    return []


def _is_property(node: FunctionNode) -> bool:
    decorators = [] if isinstance(node, ast.Lambda) else [ast.unparse(each) for each in node.decorator_list]
    return any(each.rpartition(".")[2] in {"property", "cached_property"} for each in decorators)


def _import_named(name: str) -> Any | None:
    """The object with a full name, if its module is imported."""
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        module = sys.modules.get(".".join(parts[:split]))
        if module is not None:
            found: Any = module
            for part in parts[split:]:
                found = getattr(found, part, None)
            return found
    return None


def _sets_own_attribute(kind: type, name: str) -> bool:
    """Whether a method of the class stores the attribute on `self`, which hides the one that all objects share."""
    return any(
        each.opname == "STORE_ATTR" and each.argval == name
        for base in _interpreter.bases(kind)
        for _name, method in _interpreter.attributes(base)
        if isinstance(method, types.FunctionType) and name in method.__code__.co_names
        for each in bytecode.instructions(method.__code__)
    )


def is_foreign(kind: type) -> bool:
    """Whether a class is not the user's, so that reading its attributes runs no user code."""
    module = sys.modules.get(kind.__module__)
    filename = getattr(module, "__file__", None)
    return filename is None or not OWNERSHIP.is_followed(filename)


def _bound_in_base(owner: Any, name: str, static: Any) -> Any:
    """`Subclass.now` of a user's subclass of `datetime`: the method of the base class, bound to the subclass."""
    if isinstance(static, (types.ClassMethodDescriptorType, types.BuiltinFunctionType)):
        return getattr(owner, name, static)
    return static


def _takes_receiver(function: types.FunctionType, receiver: Value | None) -> bool:
    return receiver is not None and function.__code__.co_argcount > 0


def _is_context(kind: type) -> bool:
    """Whether a class is the context of an async workflow or of a generator orchestrator."""
    return issubclass(kind, AsyncWorkflowContext) or any(
        (base.__module__, base.__name__) == ("durabletask.task", "OrchestrationContext") for base in kind.__mro__
    )
