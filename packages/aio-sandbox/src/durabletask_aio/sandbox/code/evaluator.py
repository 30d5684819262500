"""Abstract evaluation: from an expression to the values it may have (see `values`).

It follows names, attributes, calls and containers, with the help of a resolver for what functions do not bind
themselves. An expression about which nothing is known has no values.
"""

from __future__ import annotations

import ast
from collections.abc import Hashable
from dataclasses import replace
from typing import Final

from durabletask_aio.sandbox.code.name_resolver import FunctionBody, NameResolver
from durabletask_aio.sandbox.code.scopes import (
    Annotated,
    Binding,
    Element,
    Entered,
    Imported,
    Scope,
    dotted_name,
    own_nodes,
    parameters,
)
from durabletask_aio.sandbox.code.sources import FunctionNode
from durabletask_aio.sandbox.code.values import (
    ContainerValue,
    ContextMethod,
    ContextValue,
    ExternalName,
    Instance,
    PartialFunction,
    SharedObject,
    SourceClass,
    SourceFunction,
    SuperObject,
    UnawaitedValue,
    UnorderedValue,
    Value,
    distinct,
    identity,
)
from durabletask_aio.sandbox.rules.conditions import combined, summary_of_node

OPERATIONS: Final = frozenset(
    {
        "call_activity",
        "call_sub_orchestrator",
        "create_timer",
        "sleep",
        "wait_for_external_event",
        "call_entity",
        "lock_entities",
        "wait_for_task",
        "when_all",
        "when_any",
        "when_any_with_result",
        "gather",
        "with_timeout",
        "run",
    }
)
"""Methods of the context whose result has to be awaited."""

_KEEPS_ORDER_OF: Final = frozenset(
    {"dict.fromkeys", "list", "tuple", "enumerate", "iter", "reversed", "map", "filter", "zip", "dict"}
)
_CONSUMERS: Final = frozenset({"asyncio.create_task", "asyncio.ensure_future", "asyncio.shield"})
_OF_SETS: Final = frozenset({"pop", "copy", "union", "difference", "intersection", "symmetric_difference"})
_LOOPS: Final = frozenset(
    {"asyncio.get_running_loop", "asyncio.get_event_loop", "_asyncio.get_running_loop", "_asyncio.get_event_loop"}
)
_TASK_SETS: Final = frozenset({"asyncio.all_tasks", "asyncio.tasks.all_tasks", "_asyncio.all_tasks"})
_OF_COLLECTIONS: Final = frozenset({"values", "items", "copy", "get", "pop", "setdefault", "popleft"})
_MAKES_COLLECTION: Final = frozenset({"list", "dict", "collections.OrderedDict", "collections.deque"})
_CONTAINERS: Final = (ContainerValue, SharedObject)
_AS_TEXT: Final = frozenset({"str", "repr", "format", "json.dumps"})
_SET_OPERATORS: Final = (ast.BitAnd, ast.BitOr, ast.BitXor, ast.Sub)
_DEPTH: Final = 12
_NESTED_CALLS: Final = 4
"""How deep the results of calls are followed."""


class Evaluator:
    """Evaluates expressions with the help of one resolver."""

    def __init__(self, resolver: NameResolver) -> None:
        self._resolver = resolver
        self._busy: set[tuple[int, int]] = set()
        self._known: dict[tuple[int, int], tuple[ast.expr, Scope, list[Value]]] = {}
        """The values of expressions; with the objects, because the key has their addresses."""
        self._incomplete: dict[tuple[int, int], tuple[ast.expr, Scope, list[Value]]] = {}
        """The same for expressions that lead back to one that is being evaluated, until that one is known.

        Without it, names that are bound in terms of each other are evaluated once for each path through them.
        """
        self._returns: dict[Hashable, list[Value]] = {}
        self._scopes: dict[Hashable, Scope] = {}
        self._running: set[Hashable] = set()
        self._calls = 0
        self._creations = 0
        self.cut_off = 0
        """How often something was left out because it leads back to itself, or too deep."""

    def values(self, node: ast.expr, scope: Scope) -> list[Value]:
        """The values that `node` may have; empty if nothing is known."""
        # A name may be bound in terms of itself: an expression that is being evaluated contributes nothing to its own
        # value.
        key = (id(node), id(scope))
        known = self._known.get(key)
        if known is not None:
            return list(known[2])
        incomplete = self._incomplete.get(key)
        if incomplete is not None or key in self._busy or len(self._busy) > _DEPTH * 4:
            self.cut_off += 1
            return [] if incomplete is None else list(incomplete[2])
        before = self.cut_off
        self._busy.add(key)
        try:
            found = distinct(self._values(node, scope))[:_DEPTH]
        finally:
            self._busy.discard(key)
        # What is at the beginning of all this leads back to nothing else, and is as complete as it can be.
        is_complete = self.cut_off == before or not self._busy
        (self._known if is_complete else self._incomplete)[key] = (node, scope, found)
        if not self._busy:
            self._incomplete.clear()
        return list(found)

    def _values(self, node: ast.expr, scope: Scope) -> list[Value]:
        if isinstance(node, ast.Name):
            return self.name(node.id, scope)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, scope)
        if isinstance(node, ast.Call):
            return self._call(node, scope)
        if isinstance(node, (ast.IfExp, ast.BoolOp, ast.NamedExpr, ast.BinOp)):
            return self._choice(node, scope)
        if isinstance(node, ast.Subscript):
            if isinstance(node.slice, ast.Slice):
                return self._sliced(node, scope)
            return [found for value in self.values(node.value, scope) for found in self._element(value)]
        if isinstance(node, ast.Await):
            waited = [each for each in self.values(node.value, scope) if isinstance(each, UnawaitedValue)]
            return [found for each in waited for found in each.result]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return [each for each in self.values(node.operand, scope) if isinstance(each, ContextMethod)]
        if isinstance(node, (ast.JoinedStr, ast.FormattedValue)):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node.value]
            return [*self._order_of(parts, scope)]
        if isinstance(node, ast.Lambda):
            return [SourceFunction(node, scope)]
        return self._display(node, scope)

    def _sliced(self, node: ast.Subscript, scope: Scope) -> list[Value]:
        return [*self._order_of([node.value], scope), *self._containers([node.value], scope)]

    def name(self, name: str, scope: Scope) -> list[Value]:
        """The values that `name` may have in `scope`."""
        current: Scope | None = scope
        while current is not None and not current.is_module:
            if current.binds(name):
                return self._bound(name, current)
            if name in current.global_names:
                break
            current = current.parent
        return self._resolver.look_up(name, scope)

    def _bound(self, name: str, scope: Scope) -> list[Value]:
        found: list[Value] = list(scope.argument_values.get(name, ()))
        is_object_given = any(isinstance(each, Instance) and isinstance(each.cls, SourceClass) for each in found)
        for binding in scope.bindings.get(name, ()):
            values = self._of_binding(binding, scope)
            # The class of an object that was given says more than the annotation, which may be a base class of it.
            is_known = isinstance(binding, Annotated) and is_object_given
            found.extend(each for each in values if not (is_known and isinstance(each, Instance)))
        found = self.with_additions(found, name, scope)
        default = scope.defaults.get(name)
        if default is not None and scope.parent is not None:
            found.extend(self.values(default, scope.parent))
            # The default of a nested function is created again in each execution.
            is_kept = scope.parent.parent is None and is_mutable_default(default)
            if is_kept and name not in scope.argument_values and not scope.is_assigned(name):
                found.append(SharedObject(name, f"a default of the parameter `{name}`"))
        return found

    def _of_binding(self, binding: Binding, scope: Scope) -> list[Value]:
        if isinstance(binding, Imported):
            return self._imported(binding, scope)
        if isinstance(binding, Annotated):
            return self._resolver.annotated(binding.annotation, scope)
        if isinstance(binding, Entered):
            return self.values(binding.expression, scope)
        if isinstance(binding, Element):
            return self._elements_of(binding, scope)
        if isinstance(binding, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return [SourceFunction(binding, scope)]
        if isinstance(binding, ast.ClassDef):
            return [SourceClass(binding, scope)]
        return self.values(binding, scope) if isinstance(binding, ast.expr) else []

    def with_additions(self, values: list[Value], name: str, scope: Scope) -> list[Value]:
        """The values of a collection, with the elements that statements of `scope` add to it."""
        added = scope.additions.get(name)
        if added is None:
            return values
        if any(isinstance(each, ContainerValue) for each in values):
            elements = [found for node in added.elements for found in self.values(node, scope)]
            values = [_extended(each, elements) for each in values]
            values += self._order_of(added.loops, scope)
        return values

    def _elements_of(self, binding: Element, scope: Scope) -> list[Value]:
        """The values that the variable of a loop, or one of several variables in an assignment, may have."""
        found = [each for value in self.values(binding.collection, scope) for each in self._element(value)]
        # In a loop every element has its turn, so that no single one is chosen by the order.
        return found if binding.loop is None else [each for each in found if not _is_single(each)]

    def _imported(self, binding: Imported, scope: Scope) -> list[Value]:
        module = "." * binding.level + binding.module
        found = self._resolver.import_module(module, scope)
        if binding.member is None:
            return found
        members = [member for value in found for member in self._resolver.attribute(value, binding.member)]
        if members:
            return members
        full_name = f"{module}{binding.member}" if module.endswith(".") else f"{module}.{binding.member}"
        return self._resolver.import_module(full_name, scope)

    def _attribute(self, node: ast.Attribute, scope: Scope) -> list[Value]:
        found: list[Value] = []
        for value in self.values(node.value, scope):
            if isinstance(value, ContextValue):
                found.append(ContextMethod(node.attr))
            elif node.attr == "__class__" and isinstance(value, Instance):
                found.append(value.cls)
            else:
                found.extend(self._resolver.attribute(value, node.attr))
        name = dotted_name(node)
        return found if name is None else self.with_additions(found, name, scope)

    def _choice(self, node: ast.IfExp | ast.BoolOp | ast.NamedExpr | ast.BinOp, scope: Scope) -> list[Value]:
        if isinstance(node, ast.IfExp):
            return [*self.values(node.body, scope), *self.values(node.orelse, scope)]
        if isinstance(node, ast.BoolOp):
            return [value for part in node.values for value in self.values(part, scope)]
        if isinstance(node, ast.NamedExpr):
            return self.values(node.value, scope)
        if isinstance(node.op, _SET_OPERATORS) and (_is_view(node.left) or _is_view(node.right)):
            return [UnorderedValue(True, False)]
        # `path / "name"` is a path, and the union of two sets is a set.
        left = self.values(node.left, scope)
        sets = [each for value in left if (each := as_unordered(value)) is not None]
        return [*sets, *(value for value in left if isinstance(value, Instance))]

    def _element(self, value: Value) -> list[Value]:
        if isinstance(value, ContainerValue):
            return list(value.elements)
        unordered = as_unordered(value)
        if unordered is not None and not unordered.is_set and not unordered.is_element:
            return [UnorderedValue(False, unordered.is_certain, True)]
        return self._resolver.element(value)

    def _display(self, node: ast.expr, scope: Scope) -> list[Value]:
        if isinstance(node, ast.Set):
            starred = [part.value for part in node.elts if isinstance(part, ast.Starred)]
            return self._tasks_of(starred, scope) or [set_from_display(node)]
        if isinstance(node, ast.SetComp):
            first = node.generators[0]
            tasks = self._tasks_of([first.iter], scope)
            if tasks and ast.unparse(node.elt) == ast.unparse(first.target):
                return tasks
            element = self.values(node.elt, scope)
            return [] if any(isinstance(value, UnawaitedValue) for value in element) else [UnorderedValue(True, False)]
        if isinstance(node, (ast.List, ast.Tuple)):
            starred = [part.value for part in node.elts if isinstance(part, ast.Starred)]
            unordered: list[Value] = [*self._order_of(starred, scope)]
            elements = [value for part in node.elts for value in self.values(part, scope)]
            return [*unordered, _container(elements)]
        if isinstance(node, ast.Dict):
            elements = [value for part in node.values for value in self.values(part, scope)]
            return [_container(elements)]
        if isinstance(node, (ast.ListComp, ast.GeneratorExp, ast.DictComp)):
            element = self.values(node.value if isinstance(node, ast.DictComp) else node.elt, scope)
            kept = [value for value in element if not isinstance(value, UnawaitedValue)]
            return [*self._order_of([node.generators[0].iter], scope), _container(kept)]
        return []

    def _order_of(self, nodes: list[ast.expr], scope: Scope) -> list[UnorderedValue]:
        """The set order that a sequence made from `nodes` inherits, if one of them has it."""
        for node in nodes:
            for value in self.values(node, scope):
                found = as_unordered(value)
                # A sequence made from the set of all tasks is reported where it is made, not where it is used.
                if found is not None and not found.is_tasks:
                    return [UnorderedValue(False, found.is_certain, found.is_element)]
        return []

    def _tasks_of(self, nodes: list[ast.expr], scope: Scope) -> list[Value]:
        """The set of all tasks, if a set made from `nodes` contains its elements."""
        values = (value for node in nodes for value in self.values(node, scope))
        sets: list[Value] = [
            value for value in values if isinstance(value, UnorderedValue) and value.is_tasks and value.is_set
        ]
        return sets[:1]

    def _call(self, node: ast.Call, scope: Scope) -> list[Value]:
        found: list[Value] = []
        if isinstance(node.func, ast.Attribute) and node.func.attr in _OF_SETS:
            found.extend(self._of_set(node.func, scope))
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "join":
            found.extend(self._order_of([*node.args], scope))
        if isinstance(node.func, ast.Attribute) and node.func.attr in _OF_COLLECTIONS:
            found.extend(self._of_collection(node.func, scope))
        for function in self.values(node.func, scope):
            found.extend(self.result(function, node, scope))
        return found

    def _of_set(self, method: ast.Attribute, scope: Scope) -> list[Value]:
        found = map(as_unordered, self.values(method.value, scope))
        sets = [each for each in found if each is not None and each.is_set]
        if method.attr == "pop":
            return [replace(each, is_set=False, is_element=True) for each in sets]
        return [*sets]

    def _of_collection(self, method: ast.Attribute, scope: Scope) -> list[Value]:
        """The result of a method of a list or dictionary with known elements."""
        held = [
            _container(self._element(each))
            for each in self.values(method.value, scope)
            if isinstance(each, (ContainerValue, SharedObject))
        ]
        if method.attr in {"values", "copy"}:
            return [*held]
        if method.attr == "items":
            return [ContainerValue((each,)) for each in held]
        return [element for each in held for element in each.elements]

    def result(self, function: Value, node: ast.Call, scope: Scope) -> list[Value]:
        """The values that calling `function` with the arguments of `node` may return."""
        if isinstance(function, ContextMethod):
            return self._of_context(function.name)
        name = self._resolver.full_name(function)
        short = (name or "").removeprefix("builtins.")
        if short in {"functools.partial", "functools.wraps", "functools.partialmethod"} and node.args:
            return [self.with_arguments(value, node) for value in self.values(node.args[0], scope)]
        if short in {"__import__", "importlib.import_module"}:
            return self._imported_by_call(node, scope)
        if short == "getattr" and len(node.args) >= 2:
            return self._getattr(node, scope)
        if short == "super":
            given = self.values(node.args[1], scope) if len(node.args) > 1 else scope.given()
            kinds = (Instance, SourceClass)
            return [SuperObject(each, node, scope.namespace) for each in given if isinstance(each, kinds)]
        if short in {"next", "type"} and node.args:
            return self._next_or_type(short, node.args[0], scope)
        if short in _LOOPS:
            return [Instance(ExternalName("asyncio.AbstractEventLoop"))]
        if short == "logging.getLogger":
            return [Instance(ExternalName("logging.Logger"))]
        if short in _CONSUMERS:
            return []
        made = self._collection(short, node, scope)
        return self._of_function(function, node, scope) if made is None else made

    def _collection(self, name: str, node: ast.Call, scope: Scope) -> list[Value] | None:
        """The result of a built-in that makes or reads a collection; `None` for any other function."""
        if name in {"set", "frozenset"}:
            return self._tasks_of(node.args, scope) or [set_from_call(node)]
        if name in _TASK_SETS:
            return [UnorderedValue(True, True, is_tasks=True)]
        if name in _MAKES_COLLECTION and not node.args:
            return [ContainerValue(())]
        if name in _KEEPS_ORDER_OF:
            return [*self._order_of([*node.args], scope), *self._containers(node.args, scope)]
        if name == "sorted":
            return self._containers(node.args, scope)
        if name in {"max", "min"} and node.args:
            return self._extreme(node, scope)
        if name in _AS_TEXT and node.args:
            return [*self._order_of([*node.args], scope)] or self._order_inside(node, name, scope)
        if name == "collections.defaultdict" and node.args:
            call = ast.copy_location(ast.Call(node.args[0], [], []), node)
            made = [each for value in self.values(node.args[0], scope) for each in self.result(value, call, scope)]
            return [_container(made)]
        return None

    def _containers(self, nodes: list[ast.expr], scope: Scope) -> list[Value]:
        """The containers with known elements among the values of `nodes`."""
        found = (value for node in nodes for value in self.values(node, scope))
        return [_container(self._element(each)) for each in found if isinstance(each, _CONTAINERS)]

    def _extreme(self, node: ast.Call, scope: Scope) -> list[Value]:
        """`max(set, key=...)`: of several elements with the same key, the one that comes first."""
        if not any(keyword.arg == "key" for keyword in node.keywords):
            return []
        return [UnorderedValue(False, each.is_certain, True) for each in self._order_of([*node.args], scope)]

    def _order_inside(self, node: ast.Call, function: str, scope: Scope) -> list[Value]:
        """The order of a set somewhere inside of what is written as text."""
        if function == "json.dumps" and not any(keyword.arg in {"default", "cls"} for keyword in node.keywords):
            return []
        queue = self.values(node.args[0], scope)
        while queue:
            value = queue.pop()
            unordered = as_unordered(value)
            if unordered is not None and not unordered.is_tasks:
                return [UnorderedValue(False, unordered.is_certain)]
            queue += value.elements if isinstance(value, ContainerValue) else ()
        return []

    def with_arguments(self, function: Value, node: ast.Call) -> Value:
        """The value of `functools.partial(function, ...)`; arguments matter only for calls of the catalogue."""
        if isinstance(function, PartialFunction):
            return PartialFunction(function.function, combined(function.arguments, summary_of_node(node, 1)))
        return (
            function if self._resolver.call(function) is None else PartialFunction(function, summary_of_node(node, 1))
        )

    def _next_or_type(self, name: str, argument: ast.expr, scope: Scope) -> list[Value]:
        if name == "type":
            return [value.cls for value in self.values(argument, scope) if isinstance(value, Instance)]
        return [UnorderedValue(False, each.is_certain, True) for each in self._order_of([argument], scope)]

    def _of_function(self, function: Value, node: ast.Call, scope: Scope | None = None) -> list[Value]:
        if self._resolver.is_async(function):
            return [UnawaitedValue(f"{ast.unparse(node.func)}()", tuple(self._returned(function, node, scope)))]
        made = self._resolver.result(function)
        given = self._arguments(function, node, scope) if isinstance(function, SourceClass) else ()
        return [
            *(replace(each, arguments=given) if given and isinstance(each, Instance) else each for each in made),
            *self._returned(function, node, scope),
        ]

    def _arguments(self, function: SourceClass, node: ast.Call, scope: Scope | None) -> tuple[tuple[str, Value], ...]:
        """What is known about the arguments with which an object is created, by name."""
        if scope is None or not (node.args or node.keywords):
            return ()
        if self._creations > _NESTED_CALLS:
            self.cut_off += 1
            return ()
        self._creations += 1
        try:
            names = self._resolver.creation_parameters(function)
            return tuple(
                (name, value) for name, argument in paired(names, node) for value in self.values(argument, scope)
            )
        finally:
            self._creations -= 1

    def _returned(self, function: Value, node: ast.Call, scope: Scope | None) -> list[Value]:
        """The values that a function of the user returns, called with the arguments of `node`."""
        if not isinstance(function, SourceFunction):
            return []
        return [
            found
            for body in self._resolver.bodies(function)
            for found in self.returned_by(body, self._known_arguments(body, node, scope))
        ]

    def returned_by(self, body: FunctionBody, given: tuple[tuple[str, Value], ...] = ()) -> list[Value]:
        """The values that a function returns when it is called with the arguments `given`."""
        if body.io_only:
            return []
        key = _call_key(body, given)
        known = self._returns.get(key)
        if known is not None:
            return known
        # A recursive call, whatever its arguments, contributes nothing to the result of its own function.
        if self._calls > _NESTED_CALLS or body.key in self._running:
            self.cut_off += 1
            return []
        self._running.add(body.key)
        self._calls += 1
        try:
            self._returns[key] = self._of_returns(body, given)
        finally:
            self._calls -= 1
            self._running.discard(body.key)
        return self._returns[key]

    def _known_arguments(
        self, body: FunctionBody, node: ast.Call, scope: Scope | None
    ) -> tuple[tuple[str, Value], ...]:
        if scope is None:
            return ()
        pairs = paired(body.parameter_names(), node)
        return tuple((name, value) for name, argument in pairs for value in self.values(argument, scope))

    def _of_returns(self, body: FunctionBody, given: tuple[tuple[str, Value], ...]) -> list[Value]:
        node = body.node
        scope = self.scope_of(body, given)
        if isinstance(node, ast.Lambda):
            return self.values(node.body, scope)
        own = [each for statement in node.body for each in own_nodes(statement)]
        returned = [each.value for each in own if isinstance(each, ast.Return) and each.value is not None]
        # An operation that is returned at once is the caller's to await; one in a variable may be kept elsewhere too.
        is_plain = isinstance(node, ast.FunctionDef) and not node.decorator_list
        is_plain = is_plain and not any(isinstance(each, (ast.Yield, ast.YieldFrom)) for each in own)
        values = [
            value
            for each in returned
            for value in self.values(each, scope)
            if not isinstance(value, UnawaitedValue) or (is_plain and isinstance(each, ast.Call))
        ]
        if not values and node.returns is not None:
            values = self._resolver.annotated(node.returns, body.scope)
        return [value for value in values if not isinstance(value, ContextValue)]

    def scope_of(self, body: FunctionBody, given: tuple[tuple[str, Value], ...]) -> Scope:
        """The scope inside of a function that is called with the arguments `given`; one for calls that are alike."""
        key = _call_key(body, given)
        if key not in self._scopes:
            self._scopes[key] = new_scope(body, given)
        return self._scopes[key]

    def _of_context(self, method: str) -> list[Value]:
        if method in OPERATIONS:
            return [UnawaitedValue(f"ctx.{method}()")]
        if method == "now":
            return [Instance(found) for found in self._named("datetime", "datetime")]
        return []

    def _named(self, module: str, member: str) -> list[Value]:
        return [ExternalName(f"{module}.{member}")]

    def _imported_by_call(self, node: ast.Call, scope: Scope) -> list[Value]:
        name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        return self._resolver.import_module(name, scope) if isinstance(name, str) else []

    def _getattr(self, node: ast.Call, scope: Scope) -> list[Value]:
        name = node.args[1]
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
            return []
        return [
            found for value in self.values(node.args[0], scope) for found in self._resolver.attribute(value, name.value)
        ]


def statements_of(node: FunctionNode) -> list[ast.stmt]:
    """The statements of a function; that of a lambda is its expression."""
    return [ast.copy_location(ast.Expr(node.body), node.body)] if isinstance(node, ast.Lambda) else node.body


def new_scope(body: FunctionBody, given: tuple[tuple[str, Value], ...]) -> Scope:
    """A scope for the inside of a function that is called with the arguments `given`."""
    node, outer = body.node, body.scope
    scope = Scope(outer.namespace, outer, source=body.source, arguments=node.args, statements=statements_of(node))
    for name, value in given:
        scope.argument_values.setdefault(name, []).append(value)
    if body.receiver is not None and node.args.args:
        scope.argument_values.setdefault(parameters(node.args)[0].arg, []).append(body.receiver)
    return scope


def _call_key(body: FunctionBody, given: tuple[tuple[str, Value], ...]) -> Hashable:
    """A key that is equal for calls of a function that behave alike."""
    return (body.key, identity(body.receiver), tuple((name, identity(value)) for name, value in given))


def as_unordered(value: Value) -> UnorderedValue | None:
    """`value` as a set or as a sequence in the order of a set; `None` if it is neither."""
    return value if isinstance(value, UnorderedValue) else None


def set_from_display(node: ast.Set | ast.List | ast.Tuple) -> UnorderedValue:
    """The set of the elements of a display."""
    constants = [element.value for element in node.elts if isinstance(element, ast.Constant)]
    return UnorderedValue(True, any(isinstance(value, (str, bytes)) for value in constants))


def set_from_call(node: ast.Call) -> UnorderedValue:
    """The result of `set(...)` or `frozenset(...)`."""
    literal = node.args[0] if node.args else None
    return (
        set_from_display(literal)
        if isinstance(literal, (ast.Set, ast.List, ast.Tuple))
        else UnorderedValue(True, False)
    )


def _is_view(node: ast.expr) -> bool:
    """Whether `node` is `mapping.keys()` or `mapping.items()`; operators on these return sets."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"keys", "items"}


def is_mutable_default(node: ast.expr | None) -> bool:
    """Whether the default of a parameter is mutable, so that all calls of the function share it."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in {"list", "dict", "set"}
    return isinstance(node, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp))


def paired(names: list[str], node: ast.Call) -> list[tuple[str, ast.expr]]:
    """The arguments of a call by the name of their parameter; nothing if the call has a starred argument."""
    if any(isinstance(argument, ast.Starred) for argument in node.args):
        return []
    pairs = [*zip(names, node.args, strict=False)]
    return pairs + [(keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg is not None]


def _container(elements: list[Value]) -> ContainerValue:
    """A collection of some of these elements, and one of those that are alike."""
    return ContainerValue(tuple(distinct(elements)[:_DEPTH]))


def _extended(value: Value, elements: list[Value]) -> Value:
    if not isinstance(value, ContainerValue):
        return value
    return _container([*value.elements, *elements])


def _is_single(value: Value) -> bool:
    """Whether a value is one element of a set, chosen by its order."""
    return isinstance(value, UnorderedValue) and value.is_element
