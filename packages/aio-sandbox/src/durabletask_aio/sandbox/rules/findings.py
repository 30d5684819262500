"""One finding: the facts, and the sentences made of them.

The static analysis, the running sandbox and the checker all produce these, so a mistake reads the same wherever it is
found.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from durabletask_aio.sandbox.rules.catalogue import Call, Rule, Severity


@dataclass(frozen=True)
class Finding:
    """Something in workflow code that gives another result on replay.

    ``line`` and ``column`` count from one; ``column`` is ``None`` where Python does not keep it.  ``reached`` lists the
    functions from the workflow to the one that holds the line.
    """

    rule: Rule
    file: str
    line: int
    column: int | None
    function: str
    reached: tuple[str, ...]
    call: str | None = None
    """The full name of the call, or ``None`` for rules that are not about a single call."""
    detail: str = ""
    """What exactly was found, where the rule's title is not enough."""
    advice: str = ""
    source_line: str = ""
    corrected_line: str | None = None
    end_line: int | None = None
    certain: bool = True
    """Whether the finding is enough to refuse the workflow in strict mode."""
    inside: str | None = None
    """For a line that leads into a package that is followed: which line of the package makes the call."""

    @property
    def key(self) -> tuple[object, ...]:
        """What tells two findings apart: a line that leads into a package breaks a rule there once, however often."""
        return (self.file, self.line, self.column, self.rule.code, None if self.inside is not None else self.call)

    @property
    def location(self) -> str:
        """``file:line:column``, as editors and terminals understand it."""
        return f"{self.file}:{self.line}" + (f":{self.column}" if self.column is not None else "")

    @property
    def severity(self) -> Severity:
        return self.rule.severity

    @property
    def message(self) -> str:
        """One sentence: what was found and what to use instead."""
        return f"{self.summary} Use {self.advice}."

    @property
    def summary(self) -> str:
        if self.detail:
            return f"{self.detail} ({self.rule.code})."
        title = self.rule.title[0].lower() + self.rule.title[1:]
        return f"`{display_name(self.call)}` is not deterministic: {title} ({self.rule.code})."

    @property
    def way(self) -> str:
        """How the line is reached, from the workflow on."""
        return " -> ".join(f"{name}()" for name in self.reached)

    def text(self) -> str:
        """The whole message, over several lines."""
        lines = [self.summary, f"  at {self.location} in {self.function}()"]
        if self.inside is not None:
            lines.append(f"  which leads to {self.inside}")
        if len(self.reached) > 1:
            lines.append(f"  reached by {self.way}")
        if self.source_line:
            lines.append(f"      {self.source_line.strip()}")
        lines.append(f"  Use {self.advice}" + (":" if self.corrected_line else "."))
        if self.corrected_line:
            lines.append(f"      {self.corrected_line.strip()}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON knows it; the keys are stable."""
        return {
            "code": self.rule.code,
            "rule": self.rule.slug,
            "severity": self.severity.value,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "function": self.function,
            "reached": list(self.reached),
            "call": self.call,
            "message": self.message,
            "corrected_line": self.corrected_line,
            "inside": self.inside,
        }


def display_name(name: str | None) -> str:
    """A call's name as a reader knows it, with parentheses unless it is a mapping."""
    short = (name or "this").removeprefix("builtins.")
    return short if short in {"os.environ", "os.environb"} else f"{short}()"


def column_of(line: str, offset: int) -> int:
    """The column that editors show, of what begins ``offset`` bytes into the line: they count characters, from one."""
    return len(line.encode()[:offset].decode(errors="replace")) + 1


def correct_line(
    line: str, node: ast.Call | None, call: Call, context: str | None, *, generator: bool, is_async: bool
) -> str | None:
    """``line`` with the call at ``node`` replaced, or ``None`` if that is not mechanical.

    It is not when there is no context in reach to call, when the call spans lines, or when the replacement needs an
    ``await`` that the function around it cannot have.
    """
    template = call.generator_fix if generator else call.fix
    if template is None or context is None or node is None or node.end_lineno != node.lineno:
        return None
    if template.startswith("await ") and not is_async:
        return None
    raw = line.encode()
    # The columns of a syntax tree count bytes.
    start, end = node.col_offset, node.end_col_offset or 0
    arguments = ", ".join(
        ast.unparse(part) for part in (*node.args, *(keyword_as_expression(part) for part in node.keywords))
    )
    replacement = template.replace("{ctx}", context).replace("{args}", arguments)
    return (raw[:start] + replacement.encode() + raw[end:]).decode()


def keyword_as_expression(keyword: ast.keyword) -> ast.expr:
    """A keyword argument as an expression that unparses to it."""
    name = f"{keyword.arg}=" if keyword.arg is not None else "**"
    return ast.Name(name + ast.unparse(keyword.value))
