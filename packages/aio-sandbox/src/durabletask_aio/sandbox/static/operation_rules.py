"""Rules about durable operations: their names, what becomes of their results, and the errors that they raise."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from durabletask_aio.sandbox.code.scopes import own_nodes, parameters
from durabletask_aio.sandbox.code.values import (
    ContextMethod,
    ContextValue,
    ExternalName,
    Instance,
    SourceClass,
    SourceFunction,
    UnawaitedValue,
    Value,
)
from durabletask_aio.sandbox.static.function_scan import FunctionScan
from durabletask_aio.sandbox.static.registrations import (
    ACTIVITY,
    WORKFLOW,
    takes_activity_context,
    takes_workflow_context,
)
from durabletask_aio.sandbox.static.source_modules import SourceModule

_CALLS: Final = {"call_activity": ACTIVITY, "call_sub_orchestrator": WORKFLOW}
_LOCKS: Final = {
    "threading.Lock": "threading.Lock",
    "threading.RLock": "threading.RLock",
    "threading.Condition": "threading.Condition",
    "threading.Semaphore": "threading.Semaphore",
    "threading.BoundedSemaphore": "threading.Semaphore",
    "multiprocessing.Lock": "multiprocessing.Lock",
}
"""By the name of a class: the name that messages show."""
_INSTEAD_OF_LOCK: Final = (
    "`asyncio.Lock` within an instance, `ctx.lock_entities` between instances, or a lock in an activity"
)
_TYPES: Final = frozenset({"str", "bytes", "int", "float", "bool", "list", "dict"})
_CONVERTED: Final = frozenset({("int", "float"), ("bool", "int"), ("bool", "float")})
_SDKS: Final = frozenset({"durabletask", "durabletask_aio", "dapr", "azure"})
_LOGS: Final = frozenset({"debug", "info", "warning", "warn", "error", "exception", "critical", "log"})


def check(scan: FunctionScan, node: ast.AST) -> None:
    """Apply every rule that concerns `node`."""
    if isinstance(node, ast.Call):
        _name(scan, node)
        _direct_call(scan, node)
        _log(scan, node)
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        _unused_result(scan, node)
        if isinstance(node, ast.AnnAssign):
            _annotated_result(scan, node)
    elif isinstance(node, (ast.BinOp, ast.Compare, ast.Subscript, ast.FormattedValue, ast.If, ast.IfExp, ast.While)):
        _used_without_await(scan, node)
    elif isinstance(node, ast.With):
        _lock(scan, node)
    elif isinstance(node, ast.Try):
        _unmatched_except(scan, node)


def _report(
    scan: FunctionScan, node: ast.expr | ast.stmt | ast.ExceptHandler, code: str, detail: str, advice: str | None = None
) -> None:
    scan.report(node, scan.analysis.catalogue.rules[code], detail=detail, advice=advice)


def _operation(scan: FunctionScan, node: ast.expr) -> UnawaitedValue | None:
    """The operation or coroutine that a call starts; `None` for anything else."""
    if not isinstance(node, ast.Call):
        return None
    return next((each for each in scan.values(node) if isinstance(each, UnawaitedValue)), None)


# Names and contexts ----------------------------------------------------------------------------------------------


def _name(scan: FunctionScan, node: ast.Call) -> None:
    methods = [each.name for each in scan.values(node.func) if isinstance(each, ContextMethod)]
    kind = next((_CALLS[name] for name in methods if name in _CALLS), None)
    if kind is None or not node.args:
        return
    called = node.args[0]
    if isinstance(called, ast.Constant) and isinstance(called.value, str):
        known = scan.analysis.registrations
        suggestion = None if known is None else known.suggestion(kind, called.value)
        if suggestion is not None:
            article = "activity" if kind == ACTIVITY else "workflow"
            _report(scan, called, "DET808", f"No {article} `{called.value}` is registered; {suggestion}")
        elif known is not None:
            function = known.functions.get((kind, called.value))
            _input(scan, node, called.value, function)
            for keyword in node.keywords:
                if keyword.arg == "return_type":
                    _result(scan, keyword.value, called.value, function)
    elif kind == ACTIVITY:
        functions = (each for each in scan.values(called) if isinstance(each, SourceFunction))
        if any(takes_workflow_context(each, scan.resolver) for each in functions):
            detail = f"The activity `{ast.unparse(called)}` is annotated with the context of a workflow"
            _report(scan, called, "DET810", detail)
    for argument in [*node.args[1:], *(keyword.value for keyword in node.keywords)]:
        if ContextValue() in scan.values(argument):
            detail = f"The context `{ast.unparse(argument)}` is given to `{ast.unparse(node.func)}()`"
            _report(scan, argument, "DET810", detail)


def _input(scan: FunctionScan, node: ast.Call, name: str, function: SourceFunction | None) -> None:
    """Report a constant as the input of a function, registered under a name, that takes another built-in type."""
    if function is None:
        return
    names = parameters(function.node.args)[1 if function.receiver is None else 2 :]
    annotation = names[0].annotation if names else None
    given = [*(each.value for each in node.keywords if each.arg == "input"), *node.args[1:2]]
    if annotation is None or not given:
        return
    if not _fits(_type_of(given[0]), _annotated_type(annotation)):
        detail = f"`{name}` takes `{ast.unparse(annotation)}`, and `{ast.unparse(given[0])}` is given"
        _report(scan, given[0], "DET813", detail, f"a value of the type `{ast.unparse(annotation)}`")


def _annotated_result(scan: FunctionScan, node: ast.AnnAssign) -> None:
    """Report a variable for the result of a call by name, annotated with another type than the function returns."""
    call = node.value.value if isinstance(node.value, (ast.Await, ast.Yield)) else None
    called = call.args[0] if isinstance(call, ast.Call) and call.args else None
    if call is None or not (isinstance(called, ast.Constant) and isinstance(called.value, str)):
        return
    assert isinstance(call, ast.Call)
    known = scan.analysis.registrations
    for value in scan.values(call.func):
        if known is not None and isinstance(value, ContextMethod) and value.name in _CALLS:
            _result(scan, node.annotation, called.value, known.functions.get((_CALLS[value.name], called.value)))


def _result(scan: FunctionScan, expected: ast.expr, name: str, function: SourceFunction | None) -> None:
    """Report a type that is expected of the result of a function which is registered under a name."""
    returned = None if function is None or isinstance(function.node, ast.Lambda) else function.node.returns
    if returned is not None and not _fits(_annotated_type(returned), _annotated_type(expected)):
        detail = f"`{name}` returns `{ast.unparse(returned)}`, and `{ast.unparse(expected)}` is expected"
        _report(scan, expected, "DET813", detail, f"`{ast.unparse(returned)}`")


def _annotated_type(node: ast.expr) -> str:
    kind = node.value if isinstance(node, ast.Subscript) else node
    return kind.id if isinstance(kind, ast.Name) else ""


def _fits(found: str, wanted: str) -> bool:
    """Whether a value of one built-in type may be used as another; so for types that are not known."""
    known = found in _TYPES and wanted in _TYPES
    return not known or found == wanted or (found, wanted) in _CONVERTED


def _direct_call(scan: FunctionScan, node: ast.Call) -> None:
    """Report an activity that the code of a workflow calls like any function; activities may call one another."""
    known = scan.analysis.registrations
    registered = set[int]() if known is None else known.activities
    if id(scan.node) in registered:
        return
    functions = (each for each in scan.values(node.func) if isinstance(each, SourceFunction))
    if any(id(each.node) in registered or takes_activity_context(each) for each in functions):
        name = ast.unparse(node.func)
        word, context = _word(scan), scan.context or "ctx"
        advice = f"`{word} {context}.call_activity({name}, input=...)`"
        _report(scan, node, "DET814", f"The activity `{name}` is called directly, so it runs on each replay", advice)


def _type_of(node: ast.expr) -> str:
    """The name of the built-in type of a constant or display; empty if it is not known."""
    if isinstance(node, ast.Constant):
        return type(node.value).__name__
    if isinstance(node, (ast.List, ast.ListComp)):
        return "list"
    if isinstance(node, (ast.Dict, ast.DictComp)):
        return "dict"
    return "str" if isinstance(node, ast.JoinedStr) else ""


# What becomes of results ----------------------------------------------------------------------------------------


def _unused_result(scan: FunctionScan, node: ast.Assign | ast.AnnAssign) -> None:
    """Report an operation that is kept in a variable which nothing reads."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    target = targets[0]
    if len(targets) != 1 or not isinstance(target, ast.Name) or target.id.startswith("_") or node.value is None:
        return
    if target.id in scan.scope.global_names:
        return
    value = node.value
    parts = value.elts if isinstance(value, (ast.List, ast.Tuple)) else [getattr(value, "elt", value)]
    started = next((each for part in parts if (each := _operation(scan, part)) is not None), None)
    if started is None or _is_read(scan, target.id):
        return
    waits = target.id if parts == [value] else f"ctx.when_all({target.id})"
    detail = f"The result of `{started.description}` is kept in `{target.id}`, which nothing reads"
    _report(scan, node, "DET802", detail, f"`{_word(scan)} {waits}` before the end of the function")


def _is_read(scan: FunctionScan, name: str) -> bool:
    everything = (each for statement in scan.statements for each in ast.walk(statement))
    return any(
        (isinstance(each, ast.Name) and each.id == name and not isinstance(each.ctx, ast.Store))
        or (isinstance(each, (ast.Global, ast.Nonlocal)) and name in each.names)
        or (isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id in {"locals", "vars"})
        for each in everything
    )


def _used_without_await(scan: FunctionScan, node: ast.AST) -> None:
    """Report an operation of which the value is used as if it were its result."""
    for used in _used(node):
        started = _operation(scan, used)
        if started is not None:
            detail = f"The result of `{started.description}` is used before it is there"
            _report(scan, used, "DET802", detail, f"`({_word(scan)} {ast.unparse(used)})`")


def _used(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        yield from (node.left, node.right)
    elif isinstance(node, ast.Compare):
        yield from (node.left, *node.comparators)
    elif isinstance(node, (ast.Subscript, ast.FormattedValue)):
        yield node.value
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield node.test.operand if isinstance(node.test, ast.UnaryOp) else node.test


def _word(scan: FunctionScan) -> str:
    return "yield" if scan.analysis.is_generator else "await"


# Locks, logs and errors -----------------------------------------------------------------------------------------


def _lock(scan: FunctionScan, node: ast.With) -> None:
    """Report a lock of `threading` that is held over an `await`; at run time the sandbox finds it by itself."""
    waits = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)
    if scan.analysis.registrations is None or not any(
        isinstance(each, waits) for statement in node.body for each in own_nodes(statement)
    ):
        return
    for item in node.items:
        names = {_LOCKS[name] for value in scan.values(item.context_expr) if (name := _class_name(value)) in _LOCKS}
        if names:
            detail = f"A `{min(names)}` is held while the workflow waits, and blocks other instances"
            rule = scan.analysis.catalogue.rules["DET804"]
            scan.report(item.context_expr, rule, detail=detail, advice=_INSTEAD_OF_LOCK, certain=False)


def _class_name(value: Value) -> str:
    if isinstance(value, Instance) and isinstance(value.cls, ExternalName):
        return value.cls.name
    return ""


def _log(scan: FunctionScan, node: ast.Call) -> None:
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in _LOGS or _is_guarded(scan, node):
        return
    for value in scan.values(node.func.value):
        if _class_name(value) in {"logging.Logger", "logging.RootLogger"} or value == ExternalName("logging"):
            _report(scan, node, "DET812", f"`{ast.unparse(node.func)}()` writes again on each replay")
            return


def _is_guarded(scan: FunctionScan, node: ast.Call) -> bool:
    """Whether the call is in an `if` statement about `ctx.is_replaying`."""
    return any(
        isinstance(each, ast.If)
        and each.lineno <= node.lineno <= (each.end_lineno or 0)
        and "is_replaying" in ast.unparse(each.test)
        for statement in scan.statements
        for each in own_nodes(statement)
    )


def _unmatched_except(scan: FunctionScan, node: ast.Try) -> None:
    """Report an exception of the user's that the only call in a `try` block cannot raise."""
    call = _only_call(scan, node.body)
    if call is None or any(keyword.arg in {"raises", None} for keyword in call.keywords):
        return
    called = call.args[0] if call.args else None
    if called is None or not _declares_nothing(scan, called):
        return
    for handler in node.handlers:
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        for kind in kinds:
            if kind is not None and _is_own_error(scan, kind):
                name = ast.unparse(kind)
                detail = (
                    f"`except {name}` does not match a failure of `{ast.unparse(call.func)}({ast.unparse(called)})`"
                )
                added = f"`raises=({name},)` in the call, which changes the branch that running instances take"
                advice = None if scan.analysis.is_generator else added
                _report(scan, handler, "DET811", detail, advice)
                return


def _only_call(scan: FunctionScan, body: list[ast.stmt]) -> ast.Call | None:
    """The call of an activity or workflow, if it is the only thing in a block that may raise an error."""
    calls = [each for statement in body for each in own_nodes(statement) if isinstance(each, ast.Call)]
    simple = (ast.Expr, ast.Assign, ast.AnnAssign, ast.Return)
    if len(body) != 1 or len(calls) != 1 or not isinstance(body[0], simple):
        return None
    value = body[0].value
    is_waited = isinstance(value, (ast.Await, ast.Yield)) and value.value is calls[0]
    methods = {each.name for each in scan.values(calls[0].func) if isinstance(each, ContextMethod)}
    return calls[0] if is_waited and methods & set(_CALLS) else None


def _declares_nothing(scan: FunctionScan, called: ast.expr) -> bool:
    """Whether what is called declares no exception types; a name that is text declares none, a decorator may."""
    if isinstance(called, ast.Constant):
        return True
    functions = scan.values(called)
    return bool(functions) and all(
        isinstance(each, SourceFunction) and not isinstance(each.node, ast.Lambda) and not each.node.decorator_list
        for each in functions
    )


def _is_own_error(scan: FunctionScan, kind: ast.expr) -> bool:
    values = scan.values(kind)
    return bool(values) and all(isinstance(each, SourceClass) and _derives_only_from(scan, each) for each in values)


def _derives_only_from(scan: FunctionScan, kind: SourceClass, depth: int = 5) -> bool:
    """Whether a class is an exception of the user's, not based on the errors of durable operations."""
    module = kind.scope.namespace.name if isinstance(kind.scope.namespace, SourceModule) else ""
    if depth == 0 or not kind.node.bases or module.partition(".")[0] in _SDKS:
        return False
    bases = [value for base in kind.node.bases for value in scan.analysis.evaluator.values(base, kind.scope)]
    return len(bases) >= len(kind.node.bases) and all(
        _derives_only_from(scan, base, depth - 1)
        if isinstance(base, SourceClass)
        else isinstance(base, ExternalName) and base.name.startswith("builtins.")
        for base in bases
    )
