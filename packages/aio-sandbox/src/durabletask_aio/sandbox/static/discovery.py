"""Finding the orchestrators in source files: registered, decorated, annotated, or named by the user."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Final

from durabletask_aio.sandbox.code.evaluate import Evaluator
from durabletask_aio.sandbox.code.scopes import Scope, own_nodes, parameters
from durabletask_aio.sandbox.code.values import Context, Defined, DefinedClass, Instance, Value
from durabletask_aio.sandbox.static.engine import is_generator
from durabletask_aio.sandbox.static.project import CONTEXT_NAMES, Module, ProjectWorld

_REGISTERS: Final = frozenset({"add_orchestrator", "add_named_orchestrator", "as_orchestrator", "register_workflow"})
_DECORATES: Final = frozenset({"as_orchestrator", "orchestrator", "orchestration_trigger", "register_workflow"})
_MAY_DECORATE: Final = frozenset({"workflow"})
"""A word that other libraries use as well, so the first parameter must look like a context."""
_CONTEXT_NAMES: Final = frozenset({"ctx", "context", "wf_ctx", "workflow_ctx", "workflow_context"})
_CREATORS: Final = frozenset({"Orchestrator.create"})


_TELLING_WORDS: Final = (*_REGISTERS, *_DECORATES, *_MAY_DECORATE, *_CREATORS, *CONTEXT_NAMES)


@dataclass(frozen=True, eq=False)
class Orchestrator:
    """A function to check, and how it was recognised."""

    function: Defined
    module: Module
    found_by: str

    @property
    def name(self) -> str:
        node = self.function.node
        return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def orchestrators(module: Module, world: ProjectWorld, wanted: frozenset[str] = frozenset()) -> list[Orchestrator]:
    """Every orchestrator that ``module`` defines or registers, each once.

    ``wanted`` are names given by the user: ``function``, or ``module:function``.
    """
    if not may_have_orchestrators(module, wanted) or module.source.tree is None:
        return []
    finder = _Finder(module, world, wanted)
    finder.visit(module.source.tree.body, module.scope, None)
    return sorted(finder.found.values(), key=lambda each: each.function.node.lineno)


def may_have_orchestrators(module: Module, wanted: frozenset[str]) -> bool:
    """Most files of a project have nothing to do with workflows, which their text tells without their syntax."""
    names = [name.rpartition(":")[2] for name in wanted]
    return any(word in module.text for word in (*_TELLING_WORDS, *names))


class _Finder:
    def __init__(self, module: Module, world: ProjectWorld, wanted: frozenset[str]) -> None:
        self._module = module
        self._world = world
        self._evaluator = Evaluator(world)
        self._wanted = wanted
        self.found: dict[int, Orchestrator] = {}

    def visit(self, statements: list[ast.stmt], scope: Scope, owner: DefinedClass | None) -> None:
        for statement in statements:
            for node in own_nodes(statement):
                if isinstance(node, ast.Call):
                    self._registration(node, scope)
                elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    self._function(node, scope, owner)
                elif isinstance(node, ast.ClassDef):
                    self.visit(node.body, scope, DefinedClass(node, scope))

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope, owner: DefinedClass | None) -> None:
        how = self._recognise(node, scope, is_method=owner is not None)
        if how is not None:
            receiver = Instance(owner) if owner is not None and not _is_static(node) else None
            self._enter(Defined(node, scope, receiver), how)
        for decorator in node.decorator_list:
            for each in ast.walk(decorator):
                if isinstance(each, ast.Call):
                    self._registration(each, scope)
        inner = Scope(scope.home, scope, source=self._module.source, arguments=node.args, statements=node.body)
        if owner is not None and node.args.args:
            inner.given[node.args.args[0].arg] = [Instance(owner)]
        self.visit(node.body, inner, None)

    def _recognise(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope, *, is_method: bool) -> str | None:
        if {node.name, f"{self._module.name}:{node.name}"} & self._wanted:
            return "named"
        names = parameters(node.args)[1 if is_method and not _is_static(node) else 0 :]
        first = names[0] if names else None
        for decorator in node.decorator_list:
            last = _last_name(decorator)
            if last in _DECORATES or (last in _MAY_DECORATE and first is not None and first.arg in _CONTEXT_NAMES):
                return "decorated"
        # A plain function that takes a context is a helper of somebody's: it is followed from where it is called.
        waits = isinstance(node, ast.AsyncFunctionDef) or is_generator(node)
        if first is None or first.annotation is None or not waits:
            return None
        return "annotated" if Context() in self._world.annotated(first.annotation, scope) else None

    def _registration(self, node: ast.Call, scope: Scope) -> None:
        name = _last_name(node.func)
        creates = isinstance(node.func, ast.Attribute) and ast.unparse(node.func).endswith(tuple(_CREATORS))
        if name not in _REGISTERS and not creates:
            return
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        for argument in given[:3]:
            # By what the name stands for, not by the name: a helper may be called like an orchestrator elsewhere.
            for value in self._evaluator.values(argument, scope):
                function = self._unwrapped(value)
                if function is not None:
                    self._enter(function, "registered")

    def _unwrapped(self, value: Value) -> Defined | None:
        if isinstance(value, Instance) and isinstance(value.of, DefinedClass):
            methods = self._world.attribute(value, "__call__")
            return next((each for each in methods if isinstance(each, Defined)), None)
        return value if isinstance(value, Defined) and not isinstance(value.node, ast.Lambda) else None

    def _enter(self, function: Defined, how: str) -> None:
        self.found.setdefault(id(function.node), Orchestrator(function, self._module, how))


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_static(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in node.decorator_list)
