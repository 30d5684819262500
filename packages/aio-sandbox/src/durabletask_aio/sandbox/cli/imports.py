"""The import statements of a file whose calls were replaced: what is missing is added, what is not used is removed."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator

from durabletask_aio.sandbox.code.sources import expression_tree, lines_of, syntax_tree
from durabletask_aio.sandbox.rules.ownership import is_standard_module

_Position = tuple[int, int]


def bound_names(tree: ast.Module) -> dict[str, str]:
    """The names that a file binds anywhere: `"import"` if only imports do, otherwise `"other"`."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                found.setdefault(_bound_by(alias), "import")
            continue
        for name in _bound_in(node):
            found[name] = "other"
    return found


def _bound_by(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _bound_in(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name is not None:
        yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest is not None:
        yield node.rest


def with_imports(text: str, statements: list[str]) -> str:
    """The text with import statements added after those at its top, unless it has them."""
    tree = _parsed(text)
    if tree is None:
        return text
    missing = [each for each in statements if not has_import(tree, each)]
    if not missing:
        return text
    lines = lines_of(text)
    number = _line_of_imports(tree)
    position = sum(len(line) for line in lines[:number])
    end = _end_of_line(lines)
    before = "" if number == 0 or lines[number - 1].endswith(("\n", "\r")) else end
    added = "".join(f"{statement}{end}" for statement in missing)
    return text[:position] + before + added + text[position:]


def has_import(tree: ast.Module, statement: str) -> bool:
    """Whether a file has an import statement, such as `from datetime import timezone`, at its top level."""
    (wanted,) = syntax_tree(statement).body
    assert isinstance(wanted, (ast.Import, ast.ImportFrom))
    module = wanted.module if isinstance(wanted, ast.ImportFrom) else None
    name = wanted.names[0].name
    return any(
        type(node) is type(wanted)
        and getattr(node, "module", None) == module
        and any(alias.name == name and alias.asname is None for alias in getattr(node, "names", ()))
        for node in tree.body
    )


def _line_of_imports(tree: ast.Module) -> int:
    """The number of lines before which nothing is added: those of the docstring and the imports at the top."""
    body = tree.body
    first = 1 if ast.get_docstring(tree, clean=False) is not None else 0
    last = first
    while last < len(body) and isinstance(body[last], (ast.Import, ast.ImportFrom)):
        last += 1
    if last == 0:
        return min((_first_line(each) for each in body), default=1) - 1
    end = body[last - 1].end_lineno or 0
    # Statements on the same line, after a semicolon, may take more lines.
    return max(each.end_lineno or 0 for each in body if each.lineno <= end)


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


def _end_of_line(lines: list[str]) -> str:
    first = lines[0] if lines else "\n"
    return "\r\n" if first.endswith("\r\n") else "\r" if first.endswith("\r") else "\n"


def without_unused_imports(text: str, *, before: str) -> str:
    """The text without the imports of the standard library that a fix has left without a use.

    Imports that were unused `before` the fix stay. So do those that a string mentions, for `__all__` and annotations,
    and those inside of other statements.
    """
    earlier = _parsed(before)
    if earlier is None:
        return text
    while True:
        tree = _parsed(text)
        place = _unused(tree, _used_names(earlier), lines_of(text)) if tree is not None else None
        if tree is None or place is None:
            return text
        text = _without(text, *place)


def _unused(
    tree: ast.Module, used_before: set[str], lines: list[str]
) -> tuple[ast.Import | ast.ImportFrom, ast.alias] | None:
    used = _used_names(tree)
    bound = bound_names(tree)
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            modules = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
            modules = [statement.module or ""] * len(statement.names)
        else:
            continue
        if len(statement.names) == 1 and not _is_alone(statement, lines):
            continue
        for alias, module in zip(statement.names, modules, strict=True):
            name = _bound_by(alias)
            is_plain = is_standard_module(module) and module != "__future__" and bound.get(name) == "import"
            if is_plain and name in used_before and name not in used and _imports_of(tree, name) == 1:
                return statement, alias
    return None


def _imports_of(tree: ast.Module, name: str) -> int:
    imports = (node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)))
    return sum(_bound_by(alias) == name for node in imports for alias in node.names)


def _used_names(tree: ast.Module) -> set[str]:
    """The names that are read, also in strings: an annotation, or a name in `__all__`."""
    used: set[str] = set()
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            used.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            with contextlib.suppress(SyntaxError, ValueError):
                inner = ast.walk(expression_tree(node.value))
                used.update(each.id for each in inner if isinstance(each, ast.Name))
    return used


def _without(text: str, statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    lines = lines_of(text)
    if len(statement.names) == 1:
        return _cut(text, lines, (statement.lineno, 0), ((statement.end_lineno or statement.lineno) + 1, 0))
    position = statement.names.index(alias)
    if position + 1 < len(statement.names):
        return _cut(text, lines, _start(alias), _start(statement.names[position + 1]))
    return _cut(text, lines, _end(statement.names[position - 1]), _end(alias))


def _is_alone(statement: ast.stmt, lines: list[str]) -> bool:
    """Whether no other statement is on the lines of a statement."""
    rest = lines[(statement.end_lineno or statement.lineno) - 1].encode()[statement.end_col_offset :].decode().strip()
    return statement.col_offset == 0 and (rest == "" or rest.startswith("#"))


def _start(alias: ast.alias) -> _Position:
    return alias.lineno, alias.col_offset


def _end(alias: ast.alias) -> _Position:
    return alias.end_lineno or alias.lineno, alias.end_col_offset or 0


def _cut(text: str, lines: list[str], start: _Position, end: _Position) -> str:
    def index(position: _Position) -> int:
        line, column = position
        whole = sum(len(each) for each in lines[: line - 1])
        return whole + (len(lines[line - 1].encode()[:column].decode()) if line <= len(lines) else 0)

    return text[: index(start)] + text[index(end) :]


def _parsed(text: str) -> ast.Module | None:
    try:
        return syntax_tree(text)
    except (SyntaxError, ValueError):
        return None
