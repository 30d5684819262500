"""Report words and phrases of `scripts/vocabulary.txt` in documentation, docstrings and comments.

    python scripts/prose.py [PATH ...]

Without arguments, the documentation and all sources are checked.  Docstrings and comments must also be Markdown: roles
of reST and double backticks are reported.  Exits with 1 if there are findings.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VOCABULARY = ROOT / "scripts" / "vocabulary.txt"
DOCUMENTATION = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "docs/adr/*.md",
    "docs/engine/*.md",
    "docs/reference/**/*.md",
    "packages/*/README.md",
    "examples/**/*.py",
)
SOURCES = (
    "packages/*/src/**/*.py",
    "packages/*/facade/*.py",
    "packages/*/tests/**/*.py",
    "packages/*/tools/*.py",
    "tests/**/*.py",
    "scripts/*.py",
    "benchmarks/*.py",
)
FROZEN = {ROOT / "tests/histories/workflows.py"}  # its lines stand for those of running instances

NOT_PROSE = re.compile(
    r"^(?P<indent> *)```.*?^(?P=indent)```$"  # a fenced block
    r"|`[^`]*`"  # inline code
    r"|<!--.*?-->|<style>.*?</style>|<[^<>]+>"  # comments and tags of HTML
    r"|\]\([^)\s]*\)",  # the target of a link
    re.MULTILINE | re.DOTALL,
)

NAMES_OF_A_SECTION = re.compile(r"^ +\*{0,2}\w+(, \*{0,2}\w+)*(?=:)", re.MULTILINE)  # as below `Args:`
REST = re.compile(r"(?::[a-z]+)+:`[^`]*`|(?<!`)``(?!`)[^`]+``(?!`)")


class Entry(NamedTuple):
    """A line of the vocabulary: what to avoid, and what to write instead."""

    pattern: re.Pattern[str]
    instead: str


def vocabulary(text: str) -> list[Entry]:
    """Parse the vocabulary file."""
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    pairs = [line.split(" -> ", maxsplit=1) for line in lines]
    patterns = [avoid.replace(" ", r"[\s#]+") for avoid, _ in pairs]  # "#" where a comment continues on the next line
    return [
        Entry(re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), instead)
        for pattern, (_, instead) in zip(patterns, pairs, strict=True)
    ]


def prose_of_markdown(text: str) -> str:
    """Return the text with code, HTML and link targets masked; line numbers stay the same."""
    return NOT_PROSE.sub(_masked, text)


def prose_of_python(source: str) -> str:
    """Return the comments and docstrings of a module on their lines; all other lines are blank."""
    lines = source.splitlines()
    kept = [""] * len(lines)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                kept[number] = lines[number]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            kept[token.start[0] - 1] = token.string
    return "\n".join(kept)


def findings(path: Path, entries: Iterable[Entry]) -> Iterator[str]:
    """Yield a line for each use of an entry in a Markdown or Python file."""
    text = path.read_text(encoding="utf-8")
    where = path.relative_to(ROOT).as_posix()
    if path.suffix == ".py":
        text = prose_of_python(text)
        yield from _matches(where, text, Entry(REST, "Markdown"))
        text = NAMES_OF_A_SECTION.sub(_masked, text)
    prose = prose_of_markdown(text)
    for entry in entries:
        yield from _matches(where, prose, entry)


def _matches(where: str, prose: str, entry: Entry) -> Iterator[str]:
    for match in entry.pattern.finditer(prose):
        line = prose.count("\n", 0, match.start()) + 1
        found = " ".join(match[0].split())
        yield f"{where}:{line}: {found!r}: write {entry.instead}"


def _masked(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", "_", match[0])


def check(patterns: Iterable[str]) -> list[str]:
    """Return the findings in all files of the repository that match one of the glob patterns."""
    entries = vocabulary(VOCABULARY.read_text(encoding="utf-8"))
    paths = sorted({path for pattern in patterns for path in ROOT.glob(pattern)} - FROZEN)
    return [finding for path in paths for finding in findings(path, entries)]


if __name__ == "__main__":
    named = [Path(name).resolve().relative_to(ROOT).as_posix() for name in sys.argv[1:]]
    found = check(named or (*DOCUMENTATION, *SOURCES))
    print("\n".join(found) or "No findings.")
    sys.exit(bool(found))
