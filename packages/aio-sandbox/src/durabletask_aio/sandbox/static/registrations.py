"""The names under which the files of a project register activities and workflows."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from durabletask_aio.sandbox.code.evaluator import Evaluator
from durabletask_aio.sandbox.code.name_resolver import NameResolver
from durabletask_aio.sandbox.code.scopes import Scope, parameters
from durabletask_aio.sandbox.code.values import (
    ContainerValue,
    ContextValue,
    Instance,
    SharedObject,
    SourceClass,
    SourceFunction,
    Value,
)
from durabletask_aio.sandbox.rules.catalogue import Catalogue
from durabletask_aio.sandbox.rules.findings import Finding, column_of
from durabletask_aio.sandbox.static.annotations import last_part, unquoted
from durabletask_aio.sandbox.static.source_modules import SourceModule

ACTIVITY: Final = "activity"
WORKFLOW: Final = "workflow"
_METHODS: Final = {
    **dict.fromkeys(("add_activity", "add_named_activity", "register_activity", "add_activities"), ACTIVITY),
    **dict.fromkeys(("add_orchestrator", "add_named_orchestrator", "register_workflow", "add_orchestrators"), WORKFLOW),
}
_KEYWORDS: Final = {"activities": ACTIVITY, "orchestrators": WORKFLOW, "workflows": WORKFLOW}
_DECORATORS: Final = {
    **dict.fromkeys(("activity", "activity_trigger", "register_activity"), ACTIVITY),
    **dict.fromkeys(("workflow", "orchestrator", "orchestration_trigger", "register_workflow"), WORKFLOW),
}
_NAMES: Final = frozenset({"name", "activity", "orchestration"})
"""Keywords that give another name than the function's."""
WORDS: Final = (*_METHODS, "activity_trigger", ".activity")
"""A file without these words registers no activity by a call or decorator."""
_SIMILARITY: Final = 0.8


@dataclass
class Registrations:
    """What a project registers, by kind and name."""

    names: dict[str, set[str]] = field(default_factory=lambda: {ACTIVITY: set(), WORKFLOW: set()})
    functions: dict[tuple[str, str], SourceFunction | None] = field(
        default_factory=dict[tuple[str, str], "SourceFunction | None"]
    )
    """By kind and name: the function, or `None` if there are several."""
    activities: set[int] = field(default_factory=set[int])
    """Ids of the syntax of all functions that are registered as activities."""
    open: set[str] = field(default_factory=set[str])
    """Kinds of which something is registered under a name that is not known."""
    findings: list[Finding] = field(default_factory=list[Finding])

    def suggestion(self, kind: str, name: str) -> str | None:
        """What a call of `name` may have meant, as the end of a sentence; `None` if the name may be right.

        A name that resembles no other may be registered by a program that is not checked.
        """
        other = WORKFLOW if kind == ACTIVITY else ACTIVITY
        if name in self.names[kind] or kind in self.open:
            return None
        if name in self.names[other]:
            return f"`{name}` is registered as {'a workflow' if other == WORKFLOW else 'an activity'}"
        near = difflib.get_close_matches(name, sorted(self.names[kind]), 1, _SIMILARITY)
        return f"did you mean `{near[0]}`?" if near else None


class RegistrationFinder:
    """Enters what the calls and decorators of one module register."""

    def __init__(
        self, module: SourceModule, evaluator: Evaluator, catalogue: Catalogue, registrations: Registrations
    ) -> None:
        self._module = module
        self._evaluator = evaluator
        self._catalogue = catalogue
        self._registrations = registrations

    def call(self, node: ast.Call, scope: Scope) -> None:
        """Enter what a call registers: `worker.add_activity(charge)`, or `Environment(activities=[charge])`."""
        method = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        kind = _METHODS.get(method)
        if kind is not None:
            for name, function in self._registered(node, scope):
                self._enter(kind, name, function)
        for keyword in node.keywords:
            listed = _KEYWORDS.get(keyword.arg or "")
            if listed is not None and kind is None and isinstance(keyword.value, (ast.List, ast.Tuple, ast.Name)):
                for name, function in self._functions(keyword.value, scope):
                    self._enter(listed, name, function)

    def decorated(self, function: SourceFunction) -> None:
        """Enter what the decorators of a function register."""
        node = function.node
        assert not isinstance(node, ast.Lambda)
        for decorator in node.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            kind = _DECORATORS.get(called.attr) if isinstance(called, ast.Attribute) else None
            if kind is None:
                continue
            name: str | None = node.name
            for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
                if keyword.arg in _NAMES:
                    name = _text(keyword.value)
            self._enter(kind, name, function)
            self._enter(kind, node.name, function)  # some SDKs register it under both

    def duplicates(self, statements: list[ast.stmt], scope: Scope) -> None:
        """Report names that statements after one another register twice, for different functions."""
        first: dict[tuple[str, str, str], tuple[object, int]] = {}
        for statement in _straight(statements):
            for receiver in [*{receiver for receiver, _kind, _name in first}]:
                if _binds(statement, receiver.partition(".")[0]):
                    first = {key: place for key, place in first.items() if key[0] != receiver}
            call = statement.value if isinstance(statement, ast.Expr) else None
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            kind = _METHODS.get(call.func.attr)
            for name, function in self._registered(call, scope) if kind is not None else ():
                if kind is None or name is None:
                    continue
                # Registering the same function again has no effect.
                given = function.node if function is not None else ast.unparse(call.args[-1] if call.args else call)
                other, line = first.setdefault((ast.unparse(call.func.value), kind, name), (given, call.lineno))
                if other != given:
                    self._report_duplicate(call, kind, name, line)

    def _report_duplicate(self, node: ast.Call, kind: str, name: str, line: int) -> None:
        source = self._module.source
        rule = self._catalogue.rules["DET809"]
        text = source.line(node.lineno)
        allowed = {each for pragma in source.allowed_at(node.lineno, node.lineno) for each in pragma.names}
        if allowed & {"*", rule.code, rule.slug, rule.category.value}:
            return
        article = "an activity" if kind == ACTIVITY else "a workflow"
        self._registrations.findings.append(
            Finding(
                rule=rule,
                file=source.filename,
                line=node.lineno,
                column=column_of(text, node.col_offset),
                function="<module>",
                reached=(),
                detail=f"`{name}` is already registered as {article}, on line {line}",
                advice=rule.alternative,
                source_line=text,
                end_line=node.end_lineno,
            )
        )

    def _registered(self, node: ast.Call, scope: Scope) -> Iterator[tuple[str | None, SourceFunction | None]]:
        """The names that a call of a registering method gives, each with its function if that is known."""
        given = [keyword.value for keyword in node.keywords if keyword.arg in _NAMES]
        named = [*given, *(each for each in node.args[:1] if isinstance(each, ast.Constant))]
        if named:
            functions = [each for argument in node.args for _name, each in self._functions(argument, scope)]
            yield _text(named[0]), next(iter(functions), None)
            return
        arguments = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg in {"fn", "function"})]
        for argument in arguments:
            yield from self._functions(argument, scope)

    def _functions(self, node: ast.expr, scope: Scope) -> Iterator[tuple[str | None, SourceFunction | None]]:
        if isinstance(node, ast.Starred):
            node = node.value
        if isinstance(node, (ast.List, ast.Tuple)):
            for element in node.elts:
                yield from self._functions(element, scope)
            return
        values = [*_elements(self._evaluator.values(node, scope))]
        if not values:
            yield None, None
        for value in values:
            if isinstance(value, SourceFunction) and not isinstance(value.node, ast.Lambda):
                yield value.node.name, value
            elif isinstance(value, Instance) and isinstance(value.cls, SourceClass):
                yield value.cls.node.name, None
            else:
                yield None, None

    def _enter(self, kind: str, name: str | None, function: SourceFunction | None) -> None:
        if name is None:
            self._registrations.open.add(kind)
        else:
            self._registrations.names[kind].add(name)
            known = self._registrations.functions.setdefault((kind, name), function)
            if known is None or function is None or known.node is not function.node:
                self._registrations.functions[kind, name] = None
        if function is not None:
            if kind == ACTIVITY:
                self._registrations.activities.add(id(function.node))
            self._registrations.names[kind].add(getattr(function.node, "name", ""))


def takes_workflow_context(function: SourceFunction, resolver: NameResolver) -> bool:
    """Whether the first parameter of a function is annotated with the context of workflows."""
    annotation = _annotation_of_context(function)
    return annotation is not None and ContextValue() in resolver.annotated(annotation, function.scope)


def takes_activity_context(function: SourceFunction) -> bool:
    """Whether the first parameter of a function is annotated with the context of activities."""
    annotation = _annotation_of_context(function)
    if annotation is None:
        return False
    return last_part(unquoted(annotation)) == "ActivityContext"


def _annotation_of_context(function: SourceFunction) -> ast.expr | None:
    names = parameters(function.node.args)[1 if function.receiver is not None else 0 :]
    return names[0].annotation if names else None


def _elements(values: list[Value]) -> Iterator[Value]:
    for value in values:
        yield from _elements([*value.elements]) if isinstance(value, (ContainerValue, SharedObject)) else [value]


def _straight(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run one after the other, with those in `with` blocks, but for blocks that expect an error."""
    for statement in statements:
        if isinstance(statement, (ast.With, ast.AsyncWith)):
            if not any("raises" in ast.unparse(item.context_expr) for item in statement.items):
                yield statement
                yield from _straight(statement.body)
        else:
            yield statement


def _binds(statement: ast.stmt, name: str) -> bool:
    own = ast.walk(statement) if not isinstance(statement, (ast.With, ast.AsyncWith)) else _targets(statement)
    return any(isinstance(each, ast.Name) and each.id == name and isinstance(each.ctx, ast.Store) for each in own)


def _targets(statement: ast.With | ast.AsyncWith) -> Iterator[ast.AST]:
    for item in statement.items:
        if item.optional_vars is not None:
            yield from ast.walk(item.optional_vars)


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
