"""Lexical scopes: which names a function binds, and to what. The order of statements is ignored."""

from __future__ import annotations

import ast
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from durabletask_aio.sandbox.code import _interpreter
from durabletask_aio.sandbox.code.values import Value, identity

_NESTED: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass(frozen=True)
class Imported:
    """A name bound by an import statement: the module, and the name imported from it if there is one."""

    module: str
    member: str | None
    level: int = 0


@dataclass(frozen=True)
class Entered:
    """A name bound by `with ... as name`."""

    expression: ast.expr


@dataclass(frozen=True)
class Element:
    """A name bound to an element of a collection: the variable of a loop, or one of several in an assignment."""

    collection: ast.expr
    loop: ast.For | ast.AsyncFor | ast.comprehension | None = None


@dataclass(frozen=True)
class Annotated:
    """A name with an annotation."""

    annotation: ast.expr


@dataclass(frozen=True)
class Unknown:
    """A name bound to something that is not followed, such as the variable of a loop."""


Definition: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef"
Binding: TypeAlias = "ast.expr | Definition | Imported | Entered | Element | Annotated | Unknown"

STAR: Final = "*"
"""The name under which a scope keeps its star imports."""
_ADDS_LAST_ARGUMENT: Final = frozenset({"append", "appendleft", "add", "insert", "setdefault", "extend", "update"})
_KEEPS_ORDER: Final = frozenset({"append", "appendleft", "extend"})


@dataclass
class Additions:
    """What statements add to a collection that a name holds, and in which order."""

    elements: list[ast.expr] = field(default_factory=list[ast.expr])
    """The elements that are added, by `append`, `setdefault`, `collection[key] = element` and so on."""
    loops: list[ast.expr] = field(default_factory=list[ast.expr])
    """What is iterated over by the loops in which elements are appended."""


class Scope:
    """A function, class or module, and the bindings of its names.

    `namespace` belongs to the resolver: it is the module of a file, or one of this process. Names at the top of a
    module (`is_module`) are looked up by the resolver, because objects there outlive a workflow.

    The bindings are collected when a name is first looked up; most functions of a checked file are never scanned.
    """

    def __init__(
        self,
        namespace: Any,
        parent: Scope | None = None,
        *,
        source: Any = None,
        is_module: bool = False,
        arguments: ast.arguments | None = None,
        statements: list[ast.stmt] | None = None,
    ) -> None:
        self.namespace = namespace
        self.parent = parent
        self.source = source
        """The `Source` of the code in this scope."""
        self.is_module = is_module
        self.argument_values: dict[str, list[Value]] = {}
        """Values of parameters, from the call by which the function was reached."""
        self._arguments = arguments
        self._statements = statements
        self._bindings: dict[str, list[Binding]] = {}
        self._defaults: dict[str, ast.expr] = {}
        self._global_names: set[str] = set()
        self._additions: dict[str, Additions] = {}

    def given(self) -> list[Value]:
        """The values of all parameters that are known from a call."""
        return [value for values in self.argument_values.values() for value in values]

    def key(self, depth: int = 2) -> Hashable:
        """A key of what is known about the variables of this scope and of those around it."""
        known = tuple(
            (name, identity(value, depth)) for name, values in self.argument_values.items() for value in values
        )
        outer = self.parent.key(depth) if self.parent is not None and not self.parent.is_module else None
        return (known, outer) if known or outer is not None else None

    def _collect(self) -> None:
        arguments, statements = self._arguments, self._statements
        self._arguments = self._statements = None
        if arguments is not None:
            bind_parameters(self, arguments)
        if statements is not None:
            bind_statements(self, statements)

    @property
    def bindings(self) -> dict[str, list[Binding]]:
        self._collect()
        return self._bindings

    @property
    def defaults(self) -> dict[str, ast.expr]:
        """Defaults of parameters; they are evaluated in the enclosing scope."""
        self._collect()
        return self._defaults

    @property
    def global_names(self) -> set[str]:
        """Names declared by a `global` statement."""
        self._collect()
        return self._global_names

    @property
    def additions(self) -> dict[str, Additions]:
        """By dotted name (`items`, `self.items`): what is added to the collection that it holds."""
        self._collect()
        return self._additions

    def is_assigned(self, name: str) -> bool:
        """Whether the name of a parameter is also bound by a statement."""
        return any(not isinstance(each, (Annotated, Unknown)) for each in self.bindings.get(name, ()))

    def binds(self, name: str) -> bool:
        return name not in self.global_names and (name in self.bindings or name in self.argument_values)


def bind_statements(scope: Scope, statements: list[ast.stmt]) -> Scope:
    """Enter every name that the statements bind into `scope`; nested functions have scopes of their own."""
    for statement in statements:
        for node in own_nodes(statement):
            _bind(scope, node)
            _add(scope, node)
    return scope


def own_nodes(root: ast.AST) -> Iterator[ast.AST]:
    """`root` and the nodes below it, in no particular order, without the bodies of nested functions and classes."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, _NESTED):
            continue
        for name in node._fields:
            value: Any = getattr(node, name, None)
            if isinstance(value, ast.AST):
                stack.append(value)
            elif isinstance(value, list):
                stack.extend(each for each in _interpreter.elements(value) if isinstance(each, ast.AST))


def _bind(scope: Scope, node: ast.AST) -> None:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            _bind_target(scope, target, node.value)
    elif isinstance(node, ast.AnnAssign):
        _bind_target(scope, node.target, node.value or Annotated(node.annotation))
    elif isinstance(node, ast.NamedExpr):
        _bind_target(scope, node.target, node.value)
    elif isinstance(node, ast.AugAssign):
        _bind_target(scope, node.target, Unknown())
    elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
        _bind_target(scope, node.target, Element(node.iter, node))
    elif isinstance(node, (ast.With, ast.AsyncWith)):
        for item in node.items:
            if item.optional_vars is not None:
                _bind_target(scope, item.optional_vars, Entered(item.context_expr))
    else:
        _bind_statement(scope, node)


def _bind_statement(scope: Scope, node: ast.AST) -> None:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        scope.bindings.setdefault(node.name, []).append(node)
    elif isinstance(node, ast.Global):
        scope.global_names.update(node.names)
    elif isinstance(node, ast.ExceptHandler):
        if node.name is not None:
            scope.bindings.setdefault(node.name, []).append(Unknown())
    else:
        _bind_import(scope, node)


def _add(scope: Scope, node: ast.AST) -> None:
    """Enter what a statement or call adds to a collection."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        name = dotted_name(node.func.value)
        if name is not None and node.func.attr in _ADDS_LAST_ARGUMENT:
            scope.additions.setdefault(name, Additions()).elements.append(_added(node.func.attr, node.args[-1]))
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            name = dotted_name(target.value) if isinstance(target, ast.Subscript) else None
            if name is not None:
                scope.additions.setdefault(name, Additions()).elements.append(node.value)
    elif isinstance(node, (ast.For, ast.AsyncFor)):
        for statement in node.body:
            for each in own_nodes(statement):
                if (
                    isinstance(each, ast.Call)
                    and isinstance(each.func, ast.Attribute)
                    and each.func.attr in _KEEPS_ORDER
                ):
                    name = dotted_name(each.func.value)
                    if name is not None:
                        scope.additions.setdefault(name, Additions()).loops.append(node.iter)


def _added(method: str, argument: ast.expr) -> ast.expr:
    """The element that a method adds; `extend` and `update` are given a collection of elements."""
    if method not in {"extend", "update"}:
        return argument
    index = ast.copy_location(ast.Constant(0), argument)
    return ast.copy_location(ast.Subscript(argument, index, ast.Load()), argument)


def dotted_name(node: ast.expr) -> str | None:
    """`name` or `name.attribute` as text; `None` for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return None


def _bind_import(scope: Scope, node: ast.AST) -> None:
    if isinstance(node, ast.Import):
        for alias in node.names:
            # `import a.b` binds `a`; `import a.b as c` binds `c` to `a.b`.
            name = alias.asname or alias.name.partition(".")[0]
            module = alias.name if alias.asname else name
            scope.bindings.setdefault(name, []).append(Imported(module, None))
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            imported = Imported(node.module or "", alias.name, node.level)  # the name is `STAR` for a star import
            scope.bindings.setdefault(alias.asname or alias.name, []).append(imported)


def _bind_target(scope: Scope, target: ast.expr, value: Binding) -> None:
    if isinstance(target, ast.Name):
        scope.bindings.setdefault(target.id, []).append(value)
    elif isinstance(target, ast.Starred):
        _bind_target(scope, target.value, Unknown())
    elif isinstance(target, (ast.Tuple, ast.List)):
        parts = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
        fits = len(parts) == len(target.elts) and not any(isinstance(part, ast.Starred) for part in parts)
        for index, element in enumerate(target.elts):
            _bind_target(scope, element, parts[index] if fits else _element_of(value))


def _element_of(value: Binding) -> Binding:
    if isinstance(value, Element):
        first = ast.copy_location(ast.Constant(0), value.collection)
        return Element(ast.copy_location(ast.Subscript(value.collection, first, ast.Load()), value.collection))
    return Element(value) if isinstance(value, ast.expr) else Unknown()


def parameters(arguments: ast.arguments) -> list[ast.arg]:
    """The parameters that can be given by position, in order."""
    return [*arguments.posonlyargs, *arguments.args]


def bind_parameters(scope: Scope, arguments: ast.arguments) -> None:
    """Enter the parameters of a function, with their annotations and defaults."""
    positional = parameters(arguments)
    first_default = len(positional) - len(arguments.defaults)
    for index, parameter in enumerate(positional):
        default = arguments.defaults[index - first_default] if index >= first_default else None
        _bind_parameter(scope, parameter, default)
    for parameter, keyword_default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        _bind_parameter(scope, parameter, keyword_default)
    for extra in (arguments.vararg, arguments.kwarg):
        if extra is not None:
            scope.bindings.setdefault(extra.arg, []).append(Unknown())


def _bind_parameter(scope: Scope, parameter: ast.arg, default: ast.expr | None) -> None:
    found = scope.bindings.setdefault(parameter.arg, [])
    if parameter.annotation is not None:
        found.append(Annotated(parameter.annotation))
    if default is not None:
        scope.defaults[parameter.arg] = default
    if not found:
        found.append(Unknown())
