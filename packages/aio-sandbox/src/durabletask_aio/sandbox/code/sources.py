"""Source files, parsed once: syntax trees, the node of a function, pragmas, and the position of a call."""

from __future__ import annotations

import ast
import codecs
import io
import linecache
import re
import threading
import tokenize
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from durabletask_aio.sandbox.code._interpreter import position_at, positions

FunctionNode: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda"
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_PRAGMA: Final = re.compile(r"#\s*determinism:\s*allow(?:\[(?P<names>[^\]]*)\])?(?P<reason>[^#]*)")
_NOQA: Final = re.compile(r"#\s*(?i:noqa)\s*:\s*(?P<codes>[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*)")
_OUR_CODES: Final = "DET"


@dataclass(frozen=True)
class Pragma:
    """A comment `# determinism: allow[names] reason` or `# noqa: DET101` on one line.

    The first form without names allows everything; the second needs the code of a rule, and no reason.
    """

    line: int
    names: tuple[str, ...]
    reason: str
    source_line: str = ""
    """Text of the line, without the end of line."""
    needs_reason: bool = True


@dataclass
class Source:
    """A file: its lines, its syntax tree (`None` if it does not parse) and its pragmas by line."""

    filename: str
    lines: list[str]
    tree: ast.Module | None
    pragmas: dict[int, Pragma]
    _by_line: dict[int, list[FunctionNode]] = field(default_factory=dict[int, "list[FunctionNode]"])

    def function_nodes(self, first_line: int) -> list[FunctionNode]:
        """The functions whose code starts at `first_line`, which is the line of the first decorator if there is one."""
        if not self._by_line and self.tree is not None:
            for node in ast.walk(self.tree):
                if isinstance(node, _FUNCTIONS):
                    self._by_line.setdefault(_first_line(node), []).append(node)
        return self._by_line.get(first_line, [])

    def line(self, number: int) -> str:
        return self.lines[number - 1].rstrip("\r\n") if 0 < number <= len(self.lines) else ""

    def allowed_at(self, first: int, last: int) -> Iterator[Pragma]:
        """The pragmas on the lines from `first` to `last`, inclusive."""
        for number in range(first, last + 1):
            pragma = self.pragmas.get(number)
            if pragma is not None:
                yield pragma


def _first_line(node: FunctionNode) -> int:
    if isinstance(node, ast.Lambda) or not node.decorator_list:
        return node.lineno
    return min(node.lineno, *(decorator.lineno for decorator in node.decorator_list))


_PARSING: Final = threading.RLock()
"""CPython 3.11 counts the depth of the trees that `ast.parse` makes for all threads together: if two of them parse at
once, one may get a `SystemError`."""


def syntax_tree(text: str, filename: str = "<unknown>") -> ast.Module:
    """The syntax tree of a module; raises `SyntaxError` or `ValueError` as `ast.parse` does."""
    with _PARSING:
        return ast.parse(text, filename)


def expression_tree(text: str) -> ast.expr:
    """The syntax tree of an expression; raises `SyntaxError` or `ValueError` as `ast.parse` does."""
    with _PARSING:
        return ast.parse(text, mode="eval").body


def parse(filename: str, text: str) -> Source:
    """The source of `filename`; never raises. If the text does not parse, the source has no tree."""
    lines = lines_of(text)
    try:
        tree: ast.Module | None = syntax_tree(text, filename)
    except (SyntaxError, ValueError):
        tree = _parsed_without_warnings(text, filename)
    return Source(filename, lines, tree, pragmas_of(text, lines))


def _parsed_without_warnings(text: str, filename: str) -> ast.Module | None:
    """Parse again with warnings ignored: under `-W error`, an invalid escape sequence counts as a syntax error.

    The warning filters are global to the process, so only files that did not parse are parsed again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return syntax_tree(text, filename)
        except (SyntaxError, ValueError):
            return None


def encoding_of(content: bytes) -> str:
    """The encoding of a source file, by its byte order mark or its first two lines; UTF-8 otherwise."""
    if b"coding" not in b"".join(content.split(b"\n", 2)[:2]):
        return "utf-8-sig" if content.startswith(codecs.BOM_UTF8) else "utf-8"
    try:
        return tokenize.detect_encoding(io.BytesIO(content).readline)[0]
    except SyntaxError:
        # An unknown encoding, or one that contradicts the byte order mark.
        return "utf-8-sig"


def decoded(content: bytes) -> str:
    """The text of a source file; bytes that cannot be decoded are replaced."""
    return content.decode(encoding_of(content), errors="replace")


def lines_of(text: str) -> list[str]:
    """The lines of a text as the parser counts them, with their ends; `str.splitlines` also splits at form feeds."""
    return list(io.StringIO(text, newline=""))


def pragmas_of(text: str, lines: list[str] | None = None) -> dict[int, Pragma]:
    """The pragmas in a text by their line."""
    found: dict[int, Pragma] = {}
    if "determinism:" not in text and not (_OUR_CODES in text and _mentions_noqa(text)):
        return found
    for number, line in enumerate(lines_of(text) if lines is None else lines, 1):
        if "determinism:" in line or (_OUR_CODES in line and _mentions_noqa(line)):
            pragma = _pragma(number, line.rstrip("\r\n"))
            if pragma is not None:
                found[number] = pragma
    return found


def _mentions_noqa(text: str) -> bool:
    return "noqa" in text or "NOQA" in text


def _pragma(number: int, line: str) -> Pragma | None:
    ours, noqa = _PRAGMA.search(line), _NOQA.search(line)
    names: list[str] = []
    if ours is not None:
        names += [name.strip() for name in (ours["names"] or "*").split(",") if name.strip()]
    if noqa is not None:
        # The other codes are those of other linters.
        names += [code for code in re.split(r"[,\s]+", noqa["codes"]) if code.startswith(_OUR_CODES)]
    if not names:
        return None
    reason = ours["reason"].strip(" -:\t") if ours is not None else ""
    return Pragma(number, tuple(names), reason, line, needs_reason=ours is not None)


_cache: dict[str, tuple[list[str], Source]] = {}
_CACHE_LIMIT: Final = 256


def source_of(filename: str, module_globals: dict[str, object] | None = None) -> Source | None:
    """The source of a file that code was imported from, or `None` if there is no text.

    It is read through `linecache`, as for tracebacks, so it also works for zipped modules and notebook cells.
    """
    lines = linecache.getlines(filename, module_globals)
    if not lines:
        return None
    known = _cache.get(filename)
    # linecache returns the same list until it is asked to check the file again.
    if known is not None and (known[0] is lines or known[0] == lines):
        return known[1]
    if len(_cache) >= _CACHE_LIMIT:
        _cache.pop(next(iter(_cache)))
    source = parse(filename, "".join(lines))
    _cache[filename] = (lines, source)
    return source


def node_of(
    code: types.CodeType, module_globals: dict[str, object] | None = None
) -> tuple[FunctionNode, Source] | None:
    """The syntax of the function that `code` was compiled from, or `None` if it is ambiguous."""
    source = source_of(code.co_filename, module_globals)
    if source is None:
        return None
    candidates = [node for node in source.function_nodes(code.co_firstlineno) if _fits(node, code)]
    if len(candidates) > 1:
        candidates = [node for node in candidates if _starts_like(node, code)] or candidates
    return (candidates[0], source) if candidates else None


def _fits(node: FunctionNode, code: types.CodeType) -> bool:
    name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
    arguments = node.args
    positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    return name == code.co_name and len(positional) == code.co_argcount


def _starts_like(node: FunctionNode, code: types.CodeType) -> bool:
    """Tell several lambdas on one line apart by their column, which Python 3.10 does not record."""
    body = node.body if isinstance(node, ast.Lambda) else node.body[0]
    end = (body.end_lineno or body.lineno, body.end_col_offset or 0)
    return any(
        (line, column) == (body.lineno, body.col_offset) and (last, last_column) <= end
        for line, last, column, last_column in positions(code)
        if line is not None and column is not None and last is not None and last_column is not None
    )


@dataclass(frozen=True)
class Position:
    """A range in a source file; lines and columns count from one, as in editors."""

    line: int
    column: int | None
    end_line: int
    end_column: int | None = None
    """One past the last character, counted as `column` is; known whenever `column` is."""


def position_of(frame: types.FrameType, leaf: str) -> Position:
    """The position of the call to something named `leaf` that `frame` is making.

    Python 3.11 and later record the column. On 3.10 it is looked up in the source, and is `None` if that is ambiguous.
    """
    code = frame.f_code
    found, last, column, end = position_at(code, frame.f_lasti)
    if found is not None:
        if column is None or end is None:
            return Position(found, None, last or found)
        return Position(found, column + 1, last or found, end + 1)
    line = frame.f_lineno
    source = source_of(code.co_filename, frame.f_globals)
    if source is None or source.tree is None:
        return Position(line, None, line)
    calls = [
        node
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and node.lineno <= line <= (node.end_lineno or line) and _leaf(node.func) == leaf
    ]
    if len(calls) != 1:
        return Position(line, None, line)
    only = calls[0]
    return Position(only.lineno, only.col_offset + 1, only.end_lineno or line, (only.end_col_offset or 0) + 1)


def _leaf(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None
