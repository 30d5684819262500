"""A finding: the facts, and the messages composed of them.

The static analysis, the guard of running workflows and the checker all produce `Finding` objects, so a mistake is
described in the same words wherever it is detected.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from durabletask_aio.sandbox.rules.catalogue import Rule, Severity
from durabletask_aio.sandbox.rules.fixes import Fix


@dataclass(frozen=True)
class Finding:
    """A place in workflow code whose result may differ on replay.

    Findings are immutable and compare by value.
    """

    rule: Rule
    """The rule that is broken."""
    file: str
    """Path of the source file, as Python knows it."""
    line: int
    """First line, counted from one."""
    column: int | None
    """Column in characters, counted from one; `None` where Python does not record it."""
    function: str
    """Name of the function that holds the line."""
    reached: tuple[str, ...]
    """Names of the functions from the workflow to the one that holds the line."""
    call: str | None = None
    """The full name of the call, such as `time.time`; `None` for a rule that is not about a single call."""
    detail: str = ""
    """A sentence about this finding, without the final period; empty where the rule's title says enough."""
    advice: str = ""
    """What to use instead, as the end of a sentence that starts with "Use"."""
    source_line: str = ""
    """Text of the line; empty if the source is not available."""
    corrected_line: str | None = None
    """The line with the call replaced, or `None` where there is no mechanical replacement."""
    fix: Fix | None = field(default=None, compare=False)
    """The replacement that `durabletask-aio check --fix` makes, or `None` if there is none."""
    end_line: int | None = None
    """Last line, if it is known."""
    certain: bool = True
    """Whether the finding refuses the workflow at registration in strict mode, given a rule of severity `ERROR`."""
    inside: str | None = None
    """For a call made in a followed package: where, as `file:line in function()`.

    `line` is then the line of the user's code that calls into the package.
    """

    @property
    def key(self) -> tuple[object, ...]:
        """Hashable identity of a finding: place, rule and call.

        A line that calls into a followed package breaks a rule there once, whatever the package calls.
        """
        return (self.file, self.line, self.column, self.rule.code, None if self.inside is not None else self.call)

    @property
    def location(self) -> str:
        """`file:line:column`, as editors and terminals understand it; without the column if that is unknown."""
        return f"{self.file}:{self.line}" + (f":{self.column}" if self.column is not None else "")

    @property
    def severity(self) -> Severity:
        """The severity of the rule."""
        return self.rule.severity

    @property
    def message(self) -> str:
        """One sentence or two: what was found, and what to use instead."""
        return f"{self.summary} Use {self.advice}."

    @property
    def summary(self) -> str:
        """What was found, as one sentence with the rule's code."""
        if self.detail:
            return f"{self.detail} ({self.rule.code})."
        title = self.rule.title[0].lower() + self.rule.title[1:]
        return f"`{display_name(self.call)}` is not deterministic: {title} ({self.rule.code})."

    @property
    def way(self) -> str:
        """The functions through which the workflow reaches the line, as `outer() -> inner()`."""
        return " -> ".join(f"{name}()" for name in self.reached)

    def text(self) -> str:
        """The whole message, over several lines: what, where, and the corrected line if there is one.

        Returns:
            The message without a final newline.
        """
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
        """The finding as a dictionary that `json.dumps` accepts; the keys are stable.

        Returns:
            The keys `code`, `rule`, `severity`, `file`, `line`, `column`, `function`, `reached`, `call`, `message`,
                `corrected_line`, `fix` and `inside`.
        """
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
            "fix": self.fix.as_dict() if self.fix is not None else None,
            "inside": self.inside,
        }


def display_name(name: str | None) -> str:
    """A call's name as users write it, with parentheses unless it is a mapping."""
    short = (name or "this").removeprefix("builtins.")
    return short if short in {"os.environ", "os.environb"} else f"{short}()"


def column_of(line: str, offset: int) -> int:
    """The column that editors show for the byte `offset` of `line`: characters, counted from one."""
    return len(line.encode()[:offset].decode(errors="replace")) + 1
