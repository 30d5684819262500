"""The resolver for source files: names are followed through import statements, and nothing is imported.

A module that is found on the search path as source is followed. Anything else (the standard library, installed
packages) is a dotted name, which is compared with the catalogue as text.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Final

from durabletask_aio.sandbox.code.evaluator import set_from_call, set_from_display
from durabletask_aio.sandbox.code.name_resolver import DefaultFactory, FunctionBody
from durabletask_aio.sandbox.code.scopes import Annotated, Binding, Imported, Scope, own_nodes
from durabletask_aio.sandbox.code.sources import FunctionNode, Source, decoded, parse
from durabletask_aio.sandbox.code.values import (
    ContextValue,
    ExternalName,
    Instance,
    PartialFunction,
    SharedObject,
    SourceClass,
    SourceFunction,
    UnorderedValue,
    Value,
)
from durabletask_aio.sandbox.rules.allowance import ALLOW_NAMES
from durabletask_aio.sandbox.rules.catalogue import Call, Catalogue
from durabletask_aio.sandbox.rules.conditions import summary_of_node
from durabletask_aio.sandbox.rules.ownership import installed_roots, is_standard_module

_BUILTINS: Final = frozenset(vars(builtins))
_MUTABLE_MAKERS: Final = frozenset(
    {
        *("list", "dict", "set", "bytearray"),
        *("collections.deque", "collections.defaultdict", "collections.Counter", "collections.OrderedDict"),
    }
)
_ITERATOR_MAKERS: Final = frozenset({"iter", "itertools.count", "itertools.cycle"})
_RANDOM_MAKERS: Final = frozenset({"random.Random"})
CONTEXT_NAMES: Final = frozenset(
    {"AsyncWorkflowContext", "OrchestrationContext", "DurableOrchestrationContext", "DaprWorkflowContext"}
)
_ALIASES: Final = frozenset({"alias", "validation_alias"})
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
_TABLE_LIMIT: Final = 50


@dataclass(eq=False)
class SourceModule(Value):
    """A source file of the project; as a value, the module that an import of it returns."""

    name: str
    filename: str
    text: str = field(repr=False)
    is_package: bool
    io_only: bool = False
    """Whether it belongs to a package that is followed for files, network, processes and threads only."""

    def parsed(self) -> Source:
        """Parse without keeping the result: a syntax tree takes many times the memory of its text."""
        return parse(self.filename, self.text)

    @cached_property
    def source(self) -> Source:
        return self.parsed()

    @cached_property
    def scope(self) -> Scope:
        body = self.source.tree.body if self.source.tree is not None else []
        return Scope(self, source=self.source, is_module=True, statements=body)


class SourceResolver:
    """Implements `code.name_resolver.NameResolver` on source files."""

    def __init__(
        self, catalogue: Catalogue, roots: list[Path], followed: Mapping[str, bool] = MappingProxyType({})
    ) -> None:
        self._catalogue = catalogue
        self._roots = roots
        self._followed = followed
        """Installed packages to follow, by import name; the value says whether for I/O only."""
        self._modules: dict[str, SourceModule | None] = {}
        self._owners = frozenset(name.rpartition(".")[0] for name in catalogue.calls)
        self._depth = 0

    # Modules -----------------------------------------------------------------------------------------------------

    def add(self, name: str, path: Path, text: str) -> SourceModule:
        """Add a file that is to be checked."""
        module = SourceModule(name, str(path), text, path.name == "__init__.py")
        self._modules[name] = module
        return module

    def parsed_modules(self) -> list[SourceModule]:
        """The modules whose syntax tree was needed, but for those of installed packages that are followed for I/O."""
        found = [module for module in self._modules.values() if module is not None and "source" in vars(module)]
        return [module for module in found if not module.io_only]

    def module(self, name: str) -> SourceModule | None:
        """The project's module of this name, read when it is first requested."""
        if name not in self._modules:
            self._modules[name] = None
            path = _file_of(name, self._roots)
            if path is not None:
                return self.add(name, path, read_source(path))
            path = _file_of(name, installed_roots()) if self._is_followed(name) is not None else None
            if path is not None:
                module = self.add(name, path, read_source(path))
                module.io_only = bool(self._is_followed(name))
        return self._modules[name]

    def _is_followed(self, name: str) -> bool | None:
        """Whether the module is followed for I/O only; `None` if it is not followed."""
        if not self._followed or is_standard_module(name):
            return None
        found = [io_only for package, io_only in self._followed.items() if f"{name}.".startswith(f"{package}.")]
        return all(found) if found else self._followed.get("*")

    def import_module(self, name: str, scope: Scope) -> list[Value]:
        if name.startswith("."):
            name = _absolute(name, scope.namespace)
        module = self.module(name)
        if module is not None:
            return [module]
        return [ExternalName(name)]

    # Names -------------------------------------------------------------------------------------------------------

    def look_up(self, name: str, scope: Scope) -> list[Value]:
        namespace: SourceModule = scope.namespace
        if namespace.scope.binds(name):
            return self._in_module(namespace, name)
        return [ExternalName(f"builtins.{name}")] if name in _BUILTINS else []

    def _in_module(self, module: SourceModule, name: str) -> list[Value]:
        if self._depth > _FOLLOWED:
            return []
        self._depth += 1
        try:
            found: list[Value] = []
            for binding in module.scope.bindings.get(name, ()):
                found.extend(self._of_binding(binding, module, name))
            return found
        finally:
            self._depth -= 1

    def _of_binding(self, binding: Binding, module: SourceModule, name: str) -> list[Value]:
        if isinstance(binding, Imported):
            return self._imported(binding, module)
        if isinstance(binding, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return [SourceFunction(binding, module.scope)]
        if isinstance(binding, ast.ClassDef):
            return [SourceClass(binding, module.scope)]
        if isinstance(binding, Annotated):
            return self.annotated(binding.annotation, module.scope)
        return self._assigned(binding, module, name) if isinstance(binding, ast.expr) else []

    def _assigned(self, node: ast.expr, module: SourceModule, name: str) -> list[Value]:
        """The values of a variable at the top of a module: an alias, or an object that outlives every workflow."""
        if isinstance(node, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)):
            kind = f"a {type(node).__name__.removesuffix('Comp').lower()}"
            shared = SharedObject(name, kind, elements=tuple(self._table_functions(node, module)))
            return [shared, set_from_display(node)] if isinstance(node, ast.Set) else [shared]
        if isinstance(node, ast.Call):
            return self._call_result(node, module, name)
        return self._expression(node, module)

    def _table_functions(self, node: ast.expr, module: SourceModule) -> list[Value]:
        """The functions in a list or dictionary at the top of a module."""
        parts = node.values if isinstance(node, ast.Dict) else getattr(node, "elts", [])
        plain = [part for part in parts if isinstance(part, (ast.Name, ast.Attribute, ast.Lambda))]
        return [value for part in plain[:_TABLE_LIMIT] for value in self._expression(part, module)]

    def _call_result(self, node: ast.Call, module: SourceModule, name: str) -> list[Value]:
        found: list[Value] = []
        for value in self._expression(node.func, module):
            made = (self.full_name(value) or "").removeprefix("builtins.")
            if made in _RANDOM_MAKERS:
                found.append(SharedObject(name, "a random generator", is_random=True))
            elif made in _MUTABLE_MAKERS:
                found.append(SharedObject(name, f"a {made.rpartition('.')[2]}"))
                found += [set_from_call(node)] if made == "set" else []
            elif made == "frozenset":
                found.append(set_from_call(node))
            elif made in _ITERATOR_MAKERS:
                found.append(SharedObject(name, "an iterator", is_iterator=True))
            elif made == "functools.partial" and node.args:
                found.extend(
                    PartialFunction(inner, summary_of_node(node, 1)) if self.call(inner) is not None else inner
                    for inner in self._expression(node.args[0], module)
                )
            else:
                found += [replace(each, is_shared=True) for each in self.result(value) if isinstance(each, Instance)]
        return found

    def _expression(self, node: ast.expr, module: SourceModule) -> list[Value]:
        if isinstance(node, ast.Name):
            return self.look_up(node.id, module.scope)
        if isinstance(node, ast.Attribute):
            return [
                found for value in self._expression(node.value, module) for found in self.attribute(value, node.attr)
            ]
        if isinstance(node, ast.Lambda):
            return [SourceFunction(node, module.scope)]
        if isinstance(node, ast.BinOp):
            return [each for each in self._expression(node.left, module) if isinstance(each, Instance)]
        return self._call_result(node, module, "") if isinstance(node, ast.Call) else []

    def _imported(self, binding: Imported, module: SourceModule) -> list[Value]:
        dotted = "." * binding.level + binding.module
        found = self.import_module(dotted, module.scope)
        if binding.member is None:
            return found
        members = [member for value in found for member in self.attribute(value, binding.member)]
        if members:
            return members
        full_name = f"{dotted}{binding.member}" if dotted.endswith(".") else f"{dotted}.{binding.member}"
        return self.import_module(full_name, module.scope)

    # Attributes --------------------------------------------------------------------------------------------------

    def attribute(self, value: Value, name: str) -> list[Value]:
        if isinstance(value, SourceModule):
            if value.scope.binds(name):
                return self._in_module(value, name)
            submodule = self.module(f"{value.name}.{name}") if value.is_package else None
            return [submodule] if submodule is not None else []
        if isinstance(value, ExternalName):
            # `import a.b` binds `a`, so the attribute may be a module of the project.
            dotted = f"{value.name}.{name}"
            module = self.module(dotted) if self.module(value.name.partition(".")[0]) is not None else None
            return [module] if module is not None else [ExternalName(dotted)]
        if isinstance(value, Instance):
            is_path = name == "parent" and value.cls == ExternalName(_PATH)
            return [value] if is_path else _for_class(self._of_class(value.cls, name, value), value.cls)
        if isinstance(value, SourceClass):
            found = _for_class(self._of_class(value, name, None), value)
            return found or self._of_class_body(value, name)
        if isinstance(value, SharedObject) and value.is_random:
            return [SharedObject(f"{value.name}.{name}", value.kind, is_random=True)]
        return []

    def _of_class(self, kind: Value, name: str, receiver: Value | None) -> list[Value]:
        if isinstance(kind, ExternalName):
            return [ExternalName(f"{kind.name}.{name}")]
        if not isinstance(kind, SourceClass) or self._depth > _FOLLOWED:
            return []
        for statement in kind.node.body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and statement.name == name:
                return (
                    []
                    if _is_property(statement)
                    else [SourceFunction(statement, kind.scope, _receiver_of(statement, receiver))]
                )
        self._depth += 1
        try:
            bases = [base for node in kind.node.bases for base in self._class_expression(node, kind.scope)]
            return [found for base in bases for found in self._of_class(base, name, receiver)]
        finally:
            self._depth -= 1

    def _of_class_body(self, kind: SourceClass, name: str) -> list[Value]:
        """A mutable object in the class body, which all objects of the class share."""
        held = [
            statement.value
            for statement in kind.node.body
            if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None
            for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
            if isinstance(target, ast.Name) and target.id == name
        ]
        namespace = kind.scope.namespace
        found = [
            each
            for node in held
            if isinstance(namespace, SourceModule)
            for each in self._assigned(node, namespace, name)
        ]
        return [each for each in found if isinstance(each, (SharedObject, UnorderedValue))]

    def _class_expression(self, node: ast.expr, scope: Scope) -> list[Value]:
        return self._expression(node, scope.namespace) if isinstance(scope.namespace, SourceModule) else []

    def _metaclasses(self, kind: SourceClass) -> list[Value]:
        return [
            found
            for keyword in kind.node.keywords
            if keyword.arg == "metaclass"
            for found in self._class_expression(keyword.value, kind.scope)
        ]

    def element(self, value: Value) -> list[Value]:
        return list(value.elements) if isinstance(value, SharedObject) else []

    def result(self, value: Value) -> list[Value]:
        if isinstance(value, SourceClass):
            return [Instance(value)]
        if isinstance(value, ExternalName) and value.name in _PATH_MAKERS:
            return [Instance(ExternalName(_PATH))]
        if isinstance(value, ExternalName) and value.name.rpartition(".")[2][:1].isupper():
            return [Instance(value)]
        return []

    # What values are ---------------------------------------------------------------------------------------------

    def call(self, value: Value) -> Call | None:
        return self._catalogue.calls.get(value.name) if isinstance(value, ExternalName) else None

    def owns_calls(self, value: Value) -> bool:
        return isinstance(value, ExternalName) and value.name in self._owners

    def bodies(self, value: Value) -> list[FunctionBody]:
        if isinstance(value, SourceFunction):
            return [self.body_of(each) for each in (value, *self._implementations(value), *self._wrappers(value))]
        if isinstance(value, SourceClass):
            instance = Instance(value)
            made = [
                found
                for name in ("__init__", "__post_init__", "__new__")
                for found in self._of_class(value, name, instance)
            ]
            made += [found for kind in self._metaclasses(value) for found in self._of_class(kind, "__call__", value)]
            return [self.body_of(found) for found in made if isinstance(found, SourceFunction)]
        return []

    def factories(self, value: Value) -> list[DefaultFactory]:
        return default_factories(value) if isinstance(value, SourceClass) else []

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
        if not isinstance(value.scope.namespace, SourceModule):
            return []
        found: list[SourceFunction] = []
        for decorator in decorators:
            depth = 2 if isinstance(decorator, ast.Call) else 1
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            makers = [
                each for each in self._expression(called, value.scope.namespace) if isinstance(each, SourceFunction)
            ]
            for _ in range(depth):
                makers = [each for maker in makers for each in _returned_functions(maker)]
            found += makers
        return found

    def body_of(self, value: SourceFunction) -> FunctionBody:
        label = "<lambda>" if isinstance(value.node, ast.Lambda) else value.node.name
        allowed = tuple(self._allowed(value))
        source = _source_around(value.scope)
        io_only = isinstance(value.scope.namespace, SourceModule) and value.scope.namespace.io_only
        return FunctionBody(id(value.node), value.node, source, value.scope, label, allowed, value.receiver, io_only)

    def _allowed(self, value: SourceFunction) -> list[str]:
        names: list[str] = []
        for decorator in [] if isinstance(value.node, ast.Lambda) else value.node.decorator_list:
            if not isinstance(decorator, ast.Call) or not isinstance(value.scope.namespace, SourceModule):
                continue
            found = {self.full_name(each) for each in self._expression(decorator.func, value.scope.namespace)}
            if found & ALLOW_NAMES:
                given = [str(each.value) for each in decorator.args if isinstance(each, ast.Constant)]
                names.extend(given or ["*"])
        return names

    def reading(self, value: Value, name: str) -> list[FunctionBody]:
        if isinstance(value, SourceModule) and not value.scope.binds(name):
            return [
                self.body_of(found)
                for found in self._in_module(value, "__getattr__")
                if isinstance(found, SourceFunction) and self.module(f"{value.name}.{name}") is None
            ]
        kind = value.cls if isinstance(value, Instance) else None
        if not isinstance(kind, SourceClass):
            return []
        read = [
            self.body_of(SourceFunction(statement, kind.scope, value))
            for statement in kind.node.body
            if isinstance(statement, ast.FunctionDef) and statement.name == name and _is_property(statement)
        ]
        hooks = ["__getattribute__"] if may_have_attribute(kind.node, name) else ["__getattribute__", "__getattr__"]
        found_hooks = [found for method in hooks for found in self._of_class(kind, method, value)]
        return [*read, *(self.body_of(found) for found in found_hooks if isinstance(found, SourceFunction))]

    def full_name(self, value: Value) -> str | None:
        return value.name if isinstance(value, ExternalName) else None

    def annotated(self, node: ast.expr, scope: Scope) -> list[Value]:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                node = ast.parse(node.value, mode="eval").body
            except SyntaxError:
                return []
        if isinstance(node, ast.Subscript):
            node = node.value
        if isinstance(node, ast.BinOp):
            node = node.left
        last = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if last in CONTEXT_NAMES:
            return [ContextValue()]
        found = self._expression(node, scope.namespace) if isinstance(scope.namespace, SourceModule) else []
        return [Instance(value) for value in found if isinstance(value, SourceClass) or _is_class_name(value)]

    def is_async(self, value: Value) -> bool:
        if isinstance(value, SourceFunction):
            return isinstance(value.node, ast.AsyncFunctionDef) and not _yields(value.node)
        return isinstance(value, ExternalName) and value.name == "asyncio.sleep"


def _returned_functions(maker: SourceFunction) -> list[SourceFunction]:
    node = maker.node
    if isinstance(node, ast.Lambda):
        return []
    scope = Scope(
        maker.scope.namespace, maker.scope, source=maker.scope.source, arguments=node.args, statements=node.body
    )
    returned = {
        each.value.id
        for statement in node.body
        for each in own_nodes(statement)
        if isinstance(each, ast.Return) and isinstance(each.value, ast.Name)
    }
    nested = [each for each in node.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return [SourceFunction(each, scope) for each in nested if each.name in returned]


def default_factories(kind: SourceClass) -> list[DefaultFactory]:
    """The functions that `field(default_factory=...)` in the body of a class calls."""
    fields = [each for each in kind.node.body if isinstance(each, ast.AnnAssign) and _is_field(each)]
    found: list[DefaultFactory] = []
    for position, field_ in enumerate(fields):
        options = field_.value.keywords if isinstance(field_.value, ast.Call) else []
        aliases = frozenset(_text(each.value) for each in options if each.arg in _ALIASES)
        for option in options:
            if option.arg in {"default_factory", "factory"}:
                made = option.value if isinstance(option.value, ast.Lambda) else _lambda_calling(option.value)
                found.append(
                    DefaultFactory(ast.unparse(field_.target), aliases, position, SourceFunction(made, kind.scope))
                )
    return found


def _is_field(node: ast.AnnAssign) -> bool:
    return isinstance(node.target, ast.Name) and not {"ClassVar", "KW_ONLY"} & {
        each.attr if isinstance(each, ast.Attribute) else each.id
        for each in ast.walk(node.annotation)
        if isinstance(each, (ast.Attribute, ast.Name))
    }


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _lambda_calling(function: ast.expr) -> ast.Lambda:
    arguments = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    call = ast.copy_location(ast.Call(function, [], []), function)
    return ast.copy_location(ast.Lambda(arguments, call), function)


def read_source(path: Path) -> str:
    """The text of a file. Bytes that cannot be decoded are replaced, so that the parser can report them."""
    return decoded(path.read_bytes())


def _file_of(name: str, roots: Iterable[Path]) -> Path | None:
    """The file that an import of `name` would run, if it is below one of `roots`."""
    for root in roots:
        base = root.joinpath(*name.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def may_have_attribute(node: ast.ClassDef, name: str) -> bool:
    """Whether a class, or a base class that is not analysed, may have the attribute `name`."""
    if any(not (isinstance(base, ast.Name) and base.id == "object") for base in node.bases):
        return True
    return any(
        (isinstance(each, ast.Attribute) and each.attr == name and isinstance(each.ctx, ast.Store))
        or (isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) and each.name == name)
        or (isinstance(each, ast.Name) and each.id == name and isinstance(each.ctx, ast.Store))
        for each in ast.walk(node)
    )


def _absolute(name: str, namespace: SourceModule) -> str:
    level = len(name) - len(name.lstrip("."))
    package = namespace.name.split(".") if namespace.is_package else namespace.name.split(".")[:-1]
    base = package[: len(package) - level + 1]
    return ".".join([*base, name.lstrip(".")]).rstrip(".")


def _is_property(node: FunctionNode) -> bool:
    decorators = [] if isinstance(node, ast.Lambda) else [ast.unparse(each) for each in node.decorator_list]
    return any(each.rpartition(".")[2] in {"property", "cached_property"} for each in decorators)


def _receiver_of(node: ast.FunctionDef | ast.AsyncFunctionDef, receiver: Value | None) -> Value | None:
    static = any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in node.decorator_list)
    return None if static else receiver


def _for_class(found: list[Value], kind: Value) -> list[Value]:
    """Pass the class as the receiver of class methods; other values stay as they are."""
    return [
        replace(each, receiver=kind) if isinstance(each, SourceFunction) and _is_class_method(each.node) else each
        for each in found
    ]


def _is_class_method(node: FunctionNode) -> bool:
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return any(isinstance(each, ast.Name) and each.id == "classmethod" for each in decorators)


def _is_class_name(value: Value) -> bool:
    return isinstance(value, ExternalName) and value.name.rpartition(".")[2][:1].isupper()


def _source_around(scope: Scope) -> Source:
    current: Scope | None = scope
    while current is not None and current.source is None:
        current = current.parent
    assert current is not None, "every scope of a project is inside of a module's"
    source: Source = current.source
    return source


def _yields(node: ast.AsyncFunctionDef) -> bool:
    return any(isinstance(each, (ast.Yield, ast.YieldFrom)) for each in ast.walk(node))
