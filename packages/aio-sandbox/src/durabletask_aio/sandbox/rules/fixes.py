"""How a finding is fixed: the replacement of a call by its alternative, made of the template in the catalogue."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any, Final

from durabletask_aio.sandbox.rules.catalogue import Call

_OPENING: Final = re.compile(rb"\s*\(")
_OPERATIONS: Final = ("await ", "yield ")
_BECOMES_AWARE: Final = frozenset({"datetime.datetime.now", "datetime.datetime.today"})
_IMPORTED: Final = {
    "timezone": "from datetime import timezone",
    "timedelta": "from datetime import timedelta",
    "uuid": "import uuid",
    "random": "import random",
}
"""What the templates need in addition to the context."""

ADDS_AN_OPERATION: Final = (
    "it adds an operation to the history, so it is for new instances: running ones do not replay with it"
)
_CHANGES_THE_ZONE: Final = "the result is an aware time in UTC where it was a naive one in local time"
_LOSES_THE_ZONE: Final = "the result is a naive time in UTC where it had a zone"


@dataclass(frozen=True)
class Fix:
    """A range of a source file, and what to write there.

    Lines count from one. Columns count bytes of the UTF-8 text of their lines from zero, as in syntax trees.
    """

    line: int
    column: int
    end_line: int
    end_column: int
    replacement: str
    unsafe_because: str | None = None
    """Why it may change what working code does; `None` for a safe fix."""
    imports: tuple[str, ...] = ()
    """The import statements that the replacement needs."""

    @property
    def is_safe(self) -> bool:
        return self.unsafe_because is None

    def applied_to(self, line: str) -> str | None:
        """The line with the fix, or `None` if the fix takes more than one line."""
        if self.line != self.end_line or "\n" in self.replacement:
            return None
        raw = line.encode()
        return (raw[: self.column] + self.replacement.encode() + raw[self.end_column :]).decode()

    def as_dict(self) -> dict[str, Any]:
        """The fix as a dictionary that `json.dumps` accepts; the keys are stable."""
        return {
            "line": self.line,
            "column": self.column,
            "end_line": self.end_line,
            "end_column": self.end_column,
            "replacement": self.replacement,
            "imports": list(self.imports),
            "safe": self.is_safe,
            "unsafe_because": self.unsafe_because,
        }


def fix_of_call(
    lines: list[str],
    node: ast.expr | None,
    call: Call,
    context: str | None,
    *,
    generator: bool,
    is_async: bool,
    yields: bool = True,
) -> Fix | None:
    """The replacement of the call at `node`, or `None` if there is no mechanical one.

    There is none without a context variable in scope, and where the alternative needs an `await` or a `yield` in a
    function that has none.

    Args:
        lines: The lines of the file.
        node: The call.
        call: Its entry in the catalogue.
        context: The name of the context variable.
        generator: Whether the workflow is a generator orchestrator.
        is_async: Whether the function that holds the call is a coroutine function.
        yields: Whether it is a generator function.
    """
    template = call.generator_fix if generator else call.fix
    if template is None or context is None or not isinstance(node, ast.Call):
        return None
    if (template.startswith("await ") and not is_async) or (template.startswith("yield ") and not yields):
        return None
    arguments = _arguments(lines, node)
    is_step = "{call}" in template
    if arguments is None or (is_step and not _are_positional(node)):
        return None
    if not is_step and any(isinstance(each.value, ast.Constant) and each.value.value is None for each in _given(node)):
        # `datetime.now(None)` means local time, which the workflow's clock does not have.
        return None
    if "{args}" not in template and "#" in arguments:
        # A comment would be lost.
        return None
    given = {"ctx": context, "args": arguments, "more": f", {arguments.strip()}" if arguments.strip() else ""}
    if is_step:
        function = node.func
        start, end = (function.lineno, function.col_offset), (function.end_lineno, function.end_col_offset)
        given["call"] = _text(lines, start, end).decode()
    replacement = template.format_map(given)
    if template.startswith(_OPERATIONS) and _needs_parentheses(lines, node, is_yield=template.startswith("yield ")):
        replacement = f"({replacement})"
    reason = None
    if template.startswith(_OPERATIONS):
        reason = ADDS_AN_OPERATION
    elif call.name in _BECOMES_AWARE and not generator and not arguments.strip():
        reason = _CHANGES_THE_ZONE
    elif call.name in _BECOMES_AWARE and generator and arguments.strip():
        reason = _LOSES_THE_ZONE
    names = set(re.findall(r"\w+", template))
    imports = tuple(
        statement for name, statement in _IMPORTED.items() if name in names and not _is_attribute(name, template)
    )
    return Fix(
        node.lineno,
        node.col_offset,
        node.end_lineno or node.lineno,
        node.end_col_offset or 0,
        replacement,
        reason,
        imports,
    )


def _given(node: ast.Call) -> list[ast.keyword]:
    return [*(ast.keyword(None, value) for value in node.args), *node.keywords]


def _are_positional(node: ast.Call) -> bool:
    """Whether a step takes the arguments of a call: keyword arguments would be its own."""
    return not node.keywords and not any(isinstance(each, ast.GeneratorExp) for each in node.args)


def _is_attribute(name: str, template: str) -> bool:
    """Whether the name occurs only as an attribute, as in `{ctx}.random()`."""
    return re.search(rf"(?<![.\w]){name}\b", template) is None


def _arguments(lines: list[str], node: ast.Call) -> str | None:
    """The text between the parentheses of a call; `None` if there is more between the callee and its parenthesis."""
    if not isinstance(node.func, (ast.Name, ast.Attribute)):
        return None
    after = _text(lines, (node.func.end_lineno, node.func.end_col_offset), (node.end_lineno, node.end_col_offset))
    opening = _OPENING.match(after)
    return after[opening.end() : -1].decode() if opening is not None else None


def _needs_parentheses(lines: list[str], node: ast.Call, *, is_yield: bool) -> bool:
    first, last = lines[node.lineno - 1].encode(), lines[(node.end_lineno or node.lineno) - 1].encode()
    before, after = first[: node.col_offset].strip(), last[node.end_col_offset :].strip()
    if is_yield:
        return bool(before) or not (after == b"" or after.startswith((b"#", b";")))
    return after.startswith((b".", b"[", b"(", b"**")) or before.endswith(b"**")


def _text(lines: list[str], start: tuple[int | None, int | None], end: tuple[int | None, int | None]) -> bytes:
    (line, column), (last, last_column) = start, end
    if line is None or column is None or last is None:
        return b""
    if line == last:
        return lines[line - 1].encode()[column:last_column]
    parts = [lines[line - 1].encode()[column:], *(each.encode() for each in lines[line : last - 1])]
    return b"".join([*parts, lines[last - 1].encode()[:last_column]])
