"""From the annotation of a variable or parameter to the values that it may have."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Final

from durabletask_aio.sandbox.code.sources import expression_tree
from durabletask_aio.sandbox.code.values import (
    ContainerValue,
    ContextValue,
    ExternalName,
    Instance,
    SourceClass,
    UnorderedValue,
    Value,
)

CONTEXT_NAMES: Final = frozenset(
    {"AsyncWorkflowContext", "OrchestrationContext", "DurableOrchestrationContext", "DaprWorkflowContext"}
)
_SETS: Final = frozenset({"set", "frozenset", "Set", "FrozenSet", "AbstractSet", "MutableSet"})
_COLLECTIONS: Final = frozenset(
    {
        *(
            "list",
            "tuple",
            "deque",
            "List",
            "Tuple",
            "Sequence",
            "MutableSequence",
            "Iterable",
            "Iterator",
            "Collection",
        ),
        *("dict", "Dict", "Mapping", "MutableMapping", "defaultdict", "OrderedDict"),
    }
)
_WRAPPERS: Final = frozenset(
    {"Optional", "Union", "Annotated", "ClassVar", "Final", "Mapped", "Required", "NotRequired"}
)
_TEXTS: Final = frozenset({"str", "bytes"})


def values_of_annotation(node: ast.expr, evaluate: Callable[[ast.expr], list[Value]]) -> list[Value]:
    """The values that something with this annotation has; `evaluate` gives the values of a name."""
    node = unquoted(node)
    if isinstance(node, ast.BinOp):
        return [*values_of_annotation(node.left, evaluate), *values_of_annotation(node.right, evaluate)]
    if isinstance(node, ast.Subscript):
        return _generic(node, evaluate)
    last = last_part(node)
    if last in CONTEXT_NAMES:
        return [ContextValue()]
    if last in _SETS:
        return [UnorderedValue(True, False)]
    found = evaluate(node) if isinstance(node, (ast.Name, ast.Attribute)) else []
    aliased: list[Value] = [each for each in found if isinstance(each, (ContextValue, UnorderedValue))]
    return aliased + [Instance(each) for each in found if isinstance(each, SourceClass) or is_class_name(each)]


def _generic(node: ast.Subscript, evaluate: Callable[[ast.expr], list[Value]]) -> list[Value]:
    """The values for an annotation with arguments: `set[str]`, `list[Step]`, `Optional[Clock]`."""
    kind = last_part(node.value)
    arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if kind in _SETS:
        return [UnorderedValue(True, last_part(unquoted(arguments[0])) in _TEXTS)]
    if kind in _COLLECTIONS:
        # The last argument is that of the elements, or of the values of a dictionary.
        named = [each for each in arguments if not isinstance(each, ast.Constant) or each.value is not Ellipsis]
        return [ContainerValue(tuple(values_of_annotation(named[-1], evaluate)))] if named else []
    if kind in _WRAPPERS:
        given = arguments[:1] if kind == "Annotated" else arguments
        return [found for each in given for found in values_of_annotation(each, evaluate)]
    return values_of_annotation(node.value, evaluate)


def unquoted(node: ast.expr) -> ast.expr:
    """The syntax of an annotation that is written as text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return expression_tree(node.value)
        except SyntaxError:
            return node
    return node


def last_part(node: ast.expr) -> str:
    """The name at the end of a dotted name, or nothing for other expressions."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_class_name(value: Value) -> bool:
    """Whether a name outside of the checked source is written like that of a class."""
    return isinstance(value, ExternalName) and value.name.rpartition(".")[2][:1].isupper()
