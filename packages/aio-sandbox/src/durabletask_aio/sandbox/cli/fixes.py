"""Applying fixes to the content of a file: positions are replaced, and every other byte stays as it is."""

from __future__ import annotations

import ast
import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from durabletask_aio.sandbox.cli.imports import bound_names, has_import, with_imports, without_unused_imports
from durabletask_aio.sandbox.code.sources import encoding_of, expression_tree, lines_of, syntax_tree
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.rules.fixes import Fix


@dataclass(frozen=True)
class FixedFile:
    """The content of a file with fixes, and how many of each kind were made."""

    content: bytes
    safe: int
    unsafe: int


def fixable(findings: Iterable[Finding], text: str) -> list[Finding]:
    """The findings in a file whose fixes can be made, those of an inner call after those of the outer one.

    The callee must be a name that only imports bind: a variable may be another function at another time.
    """
    try:
        tree = syntax_tree(text)
    except (SyntaxError, ValueError):
        return []
    bound = bound_names(tree)
    calls = {
        (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset): node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }
    lines = lines_of(text)
    found: list[Finding] = []
    for each in findings:
        fix = each.fix
        node = calls.get((fix.line, fix.column, fix.end_line, fix.end_column)) if fix is not None else None
        if fix is None or node is None or bound.get(_root(node.func), "import") != "import":
            continue
        if not _is_at(node, fix, lines):
            continue
        if _root(node.func) and all(_is_available(statement, bound, tree) for statement in fix.imports):
            found.append(each)
    return found


def apply_fixes(content: bytes, findings: Iterable[Finding]) -> FixedFile | None:
    """The content of a file with the fixes of `findings`; `None` if none can be made.

    Of fixes that overlap, the outer one is made; another run makes those inside it. A result that does not parse is
    discarded.
    """
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""
    encoding = encoding_of(content).removesuffix("-sig")
    try:
        text = content[len(mark) :].decode(encoding)
        if text.encode(encoding) != content[len(mark) :]:
            return None
    except (UnicodeError, LookupError):
        return None
    chosen = list(_without_overlaps(fixable(findings, text)))
    if not chosen:
        return None
    imports = list(dict.fromkeys(statement for fix in chosen for statement in fix.imports))
    fixed = without_unused_imports(with_imports(_replaced(text, chosen), imports), before=text)
    try:
        syntax_tree(fixed)
        encoded = fixed.encode(encoding)
    except (SyntaxError, ValueError):
        return None
    safe = sum(fix.is_safe for fix in chosen)
    return FixedFile(mark + encoded, safe, len(chosen) - safe)


def _without_overlaps(findings: list[Finding]) -> Iterator[Fix]:
    end = (0, 0)
    fixes = {each.fix for each in findings if each.fix is not None}
    for fix in sorted(fixes, key=lambda each: (each.line, each.column, -each.end_line, -each.end_column)):
        if (fix.line, fix.column) >= end:
            end = (fix.end_line, fix.end_column)
            yield fix


def _replaced(text: str, fixes: list[Fix]) -> str:
    lines = lines_of(text)
    for fix in reversed(fixes):
        start, end = _index(lines, fix.line, fix.column), _index(lines, fix.end_line, fix.end_column)
        text = text[:start] + fix.replacement + text[end:]
    return text


def _index(lines: list[str], line: int, column: int) -> int:
    """The index in the text of a position in it."""
    before = lines[line - 1].encode()[:column].decode(errors="replace")
    return sum(len(each) for each in lines[: line - 1]) + len(before)


def _is_at(node: ast.Call, fix: Fix, lines: list[str]) -> bool:
    """Whether the call is at its position: before Python 3.12, positions in f-strings are wrong."""
    text = "".join(lines[fix.line - 1 : fix.end_line])
    start = len(lines[fix.line - 1].encode()[: fix.column].decode(errors="replace"))
    end = _index(lines, fix.end_line, fix.end_column) - _index(lines, fix.line, 0)
    try:
        found = expression_tree(f"({text[start:end]})")
    except (SyntaxError, ValueError):
        return False
    return ast.dump(found) == ast.dump(node)


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_available(statement: str, bound: dict[str, str], tree: ast.Module) -> bool:
    """Whether the name that an import statement binds is free in the file, or bound by the same statement."""
    return statement.rpartition(" ")[2] not in bound or has_import(tree, statement)
