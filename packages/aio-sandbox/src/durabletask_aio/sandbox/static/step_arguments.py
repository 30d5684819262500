"""What a function gives to `ctx.run`: code of an activity, which the rules of workflows are not about.

Only the reference is code of the workflow: the defaults of a lambda, the object whose method it is, the arguments of a
`functools.partial`.  A function or lambda that the workflow keeps in a variable is such code if all that is done with
the variable is to give it to a step, or to use it in the code of one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final, TypeAlias

from durabletask_aio.sandbox.code.values import ContextMethod, SourceFunction
from durabletask_aio.sandbox.static.function_scan import FunctionScan
from durabletask_aio.sandbox.static.structural_rules import MUTATORS

_DISPLAYS: Final = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_COLLECTIONS: Final = frozenset({"list", "dict", "set", "defaultdict", "deque", "Counter", "OrderedDict"})
_RUN: Final = ContextMethod("run")
_Definition: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign"


def is_step(scan: FunctionScan, node: ast.AST) -> bool:
    """Whether a node is a call of `ctx.run`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "run"
        and _RUN in scan.values(node.func)
    )


def is_partial(scan: FunctionScan, node: ast.expr) -> bool:
    """Whether a node is a call of `functools.partial` with a function."""
    return (
        isinstance(node, ast.Call)
        and bool(node.args)
        and any(scan.resolver.full_name(value) == "functools.partial" for value in scan.values(node.func))
    )


def evaluated_parts(scan: FunctionScan, given: ast.expr) -> Iterator[ast.expr]:
    """The parts of an argument of `ctx.run` that are evaluated in the workflow."""
    if isinstance(given, ast.Lambda):
        yield from given.args.defaults
        yield from (each for each in given.args.kw_defaults if each is not None)
    elif isinstance(given, ast.Call) and is_partial(scan, given):
        for part in [*given.args, *(keyword.value for keyword in given.keywords)]:
            yield from evaluated_parts(scan, part)
    elif isinstance(given, ast.Attribute) and _is_mapping(scan, given.value):
        return  # `os.environ.get` reads nothing.
    else:
        yield given


def _is_mapping(scan: FunctionScan, node: ast.expr) -> bool:
    calls = (scan.resolver.call(value) for value in scan.values(node))
    return any(call is not None and call.name in {"os.environ", "os.environb"} for call in calls)


def changes(scan: FunctionScan, given: ast.expr) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """The places in the function of a step that change a variable of the workflow, with its name."""
    if isinstance(given, ast.Call) and is_partial(scan, given):
        yield from changes(scan, given.args[0])
        return
    for value in scan.values(given):
        if isinstance(value, SourceFunction) and value.scope is scan.scope:
            nodes = list(ast.walk(value.node))
            own = {each.arg for each in nodes if isinstance(each, ast.arg)}
            outer = {name for each in nodes if isinstance(each, ast.Nonlocal) for name in each.names}
            own |= {each.id for each in nodes if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)}
            for each in nodes:
                name = _changed(scan, each, outer)
                if name is not None and name not in own - outer and scan.scope.binds(name):
                    assert isinstance(each, (ast.expr, ast.stmt))
                    yield each, name


def _changed(scan: FunctionScan, node: ast.AST, outer: set[str]) -> str | None:
    """The variable that a node changes, by assigning it or by changing its value."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        owner = node.func.value
        return owner.id if isinstance(owner, ast.Name) and _is_collection(scan, owner.id) else None
    if not isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)):
        return None
    if isinstance(node, ast.Name):
        return node.id if node.id in outer else None
    root: ast.AST = node
    while isinstance(root, (ast.Attribute, ast.Subscript)):
        root = root.value
    return root.id if isinstance(root, ast.Name) else None


def _is_collection(scan: FunctionScan, name: str) -> bool:
    """Whether a variable of the workflow is certainly a list, a dictionary or a set, and no client or session."""
    return any(
        isinstance(each, _DISPLAYS)
        or (isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id in _COLLECTIONS)
        for each in scan.scope.bindings.get(name, ())
    )


class StepDefinitions:
    """The functions and lambdas in the variables of a function that only its steps use."""

    def __init__(self, scan: FunctionScan) -> None:
        self._scan = scan
        self._names: frozenset[str] | None = None

    def __contains__(self, name: str | None) -> bool:
        if self._names is None:
            self._names = self._find()
        return name in self._names

    def _find(self) -> frozenset[str]:
        nodes = [each for statement in self._scan.statements for each in ast.walk(statement)]
        given = [
            each for node in nodes if isinstance(node, ast.Call) and is_step(self._scan, node) for each in node.args
        ]
        if not given:
            return frozenset()
        definitions: dict[str, list[_Definition]] = {}
        for node in nodes:
            name = self.name_of(node)
            if name is not None:
                assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Assign))
                definitions.setdefault(name, []).append(node)
        in_steps = {id(each) for part in given for each in self._in_step(part)}
        names = frozenset[str]()
        while True:
            # A function that only other functions of steps use is found in a later round.
            outside = {
                each.id
                for each in nodes
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load) and id(each) not in in_steps
            }
            found = frozenset(definitions.keys() - outside)
            if found == names:
                return names
            names = found
            in_steps |= {id(each) for name in names for node in definitions[name] for each in ast.walk(node)}

    def name_of(self, node: ast.AST) -> str | None:
        """The variable that a statement gives a function; `None` for any other node."""
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return node.name
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            value = node.value
            if isinstance(value, ast.Lambda) or is_partial(self._scan, value):
                return node.targets[0].id
        return None

    def _in_step(self, given: ast.expr) -> Iterator[ast.AST]:
        """The nodes of an argument of `ctx.run` that are code of the step, or that refer to such code."""
        if isinstance(given, (ast.Lambda, ast.Name)):
            yield from ast.walk(given)
        elif isinstance(given, ast.Call) and is_partial(self._scan, given):
            for part in [*given.args, *(keyword.value for keyword in given.keywords)]:
                yield from self._in_step(part)
