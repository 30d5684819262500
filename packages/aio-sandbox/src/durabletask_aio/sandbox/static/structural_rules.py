"""Rules that are not about single calls: set order, shared state, dropped operations, swallowed cancellation."""

from __future__ import annotations

import ast
from typing import Final

from durabletask_aio.sandbox.code.evaluator import as_unordered
from durabletask_aio.sandbox.code.scopes import own_nodes
from durabletask_aio.sandbox.code.values import (
    ContainerValue,
    ContextMethod,
    ImportTimeValue,
    Instance,
    SharedObject,
    SourceClass,
    SourceFunction,
    UnawaitedValue,
    UnorderedValue,
    Value,
)
from durabletask_aio.sandbox.rules.allowance import ALLOW_NAMES
from durabletask_aio.sandbox.rules.catalogue import Rule
from durabletask_aio.sandbox.static.function_scan import FunctionScan
from durabletask_aio.sandbox.static.source_modules import SourceModule

MUTATORS: Final = frozenset(
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
"""Methods that change the collection whose methods they are."""
_ORDER_INSENSITIVE: Final = frozenset(
    [
        *("builtins.sorted", "builtins.set", "builtins.frozenset", "builtins.any", "builtins.all", "builtins.len"),
        *("builtins.sum", "builtins.min", "builtins.max", "asyncio.wait", "asyncio.tasks.wait"),
    ]
)
_SEQUENCES: Final = frozenset(f"builtins.{name}" for name in ("list", "tuple", "iter", "reversed", "map", "filter"))
_NUMBERED_SEQUENCES: Final = frozenset({"builtins.enumerate", "builtins.zip"})
"""Unlike those in `_SEQUENCES`, these depend on the order even inside `sorted`."""
_INSTEAD_OF_SUPPRESS: Final = "`contextlib.suppress(Exception)`, or a narrower class"
_SWALLOWS: Final = frozenset({"builtins.BaseException", "asyncio.CancelledError", "asyncio.exceptions.CancelledError"})


def check(scan: FunctionScan, node: ast.AST) -> None:
    """Apply every rule that concerns `node`."""
    if isinstance(node, ast.Call):
        _mutating_call(scan, node)
        _operation_argument(scan, node)
        _computed_name(scan, node)
        _as_completed(scan, node)
        _sequence_of_tasks(scan, node)
    elif isinstance(node, (ast.For, ast.AsyncFor)):
        _loop(scan, node.iter, node.body)
    elif isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
        _comprehension(scan, node)
    elif isinstance(node, (ast.List, ast.Tuple)):
        _starred_tasks(scan, node, node.elts)
    elif isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete)):
        _assignment(scan, node)
    elif isinstance(node, ast.Expr):
        _not_awaited(scan, node)
    elif isinstance(node, (ast.If, ast.IfExp)):
        _replaying_branch(scan, node)
    elif isinstance(node, ast.While):
        _endless_loop(scan, node)
    elif isinstance(node, ast.Try):
        _swallowed_cancellation(scan, node)
    elif isinstance(node, (ast.With, ast.AsyncWith)):
        _suppressed_cancellation(scan, node)


def _rule(scan: FunctionScan, code: str) -> Rule:
    return scan.analysis.catalogue.rules[code]


# Order -----------------------------------------------------------------------------------------------------------


def _loop(scan: FunctionScan, iterated: ast.expr, body: list[ast.stmt]) -> None:
    unordered = _unordered(scan, iterated)
    if unordered is None:
        return
    starts = any(_starts_operation(scan, node) for statement in body for node in own_nodes(statement))
    if unordered.is_tasks:
        _report_tasks(scan, iterated, certain=starts)
    elif starts:
        _report_order(scan, iterated, unordered, "The loop goes through a set and starts durable operations")


def _comprehension(scan: FunctionScan, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
    elements = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
    iterated = node.generators[0].iter
    unordered = _unordered(scan, iterated)
    if unordered is None:
        return
    starts = any(_starts_operation(scan, each) for element in elements for each in own_nodes(element))
    if unordered.is_tasks:
        if starts or not (isinstance(node, ast.SetComp) or id(node) in scan.order_insensitive):
            _report_tasks(scan, iterated, certain=starts)
    elif starts:
        _report_order(scan, iterated, unordered, "The comprehension goes through a set and starts durable operations")


def _operation_argument(scan: FunctionScan, node: ast.Call) -> None:
    """Report a sequence in set order that is passed to an operation, because the history records its order."""
    if not any(isinstance(value, ContextMethod) for value in scan.values(node.func)):
        return
    for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
        found = _unordered_within(scan, argument)
        starts = isinstance(argument, (ast.ListComp, ast.GeneratorExp)) and _starts_operation(scan, argument.elt)
        # A comprehension that starts operations is reported by `_comprehension`.
        if found is None or found.is_set or starts:
            continue
        if found.is_element:
            detail = "What comes first in a set is given to a durable operation"
            advice = "`min(...)` or `sorted(...)` of the set, or a list or dict, which keep their order"
            scan.report(argument, _rule(scan, "DET703"), detail=detail, advice=advice, certain=found.is_certain)
        else:
            _report_order(scan, argument, found, "A sequence in the order of a set is given to a durable operation")


def _sequence_of_tasks(scan: FunctionScan, node: ast.Call) -> None:
    """Report a call that goes through the set of all tasks in its order, such as `list(asyncio.all_tasks())`."""
    names = {scan.resolver.full_name(value) for value in scan.values(node.func)}
    is_sequence = bool(names & _SEQUENCES)
    if names & _ORDER_INSENSITIVE or (is_sequence and id(node) in scan.order_insensitive):
        scan.order_insensitive.update(map(id, node.args))
        return
    if is_sequence or names & _NUMBERED_SEQUENCES:
        for argument in node.args:
            if _is_task_set(scan, argument):
                _report_tasks(scan, argument)
    _starred_tasks(scan, node, node.args)


def _starred_tasks(scan: FunctionScan, node: ast.expr, elements: list[ast.expr]) -> None:
    """Report `*asyncio.all_tasks()` among the elements of a display or the arguments of a call."""
    if id(node) in scan.order_insensitive:
        return
    for element in elements:
        if isinstance(element, ast.Starred) and _is_task_set(scan, element.value):
            _report_tasks(scan, element.value)


def _is_task_set(scan: FunctionScan, node: ast.expr) -> bool:
    unordered = _unordered(scan, node)
    return unordered is not None and unordered.is_tasks and unordered.is_set


def _report_tasks(scan: FunctionScan, node: ast.expr, *, certain: bool = False) -> None:
    detail = "The code iterates over the set of `asyncio.all_tasks()`, whose order differs on replay"
    advice = f"`sorted({ast.unparse(node)}, key=lambda task: task.get_name())`"
    scan.report(node, _rule(scan, "DET703"), detail=detail, advice=advice, certain=certain)


def _unordered(scan: FunctionScan, node: ast.expr) -> UnorderedValue | None:
    return next(filter(None, map(as_unordered, scan.values(node))), None)


def _unordered_within(scan: FunctionScan, node: ast.expr) -> UnorderedValue | None:
    """A sequence in set order that is `node`, or is inside of a container that it is."""
    queue = [*scan.values(node)]
    while queue:
        value = queue.pop(0)
        unordered = as_unordered(value)
        if unordered is not None:
            return unordered
        queue += value.elements if isinstance(value, ContainerValue) else ()
    return None


def _report_order(scan: FunctionScan, node: ast.expr, unordered: UnorderedValue, detail: str) -> None:
    advice = f"`sorted({ast.unparse(node)})`, or a list or dict, which keep their order"
    scan.report(node, _rule(scan, "DET703"), detail=detail, advice=advice, certain=unordered.is_certain)


def _starts_operation(scan: FunctionScan, node: ast.AST) -> bool:
    if isinstance(node, (ast.Await, ast.Yield, ast.YieldFrom)):
        return True
    return isinstance(node, ast.Call) and any(
        isinstance(value, (UnawaitedValue, ContextMethod)) for value in (*scan.values(node), *scan.values(node.func))
    )


def _as_completed(scan: FunctionScan, node: ast.Call) -> None:
    names = {scan.resolver.full_name(value) for value in scan.values(node.func)}
    if not names & {"asyncio.as_completed", "asyncio.tasks.as_completed"} or not node.args:
        return
    given = node.args[0]
    parts = given.elts if isinstance(given, (ast.List, ast.Tuple, ast.Set)) else [getattr(given, "elt", given)]
    for part in parts:
        made = [value for value in scan.values(part) if isinstance(value, UnawaitedValue)]
        if made and not made[0].description.startswith("ctx."):
            scan.report(node, _rule(scan, "DET605"), detail="`asyncio.as_completed()` is given coroutines")
            return


# Shared state ----------------------------------------------------------------------------------------------------


def check_shared_random(scan: FunctionScan, node: ast.expr, value: Value) -> bool:
    """Report a method call on a random generator that outlives the execution; return whether it is one."""
    if not (isinstance(value, SharedObject) and value.is_random):
        return False
    text = ast.unparse(node.func if isinstance(node, ast.Call) else node)
    detail = f"`{text}()` draws from a generator that is kept outside of the workflow"
    scan.report(node, _rule(scan, "DET203"), detail=detail)
    return True


def report_import_time_value(scan: FunctionScan, node: ast.expr, value: ImportTimeValue) -> None:
    """Report the use of a value that was computed when its module was imported."""
    text = ast.unparse(node)
    call = value.call.removeprefix("builtins.")
    detail = f"`{text}` is what `{call}()` returned when the module was imported ({value.place})"
    scan.report(node, _rule(scan, "DET805"), detail=detail)


def _mutating_call(scan: FunctionScan, node: ast.Call) -> None:
    if isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        _report_state(scan, node, node.func.value, f"`{ast.unparse(node.func)}()` changes")
    elif _advances_shared_iterator(scan, node):
        detail = f"`{ast.unparse(node)}` advances an iterator that outlives the workflow"
        scan.report(node, _rule(scan, "DET801"), detail=detail)


def _advances_shared_iterator(scan: FunctionScan, node: ast.Call) -> bool:
    if not node.args or not _is_call_of(scan, node, "builtins.next"):
        return False
    return any(_is_shared_iterator(value) for value in scan.values(node.args[0]))


def _is_call_of(scan: FunctionScan, node: ast.Call, name: str) -> bool:
    return any(scan.resolver.full_name(value) == name for value in scan.values(node.func))


def _is_shared_iterator(value: Value) -> bool:
    return isinstance(value, SharedObject) and value.is_iterator


def _assignment(scan: FunctionScan, node: ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete) -> None:
    targets = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else [node.target]
    for target in targets:
        if isinstance(target, (ast.Subscript, ast.Attribute)):
            _report_state(scan, target, target.value, f"`{ast.unparse(target)}` is written, which changes")
        elif isinstance(target, ast.Name) and target.id in scan.scope.global_names:
            detail = f"The global variable `{target.id}` is written"
            scan.report(target, _rule(scan, "DET801"), detail=detail)


def _report_state(scan: FunctionScan, node: ast.expr, owner: ast.expr, detail: str) -> None:
    for value in scan.values(owner):
        kind = _shared_kind(value, isinstance(node, ast.Call))
        if kind is not None:
            detail = f"{detail} {kind} that outlives the workflow"
            scan.report(node, _rule(scan, "DET801"), detail=detail)
            return


def _shared_kind(value: Value, by_method: bool) -> str | None:
    if isinstance(value, SharedObject) and not value.is_random and not value.is_iterator:
        return value.kind
    if by_method:
        return None
    if isinstance(value, SourceModule):
        return f"the module {value.name}"
    if isinstance(value, SourceClass) and value.scope.is_module:
        return f"the class {value.node.name}"
    if isinstance(value, SourceFunction) and value.scope.is_module and not isinstance(value.node, ast.Lambda):
        return f"the function {value.node.name}"
    if isinstance(value, Instance) and value.is_shared and isinstance(value.cls, SourceClass):
        return f"an object of the class {value.cls.node.name}"
    return None


# Operations and cancellation --------------------------------------------------------------------------------------


def _not_awaited(scan: FunctionScan, node: ast.Expr) -> None:
    if not isinstance(node.value, ast.Call) or isinstance(scan.node, ast.Lambda):
        return
    for value in scan.values(node.value):
        if isinstance(value, UnawaitedValue):
            word = "yield" if scan.analysis.is_generator else "await"
            line = ast.unparse(node.value).split("\n")[0]
            detail = f"The result of `{value.description}` is dropped"
            advice = f"`{word} {line}`, or keep it in a variable and {word} it later"
            scan.report(node.value, _rule(scan, "DET802"), detail=detail, advice=advice)
            return


def _swallowed_cancellation(scan: FunctionScan, node: ast.Try) -> None:
    if not scan.is_async or not _waits(node.body):
        return
    for handler in node.handlers:
        if _awaits_cancelled_tasks(scan, handler.type, node.body):
            continue
        if _catches_cancellation(scan, handler.type) and not _raises(handler.body):
            caught = f"except {ast.unparse(handler.type)}:" if handler.type is not None else "except:"
            detail = f"`{caught}` around an `await` swallows cancellation"
            scan.report(handler, _rule(scan, "DET803"), detail=detail)


def _suppressed_cancellation(scan: FunctionScan, node: ast.With | ast.AsyncWith) -> None:
    if not scan.is_async or not _waits(node.body):
        return
    for item in node.items:
        call = item.context_expr
        if not isinstance(call, ast.Call) or not _is_call_of(scan, call, "contextlib.suppress"):
            continue
        kinds = ast.Tuple(elts=call.args)
        if _catches_cancellation(scan, kinds) and not _awaits_cancelled_tasks(scan, kinds, node.body):
            detail = f"`{ast.unparse(call)}` around an `await` swallows cancellation"
            scan.report(call, _rule(scan, "DET803"), detail=detail, advice=_INSTEAD_OF_SUPPRESS)


def _waits(statements: list[ast.stmt]) -> list[ast.AST]:
    """The nodes that wait, where a cancellation is raised."""
    return [each for statement in statements for each in own_nodes(statement) if _is_wait(each)]


def _is_wait(node: ast.AST) -> bool:
    return isinstance(node, (ast.Await, ast.AsyncFor, ast.AsyncWith)) or (
        isinstance(node, ast.comprehension) and bool(node.is_async)
    )


def _raises(statements: list[ast.stmt]) -> bool:
    return any(isinstance(each, ast.Raise) for statement in statements for each in own_nodes(statement))


def _catches_cancellation(scan: FunctionScan, kind: ast.expr | None) -> bool:
    if kind is None:
        return True
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(scan.resolver.full_name(value) in _SWALLOWS for each in kinds for value in scan.values(each))


def _awaits_cancelled_tasks(scan: FunctionScan, kind: ast.expr | None, body: list[ast.stmt]) -> bool:
    """Whether each wait in `body` is for a task that the function cancels, which is how to stop a task."""
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind] if kind is not None else []
    names = {scan.resolver.full_name(value) for each in kinds for value in scan.values(each)}
    if not kinds or "builtins.BaseException" in names:
        return False
    cancelled = {
        ast.dump(each.func.value)
        for statement in scan.statements
        for each in own_nodes(statement)
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr == "cancel"
    }
    return all(isinstance(each, ast.Await) and ast.dump(each.value) in cancelled for each in _waits(body))


# Replays and endless loops ----------------------------------------------------------------------------------------


def _replaying_branch(scan: FunctionScan, node: ast.If | ast.IfExp) -> None:
    """Report durable operations that are started, or left out, depending on whether the workflow is replayed."""
    names = [each for each in ast.walk(node.test) if isinstance(each, (ast.Name, ast.Attribute))]
    if not any(ContextMethod("is_replaying") in scan.values(each) for each in names):
        return
    parts: list[ast.AST] = [*node.body, *node.orelse] if isinstance(node, ast.If) else [node.body, node.orelse]
    for part in parts:
        for each in own_nodes(part):
            if isinstance(each, ast.expr) and _starts_operation(scan, each):
                detail = f"`{ast.unparse(each)}` depends on `{ast.unparse(node.test)}`"
                scan.report(each, _rule(scan, "DET806"), detail=detail)
                return
    if isinstance(node, ast.If) and _leaves_out_operations(scan, node):
        detail = f"What follows depends on `{ast.unparse(node.test)}`"
        scan.report(node, _rule(scan, "DET806"), detail=detail)


def _leaves_out_operations(scan: FunctionScan, node: ast.If) -> bool:
    """Whether a branch ends the function or a round of a loop, so that operations or a result depend on it."""
    last = node.body[-1]
    if isinstance(last, ast.Return) and last.value is None:
        end = node.end_lineno or node.lineno
        after = (each for statement in scan.statements for each in own_nodes(statement))
        return any(isinstance(each, ast.expr) and each.lineno > end and _starts_operation(scan, each) for each in after)
    return isinstance(last, (ast.Return, ast.Continue, ast.Break))


def _endless_loop(scan: FunctionScan, node: ast.While) -> None:
    """Report a loop without an end that waits, in a function that never continues as new."""
    if not (isinstance(node.test, ast.Constant) and node.test.value):
        return
    own = [each for statement in node.body for each in own_nodes(statement)]
    starts = any(_starts_operation(scan, each) for each in own)
    ends = any(isinstance(each, (ast.Break, ast.Return, ast.Raise)) for each in own)
    everything = (each for statement in scan.statements for each in ast.walk(statement))
    continues = any(isinstance(each, ast.Attribute) and each.attr == "continue_as_new" for each in everything)
    if starts and not ends and not continues:
        scan.report(node, _rule(scan, "DET807"), detail="The loop has no end, and its history grows with each round")


# Dynamic code, allowances -----------------------------------------------------------------------------------------


def _computed_name(scan: FunctionScan, node: ast.Call) -> None:
    """Report `getattr(module, name)` with a computed name, for a module to which calls in the catalogue belong."""
    if len(node.args) < 2 or isinstance(node.args[1], ast.Constant):
        return
    if "builtins.getattr" not in {scan.resolver.full_name(value) for value in scan.values(node.func)}:
        return
    for value in scan.values(node.args[0]):
        if scan.resolver.owns_calls(value):
            detail = f"An attribute of `{ast.unparse(node.args[0])}` is taken by a computed name"
            scan.report(node, _rule(scan, "DET704"), detail=detail)


def allowed_by(scan: FunctionScan, node: ast.expr) -> tuple[str, ...] | None:
    """The names in `allow("...")` if `node` is that call, otherwise `None`."""
    if not isinstance(node, ast.Call):
        return None
    if not any(scan.resolver.full_name(value) in ALLOW_NAMES for value in scan.values(node.func)):
        return None
    names = tuple(each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str))
    return names or ("*",)
