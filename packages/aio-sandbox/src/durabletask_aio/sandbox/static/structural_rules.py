"""Rules beyond single calls: order, shared state, and what a workflow does with its operations."""

from __future__ import annotations

import ast
import random
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from durabletask_aio.sandbox.code import _interpreter
from durabletask_aio.sandbox.code.evaluator import as_unordered
from durabletask_aio.sandbox.code.scopes import own_nodes
from durabletask_aio.sandbox.code.values import (
    ContextMethod,
    Instance,
    ObjectValue,
    SharedObject,
    SourceClass,
    UnawaitedValue,
    UnorderedValue,
    Value,
)
from durabletask_aio.sandbox.static.live_resolver import MUTABLE, is_foreign

if TYPE_CHECKING:
    from durabletask_aio.sandbox.rules.catalogue import Rule
    from durabletask_aio.sandbox.static.scanner import Scanner

_MUTATORS: Final = frozenset(
    [
        "append",
        "extend",
        "insert",
        "remove",
        "pop",
        "clear",
        "update",
        "setdefault",
        "popitem",
        "add",
        "discard",
        "sort",
        "reverse",
        "appendleft",
        "popleft",
        "extendleft",
        "rotate",
        "subtract",
        "difference_update",
        "intersection_update",
        "symmetric_difference_update",
    ]
)
_ALLOW_NAMES: Final = frozenset({"durabletask.aio.sandbox.allow", "durabletask_aio.sandbox.rules.allowance.allow"})
_INSTEAD_OF_SUPPRESS: Final = "`contextlib.suppress(Exception)`, or a narrower class"
_SWALLOWS: Final = frozenset({"builtins.BaseException", "asyncio.CancelledError", "asyncio.exceptions.CancelledError"})


def check(scanner: Scanner, node: ast.AST) -> None:
    """Apply every rule that concerns ``node``."""
    if isinstance(node, ast.Call):
        _mutating_call(scanner, node)
        _operation_argument(scanner, node)
        _computed_name(scanner, node)
        _as_completed(scanner, node)
    elif isinstance(node, (ast.For, ast.AsyncFor)):
        _loop(scanner, node.iter, node.body)
    elif isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
        _comprehension(scanner, node)
    elif isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete)):
        _assignment(scanner, node)
    elif isinstance(node, ast.Expr):
        _not_awaited(scanner, node)
    elif isinstance(node, ast.Try):
        _swallowed(scanner, node)
    elif isinstance(node, (ast.With, ast.AsyncWith)):
        _suppressed(scanner, node)


def _rule(scanner: Scanner, code: str) -> Rule:
    return scanner.analysis.catalogue.rules[code]


# Order -----------------------------------------------------------------------------------------------------------


def _loop(scanner: Scanner, iterated: ast.expr, body: list[ast.stmt]) -> None:
    unordered = _unordered(scanner, iterated)
    if unordered is not None and any(_operates(scanner, node) for statement in body for node in own_nodes(statement)):
        _report_order(scanner, iterated, unordered, "The loop goes through a set and starts durable operations")


def _comprehension(scanner: Scanner, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
    elements = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
    unordered = _unordered(scanner, node.generators[0].iter)
    if unordered is not None and any(_operates(scanner, each) for element in elements for each in own_nodes(element)):
        what = "The comprehension goes through a set and starts durable operations"
        _report_order(scanner, node.generators[0].iter, unordered, what)


def _operation_argument(scanner: Scanner, node: ast.Call) -> None:
    """A list made from a set, handed to an operation: its order is recorded in the history."""
    if not any(isinstance(value, ContextMethod) for value in scanner.values(node.func)):
        return
    for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
        found = _unordered(scanner, argument)
        starts = isinstance(argument, (ast.ListComp, ast.GeneratorExp)) and _operates(scanner, argument.elt)
        # A comprehension that starts operations has been reported as such.
        if found is None or found.is_set or starts:
            continue
        if found.is_element:
            detail = "What comes first in a set is given to a durable operation"
            better = "`min(...)` or `sorted(...)` of the set, or a list or dict, which keep their order"
            scanner.report(argument, _rule(scanner, "DET703"), detail=detail, advice=better, certain=found.is_certain)
        else:
            _report_order(scanner, argument, found, "A sequence in the order of a set is given to a durable operation")


def _unordered(scanner: Scanner, node: ast.expr) -> UnorderedValue | None:
    return next(filter(None, map(as_unordered, scanner.values(node))), None)


def _report_order(scanner: Scanner, node: ast.expr, unordered: UnorderedValue, what: str) -> None:
    better = f"`sorted({ast.unparse(node)})`, or a list or dict, which keep their order"
    scanner.report(node, _rule(scanner, "DET703"), detail=what, advice=better, certain=unordered.is_certain)


def _operates(scanner: Scanner, node: ast.AST) -> bool:
    if isinstance(node, (ast.Await, ast.Yield, ast.YieldFrom)):
        return True
    return isinstance(node, ast.Call) and any(
        isinstance(value, (UnawaitedValue, ContextMethod))
        for value in (*scanner.values(node), *scanner.values(node.func))
    )


def _as_completed(scanner: Scanner, node: ast.Call) -> None:
    names = {scanner.resolver.full_name(value) for value in scanner.values(node.func)}
    if not names & {"asyncio.as_completed", "asyncio.tasks.as_completed"} or not node.args:
        return
    given = node.args[0]
    parts = given.elts if isinstance(given, (ast.List, ast.Tuple, ast.Set)) else [getattr(given, "elt", given)]
    for part in parts:
        made = [value for value in scanner.values(part) if isinstance(value, UnawaitedValue)]
        if made and not made[0].what.startswith("ctx."):
            scanner.report(node, _rule(scanner, "DET605"), detail="`asyncio.as_completed()` is given coroutines")
            return


# Shared state ----------------------------------------------------------------------------------------------------


def check_shared_random(scanner: Scanner, node: ast.expr, value: Value) -> bool:
    """A method of a generator that outlives the execution."""
    receiver = value.receiver if isinstance(value, ObjectValue) else None
    held = receiver.value if isinstance(receiver, ObjectValue) else None
    name = receiver.name if isinstance(receiver, SharedObject) and receiver.is_random else None
    is_shared = isinstance(value, SharedObject) and value.is_random
    if not is_shared and name is None and not isinstance(held, random.Random):
        return False
    if isinstance(held, random.SystemRandom):
        return False
    text = ast.unparse(node.func if isinstance(node, ast.Call) else node)
    detail = f"`{text}()` draws from a generator that is kept outside of the workflow"
    scanner.report(node, _rule(scanner, "DET203"), detail=detail)
    return True


def _mutating_call(scanner: Scanner, node: ast.Call) -> None:
    if isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATORS:
        _report_state(scanner, node, node.func.value, f"`{ast.unparse(node.func)}()` changes")
    elif _moves_on_a_shared_iterator(scanner, node):
        detail = f"`{ast.unparse(node)}` advances an iterator that outlives the workflow"
        scanner.report(node, _rule(scanner, "DET801"), detail=detail)


def _moves_on_a_shared_iterator(scanner: Scanner, node: ast.Call) -> bool:
    if not node.args or not _is_call_of(scanner, node, "builtins.next"):
        return False
    return any(_is_shared_iterator(value) for value in scanner.values(node.args[0]))


def _is_call_of(scanner: Scanner, node: ast.Call, name: str) -> bool:
    return any(scanner.resolver.full_name(value) == name for value in scanner.values(node.func))


def _is_shared_iterator(value: Value) -> bool:
    if isinstance(value, SharedObject):
        return value.is_iterator
    return isinstance(value, ObjectValue) and isinstance(value.value, Iterator)


def _assignment(scanner: Scanner, node: ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete) -> None:
    targets = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else [node.target]
    for target in targets:
        if isinstance(target, (ast.Subscript, ast.Attribute)):
            _report_state(scanner, target, target.value, f"`{ast.unparse(target)}` is written, which changes")
        elif isinstance(target, ast.Name) and target.id in scanner.scope.global_names:
            detail = f"The global variable `{target.id}` is written"
            scanner.report(target, _rule(scanner, "DET801"), detail=detail)


def _report_state(scanner: Scanner, node: ast.expr, owner: ast.expr, what: str) -> None:
    for value in scanner.values(owner):
        kind = _shared_kind(value, isinstance(node, ast.Call))
        if kind is not None:
            detail = f"{what} {kind} that outlives the workflow"
            scanner.report(node, _rule(scanner, "DET801"), detail=detail)
            return


def _shared_kind(value: Value, by_method: bool) -> str | None:
    if isinstance(value, SharedObject) and not value.is_random and not value.is_iterator:
        return value.kind
    if isinstance(value, SourceClass) and value.scope.is_module and not by_method:
        return f"the class {value.node.name}"
    if isinstance(value, Instance) and value.is_shared and isinstance(value.of, SourceClass) and not by_method:
        return f"an object of the class {value.of.node.name}"
    return _kind_of_known(value.value, by_method) if isinstance(value, ObjectValue) else None


def _kind_of_known(held: object, by_method: bool) -> str | None:
    kind = _interpreter.type_of(held)
    if isinstance(held, MUTABLE):
        return f"a {kind.__name__}"
    if by_method:
        return None
    if isinstance(held, types.ModuleType):
        return f"the module {held.__name__}"
    if isinstance(held, (type, types.FunctionType)):
        return f"the {'class' if isinstance(held, type) else 'function'} {held.__name__}"
    return None if is_foreign(kind) else f"an object of the class {kind.__name__}"


# Operations and cancellation --------------------------------------------------------------------------------------


def _not_awaited(scanner: Scanner, node: ast.Expr) -> None:
    if not isinstance(node.value, ast.Call) or isinstance(scanner.node, ast.Lambda):
        return
    for value in scanner.values(node.value):
        if isinstance(value, UnawaitedValue):
            word = "yield" if scanner.analysis.is_generator else "await"
            line = ast.unparse(node.value).split("\n")[0]
            detail = f"The result of `{value.what}` is dropped"
            advice = f"`{word} {line}`, or keep it in a variable and {word} it later"
            scanner.report(node.value, _rule(scanner, "DET802"), detail=detail, advice=advice)
            return


def _swallowed(scanner: Scanner, node: ast.Try) -> None:
    if not scanner.is_async or not _waits(node.body):
        return
    for handler in node.handlers:
        if _ends_what_it_cancelled(scanner, handler.type, node.body):
            continue
        if _catches_cancellation(scanner, handler.type) and not _raises(handler.body):
            caught = f"except {ast.unparse(handler.type)}:" if handler.type is not None else "except:"
            detail = f"`{caught}` around an `await` swallows cancellation"
            scanner.report(handler, _rule(scanner, "DET803"), detail=detail)


def _suppressed(scanner: Scanner, node: ast.With | ast.AsyncWith) -> None:
    if not scanner.is_async or not _waits(node.body):
        return
    for item in node.items:
        call = item.context_expr
        if not isinstance(call, ast.Call) or not _is_call_of(scanner, call, "contextlib.suppress"):
            continue
        kinds = ast.Tuple(elts=call.args)
        if _catches_cancellation(scanner, kinds) and not _ends_what_it_cancelled(scanner, kinds, node.body):
            detail = f"`{ast.unparse(call)}` around an `await` swallows cancellation"
            scanner.report(call, _rule(scanner, "DET803"), detail=detail, advice=_INSTEAD_OF_SUPPRESS)


def _waits(statements: list[ast.stmt]) -> list[ast.AST]:
    """What waits in there, and so is where cancellation comes out."""
    return [each for statement in statements for each in own_nodes(statement) if _is_wait(each)]


def _is_wait(node: ast.AST) -> bool:
    return isinstance(node, (ast.Await, ast.AsyncFor, ast.AsyncWith)) or (
        isinstance(node, ast.comprehension) and bool(node.is_async)
    )


def _raises(statements: list[ast.stmt]) -> bool:
    return any(isinstance(each, ast.Raise) for statement in statements for each in own_nodes(statement))


def _catches_cancellation(scanner: Scanner, kind: ast.expr | None) -> bool:
    if kind is None:
        return True
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(scanner.resolver.full_name(value) in _SWALLOWS for each in kinds for value in scanner.values(each))


def _ends_what_it_cancelled(scanner: Scanner, kind: ast.expr | None, body: list[ast.stmt]) -> bool:
    """``task.cancel()``, then a wait for the end of that same task: the way to stop one."""
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind] if kind is not None else []
    names = {scanner.resolver.full_name(value) for each in kinds for value in scanner.values(each)}
    if not kinds or "builtins.BaseException" in names:
        return False
    cancelled = {
        ast.dump(each.func.value)
        for statement in scanner.statements
        for each in own_nodes(statement)
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr == "cancel"
    }
    return all(isinstance(each, ast.Await) and ast.dump(each.value) in cancelled for each in _waits(body))


# Dynamic code, allowances -----------------------------------------------------------------------------------------


def _computed_name(scanner: Scanner, node: ast.Call) -> None:
    """``getattr(module, name)`` with a computed name, where the module has something in the catalogue."""
    if len(node.args) < 2 or isinstance(node.args[1], ast.Constant):
        return
    if "builtins.getattr" not in {scanner.resolver.full_name(value) for value in scanner.values(node.func)}:
        return
    for value in scanner.values(node.args[0]):
        if scanner.resolver.owns_calls(value):
            detail = f"An attribute of `{ast.unparse(node.args[0])}` is taken by a computed name"
            scanner.report(node, _rule(scanner, "DET704"), detail=detail)


def allowed_by(scanner: Scanner, node: ast.expr) -> tuple[str, ...] | None:
    """The names in ``allow("...")``, if ``node`` is that; ``None`` otherwise."""
    if not isinstance(node, ast.Call):
        return None
    if not any(scanner.resolver.full_name(value) in _ALLOW_NAMES for value in scanner.values(node.func)):
        return None
    names = tuple(each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str))
    return names or ("*",)
