"""The resolver for source files: names are followed through import statements, and nothing is imported.

A module that is found on the search path as source is followed. Anything else (the standard library, installed
packages) is a dotted name, which is compared with the catalogue as text.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from durabletask_aio.sandbox.code.evaluator import Evaluator
from durabletask_aio.sandbox.code.name_resolver import DefaultFactory, FunctionBody
from durabletask_aio.sandbox.code.scopes import STAR, Annotated, Binding, Element, Entered, Imported, Scope, parameters
from durabletask_aio.sandbox.code.values import (
    ContainerValue,
    ExternalName,
    Instance,
    SharedObject,
    SourceClass,
    SourceFunction,
    SuperObject,
    Value,
)
from durabletask_aio.sandbox.rules.allowance import ALLOW_NAMES
from durabletask_aio.sandbox.rules.catalogue import Call, Catalogue
from durabletask_aio.sandbox.rules.conditions import MANY_ARGUMENTS
from durabletask_aio.sandbox.static import source_classes
from durabletask_aio.sandbox.static.annotations import is_class_name, values_of_annotation
from durabletask_aio.sandbox.static.shared_values import SharedValues, shared, source_around
from durabletask_aio.sandbox.static.source_classes import CREATION_METHODS, member
from durabletask_aio.sandbox.static.source_modules import SourceModule, SourceModules

_BUILTINS: Final = frozenset(vars(builtins))
PATH_RETURNING_METHODS: Final = (
    "with_name",
    "with_suffix",
    "with_stem",
    "joinpath",
    "resolve",
    "absolute",
    "expanduser",
)
"""Methods of a path that return a path."""
_PATH: Final = "pathlib.Path"
_PATH_MAKERS: Final = frozenset(f"{_PATH}.{name}" for name in PATH_RETURNING_METHODS)
_FOLLOWED: Final = 8


class SourceResolver:
    """Implements `code.name_resolver.NameResolver` on source files."""

    def __init__(
        self,
        catalogue: Catalogue,
        roots: list[Path],
        followed: Mapping[str, bool] = MappingProxyType({}),
    ) -> None:
        self.catalogue = catalogue
        self._modules = SourceModules(roots, followed)
        self._evaluator = Evaluator(self)
        self._shared_values = SharedValues(self, self._evaluator, catalogue)
        self._depth = 0
        self._names: dict[tuple[int, str], list[Value]] = {}
        """By id of a module and name: the values of its variables, as far as they do not depend on who asks."""

    # Modules -----------------------------------------------------------------------------------------------------

    def add(self, name: str, path: Path, text: str) -> SourceModule:
        """Add a file that is to be checked."""
        return self._modules.add(name, path, text)

    def parsed_modules(self) -> list[SourceModule]:
        """The modules whose syntax tree was needed, but for those of installed packages that are followed for I/O."""
        return self._modules.parsed()

    def consulted_modules(self) -> list[SourceModule]:
        """The modules that were parsed, and those that imports have led to."""
        return self._modules.consulted()

    def missing_modules(self) -> list[tuple[Path | None, str]]:
        """The names of modules that were looked for in vain, each with the root of the importing file."""
        return self._modules.missing()

    def module(self, name: str, importer: SourceModule | None = None) -> SourceModule | None:
        """The project's module of this name, read when it is first requested."""
        return self._modules.find(name, importer)

    def import_module(self, name: str, scope: Scope) -> list[Value]:
        importer = scope.namespace if isinstance(scope.namespace, SourceModule) else None
        name = importer.absolute(name) if importer is not None else name
        module = self.module(name, importer)
        return [module] if module is not None else [ExternalName(name)]

    # Names -------------------------------------------------------------------------------------------------------

    def look_up(self, name: str, scope: Scope) -> list[Value]:
        found = self._in_module(scope.namespace, name)
        if found or scope.namespace.scope.binds(name):
            return found
        return [ExternalName(f"builtins.{name}")] if name in _BUILTINS else []

    @contextmanager
    def _deeper(self) -> Iterator[bool]:
        """One more step along imports and base classes, which may form a circle; false if there were too many."""
        self._depth += 1
        try:
            self._evaluator.cut_off += self._depth > _FOLLOWED
            yield self._depth <= _FOLLOWED
        finally:
            self._depth -= 1

    def _in_module(self, module: SourceModule, name: str) -> list[Value]:
        known = self._names.get((id(module), name))
        if known is None:
            before = self._evaluator.cut_off
            known = self._bound_in(module, name)
            if self._evaluator.cut_off == before:
                self._names[id(module), name] = known
        return [*known]

    def _bound_in(self, module: SourceModule, name: str) -> list[Value]:
        with self._deeper() as is_possible:
            if not is_possible:
                return []
            bindings = module.scope.bindings.get(name)
            if bindings is not None:
                found = [each for binding in bindings for each in self._of_binding(binding, module, name)]
                return self._evaluator.with_additions(found, name, module.scope)
            stars = [each for each in module.scope.bindings.get(STAR, ()) if isinstance(each, Imported)]
            return [found for each in stars for found in self._of_star_import(each, module, name)]

    def _of_star_import(self, star: Imported, module: SourceModule, name: str) -> list[Value]:
        found: list[Value] = []
        for value in self.import_module("." * star.level + star.module, module.scope):
            if isinstance(value, SourceModule) and value is not module and _exports(value, name):
                found += self._in_module(value, name)
            elif isinstance(value, ExternalName) and self._is_catalogued(f"{value.name}.{name}"):
                found.append(ExternalName(f"{value.name}.{name}"))
        return found

    def _is_catalogued(self, name: str) -> bool:
        return self.catalogue.find(name) is not None or name in self.catalogue.owners

    def _of_binding(self, binding: Binding, module: SourceModule, name: str) -> list[Value]:
        if isinstance(binding, Imported):
            return self._imported(binding, module)
        if isinstance(binding, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return [SourceFunction(binding, module.scope)]
        if isinstance(binding, ast.ClassDef):
            return [SourceClass(binding, module.scope)]
        if isinstance(binding, Annotated):
            return self.annotated(binding.annotation, module.scope)
        if isinstance(binding, (Element, Entered)):
            return []
        return self._shared_values.assigned(binding, module.scope, name) if isinstance(binding, ast.expr) else []

    def _expression(self, node: ast.expr, scope: Scope) -> list[Value]:
        return self._evaluator.values(node, scope)

    def _imported(self, binding: Imported, module: SourceModule) -> list[Value]:
        dotted = "." * binding.level + binding.module
        found = self.import_module(dotted, module.scope)
        if binding.member is None:
            return found
        members = [each for value in found for each in self.attribute(value, binding.member)]
        if members:
            return members
        full_name = f"{dotted}{binding.member}" if dotted.endswith(".") else f"{dotted}.{binding.member}"
        return self.import_module(full_name, module.scope)

    # Attributes --------------------------------------------------------------------------------------------------

    def attribute(self, value: Value, name: str) -> list[Value]:
        if isinstance(value, SourceModule):
            found = self._in_module(value, name)
            if found or value.scope.binds(name):
                return found
            submodule = self.module(f"{value.name}.{name}", value) if value.is_package else None
            return [submodule] if submodule is not None else []
        if isinstance(value, ExternalName):
            # `import a.b` binds `a`, so the attribute may be a module of the project.
            dotted = f"{value.name}.{name}"
            module = self.module(dotted) if self.module(value.name.partition(".")[0]) is not None else None
            return [module] if module is not None else [ExternalName(dotted)]
        if isinstance(value, Instance):
            is_path = name == "parent" and value.cls == ExternalName(_PATH)
            return [value] if is_path else self._of_instance(value, name)
        if isinstance(value, SourceClass):
            found = source_classes.for_class(self._of_class(value, name, None), value)
            return found or self._of_class_body(value, name, is_shared=True)
        if isinstance(value, SuperObject):
            return self._of_bases(value, name)
        if isinstance(value, SharedObject) and value.is_random:
            return [SharedObject(f"{value.name}.{name}", value.kind, is_random=True)]
        return []

    def _of_bases(self, value: SuperObject, name: str) -> list[Value]:
        """The attribute of the base classes of the class in which `super()` is written."""
        kind = value.receiver.cls if isinstance(value.receiver, Instance) else value.receiver
        line = value.node.lineno
        around = [
            each
            for each in (self._lineage(kind) if isinstance(kind, SourceClass) else ())
            if each.scope.namespace is value.namespace and each.node.lineno <= line <= (each.node.end_lineno or 0)
        ]
        return [
            found
            for each in around[-1:]
            for base in self._bases(each)
            for found in self._of_class(_inherited(base, kind), name, value.receiver)
        ]

    def _of_instance(self, value: Instance, name: str) -> list[Value]:
        if not isinstance(value.cls, SourceClass):
            return self._of_class(value.cls, name, value)
        getter = next((each for kind in reversed(self._lineage(value.cls)) if (each := member(kind, name))), None)
        if getter is not None and source_classes.is_property(getter):
            return self._evaluator.returned_by(self.body_of(SourceFunction(getter, value.cls.scope, value)))
        methods = self._of_class(value.cls, name, value)
        if any(isinstance(each, SourceFunction) for each in methods):
            return source_classes.for_class(methods, value.cls)
        held = self._held(value, value.cls, name)
        return [*held, *(each for each in methods if not held or isinstance(each, SourceFunction))]

    def _held(self, value: Instance, kind: SourceClass, name: str) -> list[Value]:
        """What the attribute of an object holds: from the class body, or assigned to `self` by a method."""
        with self._deeper() as is_possible:
            if not is_possible:
                return []
            on_self = list(source_classes.values_on_self(kind, name))
            found = [
                each
                for method, node in on_self
                for each in self._held_by_method(value, SourceFunction(method.node, method.scope, value), node, name)
            ]
            in_body = self._of_class_body(kind, name, is_shared=not on_self)
            given = [each for field, each in value.arguments if field == name and not on_self]
            found += [*given, *in_body]
            if not found:
                bases = [each for each in self._bases(kind) if isinstance(each, SourceClass)]
                found = [each for base in bases for each in self._held(value, base, name)]
            return [shared(each) for each in found] if value.is_shared else found

    def _held_by_method(
        self, value: Instance, method: SourceFunction, node: ast.expr | Annotated, name: str
    ) -> list[Value]:
        body = self.body_of(method)
        scope = self._evaluator.scope_of(body, value.arguments if body.label == "__init__" else ())
        if isinstance(node, Annotated):
            return self.annotated(node.annotation, scope)
        found = self._evaluator.values(node, scope)
        if value.is_shared and any(isinstance(each, ContainerValue) for each in found):
            elements = [part for each in found if isinstance(each, ContainerValue) for part in each.elements]
            return [SharedObject(name, "a collection", elements=tuple(elements))]
        receiver = parameters(method.node.args)[0].arg
        return self._evaluator.with_additions(found, f"{receiver}.{name}", scope)

    def _of_class(self, kind: Value, name: str, receiver: Value | None) -> list[Value]:
        if isinstance(kind, ExternalName):
            return [ExternalName(f"{kind.name}.{name}", kind.owner)]
        if not isinstance(kind, SourceClass):
            return []
        method = member(kind, name)
        if method is not None:
            if source_classes.is_property(method):
                return []
            return [SourceFunction(method, kind.scope, source_classes.receiver_of(method, receiver))]
        with self._deeper() as is_possible:
            if not is_possible:
                return []
            owner = receiver.cls if isinstance(receiver, Instance) else receiver or kind
            return [
                each for base in self._bases(kind) for each in self._of_class(_inherited(base, owner), name, receiver)
            ]

    def _of_class_body(self, kind: SourceClass, name: str, *, is_shared: bool) -> list[Value]:
        """What the class body binds the name to; objects of the class share it unless it is a field."""
        found: list[Value] = []
        for node in source_classes.values_in_body(kind, name):
            if isinstance(node, Annotated):
                found += self.annotated(node.annotation, kind.scope)
                continue
            factory = source_classes.factory_of(node)
            if factory is not None:
                call = ast.copy_location(ast.Call(factory, [], []), factory)
                found += [
                    each
                    for value in self._expression(factory, kind.scope)
                    for each in self._evaluator.result(value, call, kind.scope)
                ]
            elif is_shared:
                found += self._shared_values.assigned(node, kind.scope, name)
        if not found:
            bases = [each for each in self._bases(kind) if isinstance(each, SourceClass)]
            with self._deeper() as is_possible:
                if is_possible:
                    found = [each for base in bases for each in self._of_class_body(base, name, is_shared=is_shared)]
        return found

    def _bases(self, kind: SourceClass) -> list[Value]:
        nodes = [each.value if isinstance(each, ast.Subscript) else each for each in kind.node.bases]
        return [base for node in nodes for base in self._expression(node, kind.scope)]

    def _lineage(self, kind: SourceClass) -> list[SourceClass]:
        """The class and its base classes in the checked source, bases first."""
        with self._deeper() as is_possible:
            bases = [each for each in self._bases(kind) if isinstance(each, SourceClass)] if is_possible else []
            return [*(found for base in bases for found in self._lineage(base)), kind]

    def _metaclasses(self, kind: SourceClass) -> list[Value]:
        return [
            found
            for keyword in kind.node.keywords
            if keyword.arg == "metaclass"
            for found in self._expression(keyword.value, kind.scope)
        ]

    def element(self, value: Value) -> list[Value]:
        if isinstance(value, SharedObject):
            return list(value.elements)
        if isinstance(value, Instance) and isinstance(value.cls, ExternalName):
            return self._of_external(f"{value.cls.name}.__getitem__", value)
        return []

    def result(self, value: Value) -> list[Value]:
        if isinstance(value, SourceClass):
            return [Instance(value)]
        if isinstance(value, Instance) and isinstance(value.cls, ExternalName):
            return self._of_external(f"{value.cls.name}.__call__", value)
        if not isinstance(value, ExternalName):
            return []
        if value.owner is not None and value.name in self.catalogue.creators:
            return [Instance(value.owner)]
        if value.name in _PATH_MAKERS:
            return [Instance(ExternalName(_PATH))]
        made = self._of_external(value.name, value)
        return made or ([Instance(value)] if is_class_name(value) else [])

    def _of_external(self, name: str, value: Value) -> list[Value]:
        made = self.catalogue.results.get(name)
        is_shared = isinstance(value, Instance) and value.is_shared
        return [Instance(ExternalName(made), is_shared)] if made is not None else []

    # What values are ---------------------------------------------------------------------------------------------

    def call(self, value: Value) -> Call | None:
        if isinstance(value, SourceClass):
            bases = [each for kind in self._lineage(value) for each in self._bases(kind)]
            found = [self.catalogue.inherited.get(each.name) for each in bases if isinstance(each, ExternalName)]
            return next(filter(None, found), None)
        return self.catalogue.find(value.name) if isinstance(value, ExternalName) else None

    def owns_calls(self, value: Value) -> bool:
        return isinstance(value, ExternalName) and value.name in self.catalogue.owners

    def bodies(self, value: Value) -> list[FunctionBody]:
        if isinstance(value, SourceFunction):
            return [self.body_of(each) for each in (value, *self._implementations(value), *self._wrappers(value))]
        if isinstance(value, ExternalName) and value.owner is not None and value.name in self.catalogue.creators:
            value = value.owner
        if isinstance(value, SourceClass):
            instance = Instance(value)
            made = [found for name in CREATION_METHODS for found in self._of_class(value, name, instance)]
            made += [found for kind in self._metaclasses(value) for found in self._of_class(kind, "__call__", value)]
            made += [
                replace(each, receiver=instance if each.node.args.args else None)
                for kind in self._lineage(value)
                for each in source_classes.validators(kind)
            ]
            return [self.body_of(found) for found in made if isinstance(found, SourceFunction)]
        return []

    def factories(self, value: Value) -> list[DefaultFactory]:
        if isinstance(value, ExternalName) and value.owner is not None and value.name in self.catalogue.creators:
            value = value.owner
            models = self._models(value)
            # Which fields the data has is not known, so that none counts as given.
            made = [each for kind in models for each in source_classes.default_factories(kind)]
            return [replace(each, position=MANY_ARGUMENTS) for each in made]
        if not isinstance(value, SourceClass):
            return []
        found: list[DefaultFactory] = []
        count = 0
        for kind in self._lineage(value):
            found += [replace(each, position=each.position + count) for each in source_classes.default_factories(kind)]
            count += len(source_classes.fields(kind))
        return found

    def _models(self, value: Value) -> list[SourceClass]:
        """A model and those in its fields, all of which reading one from data creates."""
        found: dict[int, SourceClass] = {}
        queue = [value]
        while queue:
            kind = queue.pop()
            if not isinstance(kind, SourceClass) or id(kind.node) in found:
                continue
            for each in self._lineage(kind):
                found[id(each.node)] = each
                for field in source_classes.fields(each):
                    queue += _classes_in(self.annotated(field.annotation, each.scope))
        return list(found.values())

    def creation_parameters(self, value: SourceClass) -> list[str]:
        """The names of the arguments with which an object of a class is created, in order."""
        for kind in reversed(self._lineage(value)):
            method = member(kind, "__init__")
            if method is not None:
                return [each.arg for each in parameters(method.args)[1:]]
        return [
            field.target.id
            for kind in self._lineage(value)
            for field in source_classes.fields(kind)
            if isinstance(field.target, ast.Name)
        ]

    def _implementations(self, value: SourceFunction) -> list[SourceFunction]:
        """The registered implementations of a `functools.singledispatch` function, which also run when it is called."""
        if isinstance(value.node, ast.Lambda) or not value.node.decorator_list:
            return []
        if not any(ast.unparse(each).endswith("singledispatch") for each in value.node.decorator_list):
            return []
        register = f"{value.node.name}.register"
        return [
            SourceFunction(node, value.scope)
            for node in value.scope.namespace.source.tree.body
            if isinstance(node, ast.FunctionDef)
            and any(ast.unparse(each).startswith(register) for each in node.decorator_list)
        ]

    def _wrappers(self, value: SourceFunction) -> list[SourceFunction]:
        """The nested functions that decorators of the project return in place of the function."""
        decorators = [] if isinstance(value.node, ast.Lambda) else value.node.decorator_list
        found: list[SourceFunction] = []
        for decorator in decorators:
            is_called = isinstance(decorator, ast.Call)
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            makers = [each for each in self._expression(called, value.scope) if isinstance(each, SourceFunction)]
            for level in range(2 if is_called else 1):
                is_last = level == is_called
                makers = [
                    each
                    for maker in makers
                    for each in source_classes.returned_functions(
                        maker, self._decorated_scope(maker, value if is_last else None)
                    )
                ]
            found += [replace(each, receiver=value.receiver) for each in makers]
        return found

    def _decorated_scope(self, maker: SourceFunction, decorated: SourceFunction | None) -> Scope:
        """The scope inside of a decorator, whose first parameter is the function that it is applied to."""
        names = parameters(maker.node.args)
        plain = () if decorated is None or not names else ((names[0].arg, decorated),)
        return self._evaluator.scope_of(self.body_of(maker), plain)

    def body_of(self, value: SourceFunction) -> FunctionBody:
        label = "<lambda>" if isinstance(value.node, ast.Lambda) else value.node.name
        allowed = tuple(self._allowed(value))
        source = source_around(value.scope)
        io_only = isinstance(value.scope.namespace, SourceModule) and value.scope.namespace.io_only
        key = (id(value.node), value.scope.key())
        return FunctionBody(key, value.node, source, value.scope, label, allowed, value.receiver, io_only)

    def _allowed(self, value: SourceFunction) -> list[str]:
        names: list[str] = []
        for decorator in [] if isinstance(value.node, ast.Lambda) else value.node.decorator_list:
            if not isinstance(decorator, ast.Call) or not isinstance(value.scope.namespace, SourceModule):
                continue
            found = {self.full_name(each) for each in self._expression(decorator.func, value.scope)}
            if found & ALLOW_NAMES:
                given = [str(each.value) for each in decorator.args if isinstance(each, ast.Constant)]
                names.extend(given or ["*"])
        return names

    def reading(self, value: Value, name: str) -> list[FunctionBody]:
        if isinstance(value, SourceModule) and not value.scope.binds(name):
            return [
                self.body_of(found)
                for found in self._in_module(value, "__getattr__")
                if isinstance(found, SourceFunction) and self.module(f"{value.name}.{name}", value) is None
            ]
        kind = value.cls if isinstance(value, Instance) else None
        if not isinstance(kind, SourceClass):
            return []
        read = [
            SourceFunction(method, each.scope, value)
            for each in self._lineage(kind)
            if (method := member(each, name)) is not None and source_classes.is_property(method)
        ]
        # Of several classes that define it, the last is the most derived one.
        hooks = (
            ["__getattribute__"]
            if source_classes.may_have_attribute(kind.node, name)
            else ["__getattribute__", "__getattr__"]
        )
        found = [*read[-1:], *(each for method in hooks for each in self._of_class(kind, method, value))]
        found += self._descriptors(kind, name)
        return [self.body_of(each) for each in found if isinstance(each, SourceFunction)]

    def _descriptors(self, kind: SourceClass, name: str) -> list[Value]:
        """The `__get__` of a descriptor in the class body."""
        held = [
            each
            for node in source_classes.values_in_body(kind, name)
            if not isinstance(node, Annotated)
            for each in self._expression(node, kind.scope)
        ]
        return [
            found for each in held if isinstance(each, Instance) for found in self._of_class(each.cls, "__get__", each)
        ]

    def full_name(self, value: Value) -> str | None:
        return value.name if isinstance(value, ExternalName) else None

    def annotated(self, node: ast.expr, scope: Scope) -> list[Value]:
        return values_of_annotation(node, lambda each: self._evaluator.values(each, scope))

    def is_async(self, value: Value) -> bool:
        if isinstance(value, SourceFunction):
            return isinstance(value.node, ast.AsyncFunctionDef) and not _yields(value.node)
        return isinstance(value, ExternalName) and value.name == "asyncio.sleep"


def _exports(module: SourceModule, name: str) -> bool:
    """Whether a star import of the module binds the name."""
    listed = [each for each in module.scope.bindings.get("__all__", ()) if isinstance(each, (ast.List, ast.Tuple))]
    if listed:
        return any(isinstance(part, ast.Constant) and part.value == name for each in listed for part in each.elts)
    return not name.startswith("_")


def _inherited(base: Value, owner: Value) -> Value:
    return replace(base, owner=owner) if isinstance(base, ExternalName) else base


def _classes_in(values: list[Value]) -> list[Value]:
    found: list[Value] = []
    for value in values:
        if isinstance(value, Instance):
            found.append(value.cls)
        elif isinstance(value, ContainerValue):
            found += _classes_in(list(value.elements))
    return found


def _yields(node: ast.AsyncFunctionDef) -> bool:
    return any(isinstance(each, (ast.Yield, ast.YieldFrom)) for each in ast.walk(node))
