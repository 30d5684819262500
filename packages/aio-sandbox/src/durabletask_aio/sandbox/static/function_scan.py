"""The scan of one function: what it knows about the function, and how it records a finding.

`scanner` goes through the syntax of a function and `structural_rules` applies the rules that are not about single
calls. Both work on the `FunctionScan` defined here, so that neither needs to import the other's classes.
"""

from __future__ import annotations

import ast
from collections import Counter, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from durabletask_aio.sandbox.code.evaluator import Evaluator, new_scope, statements_of
from durabletask_aio.sandbox.code.name_resolver import FunctionBody, NameResolver
from durabletask_aio.sandbox.code.scopes import own_nodes
from durabletask_aio.sandbox.code.sources import Pragma, Source
from durabletask_aio.sandbox.code.values import ContextValue, Value, identity
from durabletask_aio.sandbox.rules.catalogue import IO_RULES, Call, Catalogue, Rule, Severity, allows
from durabletask_aio.sandbox.rules.findings import Finding, column_of
from durabletask_aio.sandbox.rules.fixes import Fix, fix_of_call
from durabletask_aio.sandbox.static.registrations import Registrations

LocatedNode: TypeAlias = "ast.expr | ast.stmt | ast.ExceptHandler"
"""Syntax nodes that have a line and a column."""


COMPOUND_STATEMENTS: Final = (ast.For, ast.AsyncFor, ast.While, ast.If, ast.With, ast.AsyncWith, ast.Try, ast.Match)
"""Statements with a body; a pragma counts only on their first line."""


_SCANS_OF_ONE: Final = 16
"""Maximum number of scans of one function with different arguments."""


@dataclass(frozen=True)
class Visit:
    """A function to scan, the path by which the workflow reaches it, and the known values of its parameters."""

    body: FunctionBody
    reached: tuple[str, ...]
    arguments: tuple[tuple[str, Value], ...] = ()
    crossing: Crossing | None = None


@dataclass(frozen=True)
class Crossing:
    """The user's line from which a followed package is entered; findings are reported there."""

    source: Source
    node: LocatedNode
    function: str
    allowed: tuple[str, ...]


class AnalysisState:
    """What the scans of one workflow share: its findings, its settings, and the functions still to be scanned."""

    def __init__(
        self,
        resolver: NameResolver,
        catalogue: Catalogue,
        allowed: tuple[str, ...] = (),
        *,
        notes: bool = False,
        registrations: Registrations | None = None,
    ) -> None:
        self.resolver = resolver
        self.catalogue = catalogue
        self._notes = notes
        self.evaluator = Evaluator(resolver)
        self.findings: dict[tuple[object, ...], Finding] = {}
        self.is_generator = False
        """Whether the workflow is a generator orchestrator, for which the advice differs."""
        self._allowed = allowed
        self.registrations = registrations
        """What the project registers, if its files are checked."""
        self.used_pragmas: set[tuple[str, int]] = set()
        """The pragmas, by file and line, that have allowed something."""
        self.scanned: set[tuple[str, int, int]] = set()
        """The functions that were scanned, by file, first and last line."""
        self.queue: deque[Visit] = deque()
        self.scheduled: set[object] = set()
        self._scans: Counter[Hashable] = Counter()
        """By function: how often it is scanned, each time with other arguments."""

    def enqueue(
        self,
        body: FunctionBody,
        reached: tuple[str, ...],
        arguments: tuple[tuple[str, Value], ...],
        crossing: Crossing | None = None,
    ) -> None:
        """Schedule a scan of `body`, unless it was scheduled with the same arguments before.

        A function that calls itself with a part of its argument would be scanned for each depth that data may have, so
        that after some scans the arguments of further calls are not looked at.
        """
        if self._scans[body.key] >= _SCANS_OF_ONE:
            arguments = ()
        place = (id(crossing.source), crossing.node.lineno) if crossing is not None else None
        key = (body.key, place, tuple((name, identity(value)) for name, value in arguments))
        if key not in self.scheduled:
            self.scheduled.add(key)
            self._scans[body.key] += 1
            self.queue.append(Visit(body, (*reached, body.label), arguments, crossing))
            self.scanned.add((body.source.filename, body.node.lineno, body.node.end_lineno or body.node.lineno))

    def report(self, finding: Finding) -> None:
        """Record a finding; notes are dropped unless they were asked for, and each place is recorded once."""
        if finding.severity is Severity.NOTE and not self._notes:
            return
        self.findings.setdefault(finding.key, finding)

    def is_allowed(self, rule: Rule, call: str | None, names: tuple[str, ...]) -> bool:
        return allows((*self._allowed, *names), rule, call)


class FunctionScan:
    """One function under analysis: its scope, the path by which it was reached, and the findings about it."""

    def __init__(self, analysis: AnalysisState, visit: Visit) -> None:
        self.analysis = analysis
        self.resolver = analysis.resolver
        self.body = visit.body
        self.node = visit.body.node
        self.reached = visit.reached
        self.allowed = visit.body.allowed
        self.crossing = visit.crossing
        self._values: dict[int, tuple[ast.expr, list[Value]]] = {}
        self.current_statement: ast.stmt | None = None
        self.current_node: LocatedNode = visit.body.node
        self.order_insensitive: set[int] = set()
        """Ids of the expressions whose order does not matter, because a call such as `sorted` consumes them."""
        self.statements = statements_of(self.node)
        self.scope = new_scope(visit.body, visit.arguments)
        self.context = self._context_name()
        self.is_async = isinstance(self.node, ast.AsyncFunctionDef)

    def _context_name(self) -> str | None:
        names = [*self.scope.bindings, *self.scope.argument_values]
        if self.scope.parent is not None and not self.scope.parent.is_module:
            names += [*self.scope.parent.bindings, *self.scope.parent.argument_values]
        return next((name for name in names if ContextValue() in self.analysis.evaluator.name(name, self.scope)), None)

    def values(self, node: ast.expr) -> list[Value]:
        """The possible values of an expression of this function; empty if nothing is known."""
        # Several rules ask for the same expression. The node is kept, so that its id is not used again.
        known = self._values.get(id(node))
        if known is None:
            known = self._values[id(node)] = (node, self.analysis.evaluator.values(node, self.scope))
        return known[1]

    def report(
        self,
        node: LocatedNode,
        rule: Rule,
        *,
        call: Call | None = None,
        detail: str = "",
        advice: str | None = None,
        certain: bool = True,
        is_made_here: bool = True,
    ) -> None:
        """Record a finding at `node`, unless a setting, an enclosing `allow` or a pragma allows it.

        `is_made_here` says that `node` itself is the call, so that a corrected line can be offered. `certain=False`
        marks a finding that does not refuse the workflow in strict mode.
        """
        name = call.name if call is not None else None
        if self.body.io_only:
            if call is not None and rule.code in IO_RULES:
                self._report_crossing(node, call)
            return
        source = self.body.source
        if self.analysis.is_allowed(rule, name, self.allowed) or self._is_allowed_here(node, rule, name):
            return
        line = source.line(node.lineno)
        fix = self._fix(node, call) if call is not None and isinstance(node, ast.Call) and is_made_here else None
        generator = self.analysis.is_generator
        if advice is None:
            advice = call.advice(generator=generator) if call is not None else ""
            advice += f", given as `{self.body.field}=`" if call is not None and self.body.field else ""
        self.analysis.report(
            Finding(
                rule=rule,
                file=source.filename,
                line=node.lineno,
                column=column_of(line, node.col_offset),
                function=self.body.label,
                reached=self.reached,
                call=name,
                detail=detail,
                advice=advice or (rule.generator_alternative if generator else rule.alternative),
                source_line=line,
                corrected_line=fix.applied_to(line) if fix is not None else None,
                fix=fix,
                end_line=node.end_lineno,
                certain=certain,
            )
        )

    def _fix(self, node: ast.Call, call: Call) -> Fix | None:
        yields = any(isinstance(each, ast.Yield) for statement in self.statements for each in own_nodes(statement))
        return fix_of_call(
            self.body.source.lines,
            node,
            call,
            self.context,
            generator=self.analysis.is_generator,
            is_async=self.is_async,
            yields=yields,
        )

    def _report_crossing(self, inner: LocatedNode, call: Call) -> None:
        """Record a call that a followed package makes, at the user's line from which the package is entered."""
        crossing = self.crossing
        if crossing is None or self.analysis.is_allowed(call.rule, call.name, (*self.allowed, *crossing.allowed)):
            return
        node = crossing.node
        self.analysis.report(
            Finding(
                rule=call.rule,
                file=crossing.source.filename,
                line=node.lineno,
                column=column_of(crossing.source.line(node.lineno), node.col_offset),
                function=crossing.function,
                reached=self.reached,
                call=call.name,
                advice=call.advice(generator=self.analysis.is_generator),
                source_line=crossing.source.line(node.lineno),
                end_line=node.end_lineno,
                # A package may make the call on some paths only; strict mode checks it when it is made.
                certain=False,
                inside=f"{self.body.source.filename}:{inner.lineno} in {self.body.label}()",
            )
        )

    def pragma_names(self, node: LocatedNode) -> Iterator[str]:
        """The names that pragmas on the lines of `node`, or of the statement around it, allow to what it calls."""
        for pragma in self._pragmas(node):
            self.analysis.used_pragmas.add((self.body.source.filename, pragma.line))
            yield from pragma.names

    def _is_allowed_here(self, node: LocatedNode, rule: Rule, call: str | None) -> bool:
        for pragma in self._pragmas(node):
            if allows(pragma.names, rule, call):
                self.analysis.used_pragmas.add((self.body.source.filename, pragma.line))
                return True
        return False

    def _pragmas(self, node: LocatedNode) -> Iterator[Pragma]:
        first, last = node.lineno, node.end_lineno or node.lineno
        if isinstance(node, (*COMPOUND_STATEMENTS, ast.ExceptHandler)):
            last = first
        elif self.current_statement is not None:
            first, last = self.current_statement.lineno, self.current_statement.end_lineno or last
        yield from self.body.source.allowed_at(first, last)
