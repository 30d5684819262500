"""The syntax of classes: their methods, their fields with default factories, and the attributes that methods set."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, TypeAlias

from durabletask_aio.sandbox.code.name_resolver import DefaultFactory
from durabletask_aio.sandbox.code.scopes import Annotated, Scope, dotted_name, own_nodes, parameters
from durabletask_aio.sandbox.code.sources import FunctionNode
from durabletask_aio.sandbox.code.values import SourceClass, SourceFunction, Value

FunctionDefinition = (ast.FunctionDef, ast.AsyncFunctionDef)
CREATION_METHODS: Final = ("__init__", "__post_init__", "__attrs_post_init__", "model_post_init", "__new__")
"""Methods that creating an object runs."""
_VALIDATORS: Final = frozenset(
    {
        *("validator", "root_validator", "field_validator", "model_validator", "default"),
        *("field_serializer", "model_serializer", "validates", "reconstructor"),
    }
)
"""Decorators, by the last part of their name, of methods that creating or writing an object runs."""
_FACTORIES: Final = frozenset({"default_factory", "factory"})
_CONVERTERS: Final = frozenset({"converter", "validator"})
_VALIDATOR_TYPES: Final = frozenset({"BeforeValidator", "AfterValidator", "PlainValidator", "WrapValidator"})
_Assigned: TypeAlias = "tuple[ast.FunctionDef | ast.AsyncFunctionDef, ast.expr | Annotated]"
_LAMBDA: Final = "durabletask_aio_lambda"
_ON_SELF: Final = "durabletask_aio_on_self"
"""Attribute of the syntax of a class: what its methods assign to attributes of `self`, by name."""
_ALIASES: Final = frozenset({"alias", "validation_alias"})


def member(kind: SourceClass, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The method that the class body itself defines under this name."""
    found: ast.FunctionDef | ast.AsyncFunctionDef | None = None
    for statement in kind.node.body:
        if isinstance(statement, FunctionDefinition) and statement.name == name:
            found = statement
    return found


def is_property(node: FunctionNode) -> bool:
    """Whether a method is a property, cached or not."""
    decorators = [] if isinstance(node, ast.Lambda) else [ast.unparse(each) for each in node.decorator_list]
    return any(each.rpartition(".")[2] in {"property", "cached_property", "computed_field"} for each in decorators)


def receiver_of(node: ast.FunctionDef | ast.AsyncFunctionDef, receiver: Value | None) -> Value | None:
    """What a method gets as its first argument; `None` for a static method."""
    return None if is_static(node) else receiver


def is_static(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a method is a static method."""
    return any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in node.decorator_list)


def for_class(found: list[Value], kind: Value) -> list[Value]:
    """Pass the class as the receiver of class methods; other values stay as they are."""
    return [
        replace(each, receiver=kind) if isinstance(each, SourceFunction) and _is_class_method(each.node) else each
        for each in found
    ]


def _is_class_method(node: FunctionNode) -> bool:
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return any(isinstance(each, ast.Name) and each.id == "classmethod" for each in decorators)


def values_in_body(kind: SourceClass, name: str) -> Iterator[ast.expr | Annotated]:
    """The expressions and annotations to which the class body binds `name`."""
    for statement in kind.node.body:
        if isinstance(statement, ast.Assign):
            if any(isinstance(target, ast.Name) and target.id == name for target in statement.targets):
                yield statement.value
        elif (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and statement.target.id == name
        ):
            yield Annotated(statement.annotation)
            if statement.value is not None:
                yield statement.value


def values_on_self(kind: SourceClass, name: str) -> Iterator[tuple[SourceFunction, ast.expr | Annotated]]:
    """What the methods of the class assign to `self.name`, each with its method."""
    held: dict[str, list[_Assigned]] | None = getattr(kind.node, _ON_SELF, None)
    if held is None:
        held = {}
        for method in kind.node.body:
            if isinstance(method, FunctionDefinition) and method.args.args:
                for attribute, value in _assigned_on_self(method):
                    held.setdefault(attribute, []).append((method, value))
        setattr(kind.node, _ON_SELF, held)
    for method, value in held.get(name, ()):
        yield SourceFunction(method, kind.scope), value


def _assigned_on_self(method: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, ast.expr | Annotated]]:
    receiver = parameters(method.args)[0].arg
    for statement in method.body:
        for node in own_nodes(statement):
            if not isinstance(node, (ast.Assign, ast.AnnAssign)):
                continue
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Attribute) and dotted_name(target) == f"{receiver}.{target.attr}":
                    if isinstance(node, ast.AnnAssign):
                        yield target.attr, Annotated(node.annotation)
                    if node.value is not None:
                        yield target.attr, node.value


def validators(kind: SourceClass) -> list[SourceFunction]:
    """The functions that check or convert the fields of an object when it is created."""
    found: list[SourceFunction] = []
    for statement in kind.node.body:
        if isinstance(statement, FunctionDefinition):
            names = {_last_name(each) for each in statement.decorator_list}
            if names & _VALIDATORS:
                found.append(SourceFunction(statement, kind.scope))
        elif isinstance(statement, ast.AnnAssign):
            options = statement.value.keywords if isinstance(statement.value, ast.Call) else []
            given = [each.value for each in options if each.arg in _CONVERTERS]
            given += [
                each.args[0]
                for each in ast.walk(statement.annotation)
                if isinstance(each, ast.Call) and _last_name(each) in _VALIDATOR_TYPES and each.args
            ]
            found += [SourceFunction(_as_lambda(each), kind.scope) for each in given]
    return found


def default_factories(kind: SourceClass) -> list[DefaultFactory]:
    """The functions that `field(default_factory=...)` in the body of a class calls."""
    found: list[DefaultFactory] = []
    for position, field_ in enumerate(fields(kind)):
        options = field_.value.keywords if isinstance(field_.value, ast.Call) else []
        aliases = frozenset(_text(each.value) for each in options if each.arg in _ALIASES)
        found += [
            DefaultFactory(
                ast.unparse(field_.target), aliases, position, SourceFunction(_as_lambda(option.value), kind.scope)
            )
            for option in options
            if option.arg in _FACTORIES
        ]
    return found


def fields(kind: SourceClass) -> list[ast.AnnAssign]:
    """The fields of a dataclass, attrs class or model, in order."""
    return [each for each in kind.node.body if isinstance(each, ast.AnnAssign) and _is_field(each)]


def _is_field(node: ast.AnnAssign) -> bool:
    return isinstance(node.target, ast.Name) and not {"ClassVar", "KW_ONLY"} & {
        each.attr if isinstance(each, ast.Attribute) else each.id
        for each in ast.walk(node.annotation)
        if isinstance(each, (ast.Attribute, ast.Name))
    }


def factory_of(node: ast.expr) -> ast.expr | None:
    """The function that makes the value of a field: `make` in `field(default_factory=make)`."""
    options = node.keywords if isinstance(node, ast.Call) else []
    return next((each.value for each in options if each.arg in _FACTORIES), None)


def may_have_attribute(node: ast.ClassDef, name: str) -> bool:
    """Whether a class, or a base class that is not analysed, may have the attribute `name`."""
    if any(not (isinstance(base, ast.Name) and base.id == "object") for base in node.bases):
        return True
    return any(
        (isinstance(each, ast.Attribute) and each.attr == name and isinstance(each.ctx, ast.Store))
        or (isinstance(each, FunctionDefinition) and each.name == name)
        or (isinstance(each, ast.Name) and each.id == name and isinstance(each.ctx, ast.Store))
        for each in ast.walk(node)
    )


def _as_lambda(function: ast.expr) -> ast.Lambda:
    """A function that calls `function`, so that it can be scanned like one that is written out.

    It is kept with the syntax of `function`, since functions are told apart by the identity of their syntax.
    """
    if isinstance(function, ast.Lambda):
        return function
    made: ast.Lambda | None = getattr(function, _LAMBDA, None)
    if made is None:
        arguments = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
        call = ast.copy_location(ast.Call(function, [], []), function)
        made = ast.copy_location(ast.Lambda(arguments, call), function)
        setattr(function, _LAMBDA, made)
    return made


def returned_functions(maker: SourceFunction, scope: Scope) -> list[SourceFunction]:
    """The nested functions that a function returns, such as the wrapper of a decorator."""
    node = maker.node
    if isinstance(node, ast.Lambda):
        return []
    returned = {
        each.value.id
        for statement in node.body
        for each in own_nodes(statement)
        if isinstance(each, ast.Return) and isinstance(each.value, ast.Name)
    }
    nested = [each for each in node.body if isinstance(each, FunctionDefinition)]
    return [SourceFunction(each, scope) for each in nested if each.name in returned]


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
