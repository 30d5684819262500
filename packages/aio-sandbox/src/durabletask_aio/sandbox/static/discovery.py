"""Finding the orchestrators in source files: registered, decorated, annotated, or named by the user."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Final

from durabletask_aio.sandbox.code.evaluator import Evaluator
from durabletask_aio.sandbox.code.scopes import Scope, own_nodes, parameters
from durabletask_aio.sandbox.code.values import ContextValue, Instance, SourceClass, SourceFunction, Value
from durabletask_aio.sandbox.static.annotations import CONTEXT_NAMES
from durabletask_aio.sandbox.static.registrations import WORDS as REGISTERING_WORDS
from durabletask_aio.sandbox.static.registrations import RegistrationFinder, Registrations
from durabletask_aio.sandbox.static.scanner import is_generator
from durabletask_aio.sandbox.static.source_classes import is_static
from durabletask_aio.sandbox.static.source_modules import SourceModule
from durabletask_aio.sandbox.static.source_resolver import SourceResolver

_REGISTRATION_FUNCTIONS: Final = frozenset(
    {"add_orchestrator", "add_named_orchestrator", "as_orchestrator", "register_workflow"}
)
_DECORATORS: Final = frozenset({"as_orchestrator", "orchestrator", "orchestration_trigger", "register_workflow"})
_AMBIGUOUS_DECORATORS: Final = frozenset({"workflow"})
"""Other libraries use these names too, so the first parameter must be named like a context."""
_CONTEXT_NAMES: Final = frozenset({"ctx", "context", "wf_ctx", "workflow_ctx", "workflow_context"})
_CREATORS: Final = frozenset({"Orchestrator.create"})


_ORCHESTRATOR_WORDS: Final = (
    *_REGISTRATION_FUNCTIONS,
    *_DECORATORS,
    *_AMBIGUOUS_DECORATORS,
    *_CREATORS,
    *CONTEXT_NAMES,
    *REGISTERING_WORDS,
)


@dataclass(frozen=True, eq=False)
class Orchestrator:
    """A function to check, and how it was recognised."""

    function: SourceFunction
    module: SourceModule
    found_by: str

    @property
    def name(self) -> str:
        node = self.function.node
        return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def orchestrators(
    module: SourceModule,
    resolver: SourceResolver,
    wanted: frozenset[str] = frozenset(),
    registrations: Registrations | None = None,
) -> list[Orchestrator]:
    """The orchestrators that `module` defines or registers, each once.

    `wanted` has names given by the user: `function`, or `module:function`. What the module registers is entered into
    `registrations`.
    """
    if not may_have_orchestrators(module, wanted) or module.source.tree is None:
        return []
    finder = _Finder(module, resolver, wanted, registrations or Registrations())
    finder.visit(module.source.tree.body, module.scope, None)
    return sorted(finder.found.values(), key=lambda each: each.function.node.lineno)


def may_have_orchestrators(module: SourceModule, wanted: frozenset[str]) -> bool:
    """Whether the text of a file mentions workflows at all; most files do not and need not be parsed."""
    names = [name.rpartition(":")[2] for name in wanted]
    return any(word in module.text for word in (*_ORCHESTRATOR_WORDS, *names))


_OTHER_WORDS: Final = ("durabl", "dapr", "activity", "determinism:", "noqa")


def is_unrelated(text: str, wanted: frozenset[str]) -> bool:
    """Whether a file cannot change a report unless a workflow reaches it: it mentions neither workflows nor pragmas."""
    names = (name.rpartition(":")[2] for name in wanted)
    return not any(word in text for word in (*_ORCHESTRATOR_WORDS, *_OTHER_WORDS, *names))


_IMPORT_OF_SDK: Final = re.compile(
    r"^[ \t]*(?:from|import)[ \t]+(?:durabletask|azure\.durable_functions|dapr\.ext\.workflow)\b", re.MULTILINE
)


def imports_an_sdk(text: str) -> bool:
    """Whether the text of a file imports one of the SDKs with which workflows are written."""
    return ("durabl" in text or "dapr" in text) and _IMPORT_OF_SDK.search(text) is not None


class _Finder:
    def __init__(
        self, module: SourceModule, resolver: SourceResolver, wanted: frozenset[str], registrations: Registrations
    ) -> None:
        self._module = module
        self._resolver = resolver
        self._evaluator = Evaluator(resolver)
        self._registrations = RegistrationFinder(module, self._evaluator, resolver.catalogue, registrations)
        self._wanted = wanted
        self.found: dict[int, Orchestrator] = {}

    def visit(self, statements: list[ast.stmt], scope: Scope, owner: SourceClass | None) -> None:
        self._registrations.duplicates(statements, scope)
        for statement in statements:
            for node in own_nodes(statement):
                if isinstance(node, ast.Call):
                    self._registration(node, scope)
                    self._registrations.call(node, scope)
                elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    self._function(node, scope, owner)
                elif isinstance(node, ast.ClassDef):
                    self.visit(node.body, scope, SourceClass(node, scope))

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope, owner: SourceClass | None) -> None:
        self._registrations.decorated(SourceFunction(node, scope))
        how = self._recognise(node, scope, is_method=owner is not None)
        if how is not None:
            receiver = Instance(owner) if owner is not None and not is_static(node) else None
            self._enter(SourceFunction(node, scope, receiver), how)
        for decorator in node.decorator_list:
            for each in ast.walk(decorator):
                if isinstance(each, ast.Call):
                    self._registration(each, scope)
        inner = Scope(scope.namespace, scope, source=self._module.source, arguments=node.args, statements=node.body)
        if owner is not None and node.args.args:
            inner.argument_values[node.args.args[0].arg] = [Instance(owner)]
        self.visit(node.body, inner, None)

    def _recognise(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope, *, is_method: bool) -> str | None:
        if {node.name, f"{self._module.name}:{node.name}"} & self._wanted:
            return "named"
        names = parameters(node.args)[1 if is_method and not is_static(node) else 0 :]
        first = names[0] if names else None
        for decorator in node.decorator_list:
            last = _last_name(decorator)
            if last in _DECORATORS or (
                last in _AMBIGUOUS_DECORATORS and first is not None and first.arg in _CONTEXT_NAMES
            ):
                return "decorated"
        # A plain function with a context parameter is a helper; it is scanned when a workflow calls it.
        waits = isinstance(node, ast.AsyncFunctionDef) or is_generator(node)
        if first is None or first.annotation is None or not waits:
            return None
        return "annotated" if ContextValue() in self._resolver.annotated(first.annotation, scope) else None

    def _registration(self, node: ast.Call, scope: Scope) -> None:
        name = _last_name(node.func)
        creates = isinstance(node.func, ast.Attribute) and ast.unparse(node.func).endswith(tuple(_CREATORS))
        if name not in _REGISTRATION_FUNCTIONS and not creates:
            return
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        for argument in given[:3]:
            # Resolve the name: an unrelated helper may have the same name as an orchestrator elsewhere.
            for value in self._evaluator.values(argument, scope):
                function = self._unwrapped(value)
                if function is not None:
                    self._enter(function, "registered")

    def _unwrapped(self, value: Value) -> SourceFunction | None:
        if isinstance(value, Instance) and isinstance(value.cls, SourceClass):
            methods = self._resolver.attribute(value, "__call__")
            return next((each for each in methods if isinstance(each, SourceFunction)), None)
        return value if isinstance(value, SourceFunction) and not isinstance(value.node, ast.Lambda) else None

    def _enter(self, function: SourceFunction, how: str) -> None:
        self.found.setdefault(id(function.node), Orchestrator(function, self._module, how))


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
