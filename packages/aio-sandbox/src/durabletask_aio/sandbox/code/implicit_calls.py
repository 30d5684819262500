"""Expressions that call something implicitly: operators, built-ins, and functions that take functions."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Final

ARGUMENT_CALLERS: Final = [
    "builtins.map",
    "builtins.filter",
    "builtins.sorted",
    "builtins.min",
    "builtins.max",
    "builtins.iter",
    "functools.",
    "itertools.",
    "collections.defaultdict",
    "asyncio.",
    "contextlib.",
    "heapq.",
    "bisect.",
    "dataclasses.field",
    "operator.",
    "threading.",
    "concurrent.",
    "unittest.mock.",
    "re.sub",
    "json.",
    "copy.",
    "statistics.",
]
"""Functions that call their arguments; a name with a final dot stands for all functions of the module."""
SINGLE_ARGUMENT_CALLERS: Final = frozenset({"builtins.filter", "builtins.sorted", "builtins.min", "builtins.max"})
"""Those that call their function with a single argument."""
METHODS_THAT_CALL: Final = frozenset(
    [
        "call_soon",
        "call_later",
        "call_at",
        "call_soon_threadsafe",
        "add_done_callback",
        "sort",
        "add_cleanup",
        "push",
        "callback",
        "submit",
        "push_async_callback",
        "push_async_exit",
        "run_in_executor",
        "setdefault",
    ]
)
"""Methods, by name, that call their arguments."""
CALLS_METHODS: Final = {
    "builtins.len": "__len__",
    "builtins.str": "__str__",
    "builtins.repr": "__repr__",
    "builtins.print": "__str__",
    "builtins.format": "__format__",
    "builtins.bool": "__bool__",
    "builtins.hash": "__hash__",
    "builtins.int": "__int__",
    "builtins.float": "__float__",
    "builtins.abs": "__abs__",
    "builtins.iter": "__iter__",
    "builtins.next": "__next__",
    "builtins.sorted": "__lt__",
}
"""Built-in functions, with the method of their argument that they call."""
REFERENCES_ONLY: Final = frozenset(
    {"call_activity", "call_sub_orchestrator", "call_entity", "signal_entity", "continue_as_new"}
)
"""Methods of the context that take a function by reference and do not call it in the workflow."""
OPERATORS: Final[Mapping[type[ast.AST], str]] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "truediv",
    ast.Mod: "mod",
    ast.MatMult: "matmul",
    ast.BitOr: "or",
    ast.BitAnd: "and",
    ast.FloorDiv: "floordiv",
    ast.Pow: "pow",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Eq: "eq",
    ast.NotEq: "ne",
}
"""Operators, with the name of their method without underscores."""
