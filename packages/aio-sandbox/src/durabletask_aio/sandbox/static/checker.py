"""The checker: finds and analyses the orchestrators in source files, without importing anything."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.sandbox.code.sources import Pragma, Source, pragmas_of
from durabletask_aio.sandbox.rules.catalogue import Catalogue, Rule, Severity, allows
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.static.discovery import (
    Orchestrator,
    imports_an_sdk,
    may_have_orchestrators,
    orchestrators,
)
from durabletask_aio.sandbox.static.registrations import Registrations
from durabletask_aio.sandbox.static.scanner import Analysis
from durabletask_aio.sandbox.static.source_modules import SourceModule, read_source
from durabletask_aio.sandbox.static.source_resolver import SourceResolver
from durabletask_aio.sandbox.static.targets import Packages, files_of, matches

MIN_SHARE: Final = 40
"""Number of orchestrators for which another process is worth its start."""
_MAX_PROCESSES: Final = 61
"""As many as Windows can wait for."""
_NESTING_ADVICE: Final = "smaller expressions, or leave the file out with --exclude"


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


@dataclass(frozen=True)
class RecognisedOrchestrator:
    """A function that was checked, and how it was recognised."""

    name: str
    module: str
    found_by: str


@dataclass
class Report:
    """The result of a run of the checker."""

    findings: list[Finding]
    files: int
    orchestrators: list[RecognisedOrchestrator]
    seconds: float
    importing: int = 0
    """Number of files that import an SDK of durable workflows."""
    consulted: frozenset[str] = frozenset()
    """The files that were parsed, and those that imports have led to."""
    missing: tuple[tuple[str | None, str], ...] = ()
    """The names of modules that were looked for in vain, each with the root of the importing file."""
    known: int = 0
    """Number of findings that are left out because a baseline has them."""


def check_sources(targets: Iterable[str | Path], settings: Settings | None = None) -> Report:
    """Check files, folders and modules (by dotted name).

    Raises `WorkflowValidationError` for a target that is neither a path nor a module on the search path.
    """
    settings = settings or Settings()
    targets = list(targets)

    def is_excluded(path: Path, root: Path) -> bool:
        return any(matches(path, pattern, root) for pattern in settings.exclude)

    files = [path for target in targets for path in files_of(target, is_excluded if settings.exclude else None)]
    report = check_files(list(dict.fromkeys(files)), settings, named={str(target) for target in targets})
    chosen = [each for each in report.findings if not settings.errors_only or each.severity is Severity.ERROR]
    report.findings = [each for each in chosen if not allows(settings.allow, each.rule, each.call)]
    return report


def check_files(
    files: Sequence[Path],
    settings: Settings,
    *,
    named: Container[str] = frozenset(),
    texts: Mapping[Path, str] = MappingProxyType({}),
    jobs: int = 1,
) -> Report:
    """Check files, and report all findings, with those that the settings leave out.

    A file is parsed if its text mentions workflows, if a workflow reaches it, or if it is one of `named`; parsing all
    files would take most of the time. The pragmas of all files are checked. `texts` has what to check in place of what
    is in a file. With more than one job, other processes analyse a share of the orchestrators each, if there are enough
    of them; the report is the same.
    """
    started = time.perf_counter()
    project = Project(files, settings, texts)
    found = [each for module in project.modules for each in _check_pragmas(module, project.catalogue)]
    for module in project.modules:
        if module.filename in named and not may_have_orchestrators(module, settings.orchestrators):
            # The syntax tree is not kept, since it takes many times the memory of the text.
            found.extend(_check_syntax(module.parsed(), project.catalogue))
    found.extend(project.registrations.findings)
    parts = _analysed(project, files, settings, texts, jobs)
    # In the order of the orchestrators, so that of equal findings the same one is kept with any number of jobs.
    by_orchestrator = {number: each for part in parts for number, each in part.findings.items()}
    found.extend(each for number in sorted(by_orchestrator) for each in by_orchestrator[number])
    found.extend(each for part in parts for each in part.syntax)
    if settings.notes:
        used = {each for part in parts for each in part.used_pragmas}
        scanned = {each for part in parts for each in part.scanned}
        found.extend(_unused_pragmas(project.modules, project.catalogue, used, scanned))
    return Report(
        ordered(found),
        len(files),
        [RecognisedOrchestrator(each.name, each.module.name, each.found_by) for each in project.orchestrators],
        time.perf_counter() - started,
        sum(imports_an_sdk(module.text) for module in project.modules),
        frozenset(name for part in parts for name in part.consulted),
        tuple(sorted({each for part in parts for each in part.missing}, key=str)),
    )


class Project:
    """The files of a check, and the orchestrators in them."""

    def __init__(self, files: Sequence[Path], settings: Settings, texts: Mapping[Path, str]) -> None:
        self.catalogue = _extended(settings)
        self.registrations = Registrations()
        self._settings = settings
        packages = Packages()
        roots = list(dict.fromkeys([*(packages.root_of(path) for path in files), Path.cwd()]))
        followed = {**dict.fromkeys(settings.follow_io, True), **dict.fromkeys(settings.follow, False)}
        self._resolver = SourceResolver(self.catalogue, roots, followed)
        self.modules = [
            self._resolver.add(packages.name_of(path), path, texts[path] if path in texts else read_source(path))
            for path in files
        ]
        found: dict[int, Orchestrator] = {}
        for module in self.modules:
            for each in orchestrators(module, self._resolver, settings.orchestrators, self.registrations):
                found.setdefault(id(each.function.node), each)
        self.orchestrators = [*found.values()]

    def analyse(self, numbers: Iterable[int]) -> Part:
        """Analyse the orchestrators with these numbers."""
        part = Part()
        for number in numbers:
            analysis = Analysis(
                self._resolver,
                self.catalogue,
                self._settings.allow,
                notes=self._settings.notes,
                registrations=self.registrations,
            )
            part.findings[number] = _check_orchestrator(self.orchestrators[number], self._resolver, analysis)
            part.used_pragmas |= analysis.used_pragmas
            part.scanned |= analysis.scanned
        for module in self._resolver.parsed_modules():
            part.syntax.extend(_check_syntax(module.source, self.catalogue))
        part.consulted = {module.filename for module in self._resolver.consulted_modules()}
        part.missing = {(None if root is None else str(root), name) for root, name in self._resolver.missing_modules()}
        return part


@dataclass
class Part:
    """What the analysis of some orchestrators has found, in a form that one process can give to another."""

    findings: dict[int, list[Finding]] = field(default_factory=dict[int, "list[Finding]"])
    """By the number of the orchestrator."""
    syntax: list[Finding] = field(default_factory=list[Finding])
    used_pragmas: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    scanned: set[tuple[str, int, int]] = field(default_factory=set[tuple[str, int, int]])
    consulted: set[str] = field(default_factory=set[str])
    missing: set[tuple[str | None, str]] = field(default_factory=set[tuple[str | None, str]])


def _analysed(
    project: Project, files: Sequence[Path], settings: Settings, texts: Mapping[Path, str], jobs: int
) -> list[Part]:
    """The parts of the analysis; this process analyses the first share, and others what is left."""
    count = len(project.orchestrators)
    jobs = min(jobs, count // MIN_SHARE, _MAX_PROCESSES)
    if jobs < 2:
        return [project.analyse(range(count))]
    # A new interpreter each: a fork of a process with threads, such as one that runs tests, may deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs - 1, context) as pool:
        shares = [pool.submit(_analyse_share, files, settings, dict(texts), first, jobs) for first in range(1, jobs)]
        return [project.analyse(range(0, count, jobs)), *(share.result() for share in shares)]


def _analyse_share(files: Sequence[Path], settings: Settings, texts: Mapping[Path, str], first: int, jobs: int) -> Part:
    """Read the project as the first process did, and analyse a share of its orchestrators."""
    project = Project(files, settings, texts)
    return project.analyse(range(first, len(project.orchestrators), jobs))


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """The findings in the order of files and lines, each place once."""
    return sorted(_deduplicated(findings), key=lambda each: (each.file, each.line, each.column or 0, each.rule.code))


def _check_orchestrator(each: Orchestrator, resolver: SourceResolver, analysis: Analysis) -> list[Finding]:
    try:
        return [finding for body in resolver.bodies(each.function) for finding in analysis.run(body)]
    except RecursionError:
        # A generated file with expressions nested a thousand levels deep must not end the check of all other files.
        rule = analysis.catalogue.rules["DET902"]
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


def _deduplicated(findings: Iterable[Finding]) -> list[Finding]:
    """Each place once; the first finding shows the shortest path by which it is reached."""
    found: dict[tuple[object, ...], Finding] = {}
    for each in findings:
        found.setdefault(each.key, each)
    return list(found.values())


def _check_syntax(source: Source, catalogue: Catalogue) -> Iterator[Finding]:
    if source.tree is None:
        rule = catalogue.rules["DET902"]
        detail = _error_of(source)
        yield Finding(rule, source.filename, 1, 1, "<module>", (), detail=detail, advice=rule.alternative)


def _check_pragmas(module: SourceModule, catalogue: Catalogue) -> Iterator[Finding]:
    """Findings about the pragmas of a file; its text is enough to find them."""
    rule = catalogue.rules["DET901"]
    for pragma in pragmas_of(module.text).values():
        unknown = [name for name in pragma.names if name != "*" and not catalogue.is_known_name(name)]
        details = [f"The pragma allows `{name}`, which is not a rule, category or call" for name in unknown]
        if pragma.needs_reason and not pragma.reason:
            details.append("The pragma does not say why the line may be different on replay")
        for detail in details[:1]:  # one finding per place
            yield _about_pragma(pragma, module, rule, detail)


def _unused_pragmas(
    modules: list[SourceModule], catalogue: Catalogue, used: set[tuple[str, int]], scanned: set[tuple[str, int, int]]
) -> Iterator[Finding]:
    """Notes about pragmas in functions that were analysed, which have allowed nothing."""
    for module in modules:
        ranges = [(first, last) for filename, first, last in scanned if filename == module.filename]
        for line, pragma in pragmas_of(module.text).items() if ranges else ():
            is_scanned = any(first <= line <= last for first, last in ranges)
            if is_scanned and (module.filename, line) not in used:
                detail = f"Nothing on the line needs `{pragma.names[0] if pragma.names[0] != '*' else 'allow'}`"
                yield _about_pragma(pragma, module, catalogue.rules["DET903"], detail)


def _about_pragma(pragma: Pragma, module: SourceModule, rule: Rule, detail: str) -> Finding:
    line = pragma.source_line
    column = line.index("#") + 1 if "#" in line else 1
    return Finding(
        rule,
        module.filename,
        pragma.line,
        column,
        "<module>",
        (),
        detail=detail,
        advice=rule.alternative,
        source_line=line,
    )


def _error_of(source: Source) -> str:
    try:
        compile("".join(source.lines), source.filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        return f"The file does not parse: {getattr(error, 'msg', error)}" + (f" (line {line})" if line else "")
    return "The file does not parse"
