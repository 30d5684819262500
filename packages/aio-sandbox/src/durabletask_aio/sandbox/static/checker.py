"""The checker: finds and analyses the orchestrators in source files, without importing anything."""

from __future__ import annotations

import fnmatch
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.sandbox.code.sources import Source
from durabletask_aio.sandbox.rules.catalogue import Catalogue, Severity, allows
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.static.discovery import Orchestrator, may_have_orchestrators, orchestrators
from durabletask_aio.sandbox.static.scanner import Analysis
from durabletask_aio.sandbox.static.source_resolver import SourceResolver, read_source

_NESTING_ADVICE: Final = "smaller expressions, or leave the file out with --exclude"
ALWAYS_EXCLUDED: Final = (".*", "__pycache__", "node_modules", "site-packages", "dist", "build", "venv")


@dataclass
class Settings:
    """The settings of the checker, from the command line and `pyproject.toml`."""

    allow: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    orchestrators: frozenset[str] = frozenset()
    follow: tuple[str, ...] = ()
    follow_io: tuple[str, ...] = ()
    """Installed packages to check, by import name: completely (`follow`), or for I/O only (`follow_io`)."""
    forbid: dict[str, str] = field(default_factory=dict[str, str])
    errors_only: bool = False
    notes: bool = False
    """Whether findings of severity `NOTE` are reported."""


@dataclass
class Report:
    """The result of a run of the checker."""

    findings: list[Finding]
    files: int
    orchestrators: list[Orchestrator]
    seconds: float


def check_sources(targets: Iterable[str | Path], settings: Settings | None = None) -> Report:
    """Check files, folders and modules (by dotted name).

    Raises `WorkflowValidationError` for a target that is neither a path nor a module on the search path.
    """
    settings = settings or Settings()
    started = time.perf_counter()
    catalogue = _extended(settings)
    files = list(dict.fromkeys(path for target in targets for path in _files(target, settings.exclude)))
    roots = list(dict.fromkeys([*(_root_of(path) for path in files), Path.cwd()]))
    followed = {**dict.fromkeys(settings.follow_io, True), **dict.fromkeys(settings.follow, False)}
    resolver = SourceResolver(catalogue, roots, followed)
    modules = [resolver.add(_module_name(path), path, read_source(path)) for path in files]
    found: list[Finding] = []
    checked: dict[int, Orchestrator] = {}
    for module in modules:
        is_kept = may_have_orchestrators(module, settings.orchestrators)
        found.extend(_check_file(module.source if is_kept else module.parsed(), catalogue))
        for each in orchestrators(module, resolver, settings.orchestrators):
            checked.setdefault(id(each.function.node), each)
    for each in checked.values():
        found.extend(_check_orchestrator(each, resolver, catalogue, settings))
    chosen = [each for each in _deduplicated(found) if not settings.errors_only or each.severity is Severity.ERROR]
    kept = [each for each in chosen if not allows(settings.allow, each.rule, each.call)]
    kept.sort(key=lambda each: (each.file, each.line, each.column or 0, each.rule.code))
    return Report(kept, len(files), list(checked.values()), time.perf_counter() - started)


def _check_orchestrator(
    each: Orchestrator, resolver: SourceResolver, catalogue: Catalogue, settings: Settings
) -> list[Finding]:
    try:
        return Analysis(resolver, catalogue, settings.allow, notes=settings.notes).run(resolver.body_of(each.function))
    except RecursionError:
        # A generated file with expressions nested a thousand levels deep must not end the check of all other files.
        rule = catalogue.rules["DET902"]
        node, file = each.function.node, each.module.source.filename
        detail = "The function is nested too deeply to be analysed"
        return [
            Finding(rule, file, node.lineno, node.col_offset + 1, each.name, (), detail=detail, advice=_NESTING_ADVICE)
        ]


def _extended(settings: Settings) -> Catalogue:
    catalogue = default_catalogue().copy()
    try:
        for name, code in settings.forbid.items():
            catalogue.forbid(name, code=code)
    except ValueError as error:
        raise WorkflowValidationError(str(error)) from None
    return catalogue


def _deduplicated(findings: list[Finding]) -> list[Finding]:
    """Each place once; the first finding shows the shortest path by which it is reached."""
    found: dict[tuple[object, ...], Finding] = {}
    for each in findings:
        found.setdefault(each.key, each)
    return list(found.values())


def _check_file(source: Source, catalogue: Catalogue) -> Iterator[Finding]:
    """Findings about a file as a whole: syntax errors and pragmas."""
    if source.tree is None:
        rule = catalogue.rules["DET902"]
        detail = _error_of(source)
        yield Finding(rule, source.filename, 1, 1, "<module>", (), detail=detail, advice=rule.alternative)
    rule = catalogue.rules["DET901"]
    for pragma in source.pragmas.values():
        unknown = [name for name in pragma.names if name != "*" and not catalogue.is_known_name(name)]
        details = [f"The pragma allows `{name}`, which is not a rule, category or call" for name in unknown]
        if not pragma.reason:
            details.append("The pragma does not say why the line may be different on replay")
        line = source.line(pragma.line)
        column = line.index("#") + 1 if "#" in line else 1
        for detail in details[:1]:  # one finding per place
            advice = rule.alternative
            file = source.filename
            yield Finding(
                rule, file, pragma.line, column, "<module>", (), detail=detail, advice=advice, source_line=line
            )


def _error_of(source: Source) -> str:
    try:
        compile("".join(source.lines), source.filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        return f"The file does not parse: {getattr(error, 'msg', error)}" + (f" (line {line})" if line else "")
    return "The file does not parse"


# From targets to files ------------------------------------------------------------------------------------------


def _files(target: str | Path, exclude: tuple[str, ...]) -> Iterator[Path]:
    path = Path(target)
    if not path.exists():
        found = _module_path(str(target))
        if found is None:
            msg = (
                f"{str(target)!r} is neither a file or folder nor a module on the search path. Give paths relative to"
                f" {os.getcwd()}, or the dotted name of a module."
            )
            raise WorkflowValidationError(msg)
        path = found
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(each for each in folders if not _is_excluded(Path(folder, each), path, exclude))
        for name in sorted(names):
            file = Path(folder, name)
            if name.endswith(".py") and not _is_excluded(file, path, exclude):
                yield file


def _is_excluded(path: Path, root: Path, exclude: tuple[str, ...]) -> bool:
    relative = path.relative_to(root).as_posix()
    if any(fnmatch.fnmatch(path.name, pattern) for pattern in ALWAYS_EXCLUDED):
        return True
    return any(fnmatch.fnmatch(text, pattern) for pattern in exclude for text in (path.name, relative, path.as_posix()))


def _module_path(name: str) -> Path | None:
    """The file or folder of a module, located as an import would, without importing anything."""
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    # The current folder is not on the search path of an installed command, but the user's modules are there.
    for entry in (os.getcwd(), *sys.path):
        base = Path(entry or ".").joinpath(*name.split("."))
        for path in (base, base.with_suffix(".py")):
            if path.is_file() or (path.is_dir() and any(path.glob("*.py"))):
                return path
    return None


def _root_of(path: Path) -> Path:
    """The folder that contains the top-level package of the file, which an import would need on the search path."""
    folder = path.resolve().parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _module_name(path: Path) -> str:
    parts = list(path.resolve().relative_to(_root_of(path)).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
