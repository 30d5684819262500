"""The analysis: scans a workflow function and the functions of the user that it calls, and reports findings.

`Scanner` goes through the syntax of one function. It looks calls up in the catalogue, applies `structural_rules`, and
schedules a scan of each function that is called, explicitly or implicitly.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Final

from durabletask_aio.sandbox.code.evaluator import is_mutable_default, paired
from durabletask_aio.sandbox.code.implicit_calls import (
    ARGUMENT_CALLERS,
    CALLS_METHODS,
    METHODS_THAT_CALL,
    OPERATORS,
    REFERENCES_ONLY,
    SINGLE_ARGUMENT_CALLERS,
)
from durabletask_aio.sandbox.code.name_resolver import FunctionBody
from durabletask_aio.sandbox.code.scopes import Annotated, own_nodes, parameters
from durabletask_aio.sandbox.code.sources import FunctionNode
from durabletask_aio.sandbox.code.values import (
    Argument,
    ContainerValue,
    ContextMethod,
    ContextValue,
    ExternalName,
    ImportTimeValue,
    Instance,
    PartialFunction,
    SharedObject,
    SourceClass,
    SourceFunction,
    UnorderedValue,
    Value,
)
from durabletask_aio.sandbox.rules.calls import FALLBACK_CALLS
from durabletask_aio.sandbox.rules.catalogue import Call
from durabletask_aio.sandbox.rules.conditions import (
    ArgumentSummary,
    combined,
    condition_holds,
    summary_of_node,
)
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.static import operation_rules, step_arguments, structural_rules
from durabletask_aio.sandbox.static.function_scan import (
    COMPOUND_STATEMENTS,
    AnalysisState,
    Crossing,
    FunctionScan,
)

_PASSED_ON: Final = (
    PartialFunction,
    ContextValue,
    SourceFunction,
    SourceClass,
    Instance,
    ExternalName,
    SharedObject,
    ContainerValue,
    UnorderedValue,
)
"""What is worth knowing about the arguments of a call."""
_NUMBERS: Final = frozenset({"int", "float", "bool", "complex", "len", "'int'", "'float'"})
BODY_LIMIT: Final = 2_000
"""Maximum number of functions scanned for one workflow; real programs have far fewer."""


class Analysis(AnalysisState):
    """The analysis of one workflow function."""

    def run(self, body: FunctionBody) -> list[Finding]:
        """Findings in `body`, whose first parameter is the workflow's context, and in the functions it calls."""
        arguments: tuple[tuple[str, Value], ...] = ()
        names = body.parameter_names()
        self.is_generator = is_generator(body.node)
        if names:
            arguments = ((names[0], ContextValue()), *((name, Argument()) for name in names[1:2]))
        self.enqueue(body, (), arguments)
        while self.queue and len(self.scheduled) < BODY_LIMIT:
            visit = self.queue.popleft()
            Scanner(self, visit).scan()
        return sorted(self.findings.values(), key=lambda each: (each.file, each.line, each.column or 0, each.rule.code))


class Scanner(FunctionScan):
    """Goes through the syntax of one function."""

    def scan(self) -> None:
        self._step_definitions = step_arguments.StepDefinitions(self)
        for statement in self.statements:
            self._visit(statement)

    def _visit(self, node: ast.AST) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._nested_function(node)
            return
        if isinstance(node, ast.ClassDef):
            return
        if isinstance(node, ast.stmt) and not isinstance(node, COMPOUND_STATEMENTS):
            self.current_statement = node
        elif isinstance(node, ast.stmt):
            self.current_statement = None
        if isinstance(node, (ast.expr, ast.stmt, ast.ExceptHandler)):
            self.current_node = node
        self._check(node)
        if isinstance(node, (ast.With, ast.AsyncWith)):
            self._with(node)
            return
        if isinstance(node, ast.Lambda):
            self._scan_bodies(SourceFunction(node, self.scope), None)
            return
        if isinstance(node, ast.Call) and step_arguments.is_step(self, node):
            self._visit_step(node)
            return
        if isinstance(node, ast.Assign) and self._step_definitions.name_of(node) in self._step_definitions:
            self._visit_evaluated(node.value)
            return
        for child in ast.iter_child_nodes(node):
            self._visit(child)

    def _visit_step(self, node: ast.Call) -> None:
        """Visit a call of `ctx.run`, without the code of the step."""
        self._visit(node.func)
        for argument in node.args:
            self._visit_evaluated(argument)
        for place, name in step_arguments.changes(self, node.args[0]) if node.args else ():
            detail = f"A step changes `{name}`, a variable of the workflow, and does not run on replay"
            self.report(place, self.analysis.catalogue.rules["DET815"], detail=detail)
        for keyword in node.keywords:
            self._visit(keyword.value)

    def _visit_evaluated(self, given: ast.expr) -> None:
        for part in step_arguments.evaluated_parts(self, given):
            self._visit(part)

    def _check(self, node: ast.AST) -> None:
        if isinstance(node, ast.Call):
            self._call(node)
        elif isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Load):
            self._read(node)
        elif isinstance(node, (ast.BinOp, ast.Compare, ast.Subscript, ast.For)):
            self._implicit_calls(node)
        elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
            self._follow_methods([node.test], "__bool__", "__len__")
        elif isinstance(node, ast.FormattedValue):
            self._follow_methods([node.value], "__format__", "__str__")
        elif isinstance(node, ast.Dict):
            self._follow_methods([key for key in node.keys if key is not None], "__hash__")
        structural_rules.check(self, node)
        operation_rules.check(self, node)

    def _nested_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Scan a nested function where it is mentioned, unless only by reference, as for `call_activity`."""
        for decorator in node.decorator_list:
            self._visit(decorator)
        if node.name in self._step_definitions:
            return
        mentioned = {
            id(each)
            for statement in self.statements
            for each in ast.walk(statement)
            if isinstance(each, ast.Name) and each.id == node.name and isinstance(each.ctx, ast.Load)
        }
        if mentioned - self._by_reference():
            self._scan_bodies(SourceFunction(node, self.scope), None)

    def _by_reference(self) -> set[int]:
        return {
            id(call.args[0])
            for statement in self.statements
            for call in ast.walk(statement)
            if isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr in REFERENCES_ONLY
            and call.args
        }

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        before = self.allowed
        for item in node.items:
            self._visit(item.context_expr)
            allowed = structural_rules.allowed_by(self, item.context_expr)
            if allowed is not None:
                self.allowed = (*self.allowed, *allowed)
            for value in self.values(item.context_expr):
                prefix = "a" if isinstance(node, ast.AsyncWith) else ""
                for method in (f"__{prefix}enter__", f"__{prefix}exit__"):
                    self._follow_method(value, method)
        for statement in node.body:
            self._visit(statement)
        self.allowed = before

    def _call(self, node: ast.Call) -> None:
        arguments = summary_of_node(node)
        if node.args and not self._is_number(node.args[0]):
            arguments = replace(arguments, is_first_text=True)
        for value in self.values(node.func):
            if not self._report_call(node, value, arguments):
                self._follow_call(value, node)
                self._check_default_factories(value, node)
            method = CALLS_METHODS.get(self.resolver.full_name(value) or "")
            if method is not None:
                self._follow_methods(node.args, method)
            if self._calls_its_arguments(value, node):
                self._check_callbacks(node, self.resolver.full_name(value) or "")
        if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS_THAT_CALL:
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                self._check_callback(argument, ArgumentSummary())

    def _check_default_factories(self, made: Value, node: ast.Call) -> None:
        """Check the default factories of the fields that a call of a class leaves out."""
        given = {keyword.arg for keyword in node.keywords}
        if None in given or any(isinstance(argument, ast.Starred) for argument in node.args):
            return
        for factory in self.resolver.factories(made):
            if factory.position < len(node.args) or {factory.name, *factory.aliases} & given:
                continue
            for body in self.resolver.bodies(factory.function):
                self._enqueue_body(replace(body, field=factory.name), ())

    def _is_number(self, node: ast.expr) -> bool:
        """Whether `node` is certainly a number, or made of numbers, so that its hash is the same in each process."""
        if isinstance(node, ast.Name):
            bindings = self.scope.bindings.get(node.id, [])
            return any(isinstance(each, Annotated) and ast.unparse(each.annotation) in _NUMBERS for each in bindings)
        if isinstance(node, ast.Constant):
            return not isinstance(node.value, (str, bytes))
        if isinstance(node, ast.Tuple):
            return all(self._is_number(each) for each in node.elts)
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _NUMBERS

    def _check_callbacks(self, node: ast.Call, callee: str) -> None:
        """Check the arguments of a function that calls its own arguments."""
        is_partial = callee == "functools.partial"
        count = len(node.args) - 1 if callee == "builtins.map" else int(callee in SINGLE_ARGUMENT_CALLERS)
        for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
            self._check_callback(argument, ArgumentSummary(count), is_kept=is_partial)

    def _check_callback(self, argument: ast.expr, arguments: ArgumentSummary, *, is_kept: bool = False) -> None:
        """Check an argument that the callee will call with `arguments`, or may call later if it `is_kept`."""
        for value in self.values(argument):
            call = self.resolver.call(value.function if isinstance(value, PartialFunction) else value)
            if isinstance(value, (SourceClass, Instance)) or (is_kept and call is not None and call.condition):
                continue
            self._report_call(argument, value, arguments)
            self._follow_call(value, None)

    def _calls_its_arguments(self, value: Value, node: ast.Call) -> bool:
        name = self.resolver.full_name(value)
        return name is not None and name.startswith(tuple(ARGUMENT_CALLERS)) and bool(node.args or node.keywords)

    def _report_call(self, node: ast.expr, value: Value, arguments: ArgumentSummary) -> bool:
        """Report `node` if it calls something in the catalogue; return whether `value` is in the catalogue."""
        is_made_here = True
        if isinstance(value, PartialFunction):
            arguments = combined(value.arguments, arguments)
            value, is_made_here = value.function, False
        call = self.resolver.call(value)
        if call is None:
            return structural_rules.check_shared_random(self, node, value)
        if not condition_holds(call.condition, arguments):
            call = FALLBACK_CALLS.get(call.name, call)
        if condition_holds(call.condition, arguments):
            self.report(node, call.rule, call=call, is_made_here=is_made_here)
        return True

    def _follow_call(self, value: Value, node: ast.Call | None) -> None:
        if isinstance(value, (ContextValue, ContextMethod)):
            return
        if isinstance(value, Instance):
            self._follow_method(value, "__call__")
            return
        self._scan_bodies(value, node)

    def _scan_bodies(self, value: Value, node: ast.Call | None) -> None:
        for body in self.resolver.bodies(value):
            self._enqueue_body(body, self._known_arguments(body, node))

    def _enqueue_body(self, body: FunctionBody, given: tuple[tuple[str, Value], ...]) -> None:
        crossing = None
        if body.io_only:
            crossing = self.crossing or Crossing(
                self.body.source,
                self.current_node,
                self.body.label,
                (*self.allowed, *self.pragma_names(self.current_node)),
            )
        self.analysis.enqueue(self._with_source(body), self.reached, given, crossing)

    def _with_source(self, body: FunctionBody) -> FunctionBody:
        return replace(body, allowed=(*body.allowed, *self.allowed))

    def _known_arguments(self, body: FunctionBody, node: ast.Call | None) -> tuple[tuple[str, Value], ...]:
        """The arguments that matter for the callee: the context, functions, and objects with methods."""
        kept = _names_of_mutable_defaults(body)
        if node is None or any(isinstance(argument, ast.Starred) for argument in node.args):
            return tuple((name, Argument()) for name in kept)
        pairs = paired(body.parameter_names(), node)
        is_open = any(keyword.arg is None for keyword in node.keywords)
        passed = {name for name, _argument in pairs}
        given = tuple((name, Argument()) for name in kept if is_open or name in passed)
        return given + tuple(
            (name, value)
            for name, argument in pairs
            for value in self.values(argument)
            if isinstance(value, _PASSED_ON)
        )

    def _read(self, node: ast.Attribute | ast.Name) -> None:
        if isinstance(node, ast.Attribute):
            for value in self.values(node.value):
                for body in self.resolver.reading(value, node.attr):
                    self._enqueue_body(body, ())
        for value in self.values(node):
            if isinstance(value, ImportTimeValue):
                structural_rules.report_import_time_value(self, node, value)
                continue
            call = self.resolver.call(value) if not isinstance(value, SourceClass) else None
            if call is not None and not _is_callable(call):
                self.report(node, call.rule, call=call)

    def _implicit_calls(self, node: ast.BinOp | ast.Compare | ast.Subscript | ast.For) -> None:
        """Follow operators and loops, which call methods implicitly."""
        if isinstance(node, ast.BinOp):
            name = OPERATORS.get(type(node.op))
            operands = [(node.left, f"__{name}__"), (node.right, f"__r{name}__")] if name else []
        elif isinstance(node, ast.Compare):
            operands = [(node.left, f"__{OPERATORS[type(op)]}__") for op in node.ops if type(op) in OPERATORS]
            operands += [
                (each, "__contains__") for each in node.comparators if isinstance(node.ops[0], (ast.In, ast.NotIn))
            ]
        elif isinstance(node, ast.Subscript):
            operands = [(node.value, "__getitem__")]
        else:
            operands = [(node.iter, "__iter__"), (node.iter, "__next__")]
        for operand, method in operands:
            for value in self.values(operand):
                self._follow_method(value, method)

    def _follow_methods(self, nodes: list[ast.expr], *methods: str) -> None:
        for node in nodes:
            for value in self.values(node):
                for method in methods:
                    self._follow_method(value, method)

    def _follow_method(self, value: Value, method: str) -> None:
        if isinstance(value, Instance):
            for found in self.resolver.attribute(value, method):
                self._scan_bodies(found, None)


def _names_of_mutable_defaults(body: FunctionBody) -> list[str]:
    arguments = body.node.args
    names = parameters(arguments)
    pairs = [*zip(names[len(names) - len(arguments.defaults) :], arguments.defaults, strict=True)]
    pairs += [(name, each) for name, each in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if each]
    return [name.arg for name, default in pairs if is_mutable_default(default)]


def is_generator(node: FunctionNode) -> bool:
    """Whether `node` is a generator function, but not an asynchronous one."""
    if not isinstance(node, ast.FunctionDef):
        return False
    own = (each for statement in node.body for each in own_nodes(statement))
    return any(isinstance(each, (ast.Yield, ast.YieldFrom)) for each in own)


def _is_callable(call: Call) -> bool:
    return call.name not in {"os.environ", "os.environb"}
