"""A run of the checker from the command line: which files, with which settings, and which findings are reported."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from durabletask_aio.sandbox.cli.baseline import Baseline
from durabletask_aio.sandbox.cli.cache import Cache, key_of
from durabletask_aio.sandbox.cli.config import Configuration, Configurations
from durabletask_aio.sandbox.cli.fixes import apply_fixes, fixable
from durabletask_aio.sandbox.cli.places import relative
from durabletask_aio.sandbox.cli.selection import ALL
from durabletask_aio.sandbox.code.sources import decoded, lines_of
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.static.checker import Report, Settings, check_files, ordered
from durabletask_aio.sandbox.static.targets import files_of

_MAX_PASSES: Final = 20
"""How often a file is fixed: each pass makes the fixes inside those of the pass before."""


@dataclass(frozen=True)
class Run:
    """The files of a run and their settings."""

    files: Sequence[Path]
    configurations: Configurations
    named: frozenset[str] = frozenset()
    """The files that the user named, which are parsed in any case."""
    contents: Mapping[Path, bytes] = field(default_factory=dict[Path, bytes])
    """Files that are not read, such as the one on standard input, and what is in them."""
    cache: Cache | None = None
    baseline: Baseline | None = None
    jobs: int = 1
    """Maximum number of processes."""

    @classmethod
    def of_targets(
        cls,
        targets: Sequence[str],
        configurations: Configurations,
        *,
        cache: Cache | None = None,
        baseline: Baseline | None = None,
        jobs: int = 1,
    ) -> Run:
        """The run that checks files, folders and modules."""
        files = list(dict.fromkeys(_files(targets, configurations)))
        return cls(files, configurations, frozenset(targets), cache=cache, baseline=baseline, jobs=jobs)

    @classmethod
    def of_content(
        cls, path: Path, content: bytes, configurations: Configurations, *, baseline: Baseline | None = None
    ) -> Run:
        """The run that checks one file with the given content; it need not exist."""
        return cls([path], configurations, frozenset([str(path)]), {path: content}, baseline=baseline)

    def content(self, path: Path) -> bytes:
        return self.contents[path] if path in self.contents else path.read_bytes()

    def check(self, changed: Mapping[Path, bytes] | None = None) -> Report:
        """Check the files, with the contents in `changed` in place of those that they have.

        The files with the same settings are checked together; what a workflow reaches outside of them is followed all
        the same. A finding is reported according to the settings of the file that it is in.
        """
        started = time.perf_counter()
        replaced = {**self.contents, **(changed or {})}
        report = Report([], 0, [], 0)
        for configuration, files in self._groups():
            contents = {path: replaced[path] if path in replaced else path.read_bytes() for path in files}
            part = self._check(_analysed(configuration), contents, is_cached=not replaced)
            report.findings += part.findings
            report.files += part.files
            report.orchestrators += part.orchestrators
            report.importing += part.importing
        report.findings = [each for each in ordered(report.findings) if self._is_reported(each)]
        if self.baseline is not None:
            report.findings, report.known = self.baseline.split(report.findings)
        report.seconds = time.perf_counter() - started
        return report

    def _check(self, settings: Settings, contents: Mapping[Path, bytes], *, is_cached: bool) -> Report:
        files = list(contents)
        key = key_of(settings, self.named, files) if self.cache is not None and is_cached else None
        found = self.cache.find(key, contents, settings) if self.cache is not None and key is not None else None
        if found is not None:
            return found
        texts = {path: decoded(content) for path, content in contents.items()}
        report = check_files(files, settings, named=self.named, texts=texts, jobs=self.jobs)
        if self.cache is not None and key is not None:
            self.cache.store(key, report, contents, settings)
        return report

    def _groups(self) -> Iterable[tuple[Configuration, list[Path]]]:
        groups: dict[int, tuple[Configuration, list[Path]]] = {}
        for path in self.files:
            configuration = self.configurations.of_file(path)
            groups.setdefault(id(configuration), (configuration, []))[1].append(path)
        return groups.values()

    def _is_reported(self, finding: Finding) -> bool:
        return self.configurations.of_file(Path(finding.file)).is_reported(finding)

    def fix(self, *, unsafe: bool) -> Fixed:
        """Fix what can be fixed, in memory, until nothing is left to fix."""
        fixed = Fixed(self.check())
        for _ in range(_MAX_PASSES):
            before = fixed.safe + fixed.unsafe
            for path, findings in self._by_file(fixed.report):
                wanted = [each for each in findings if each.fix is not None and (unsafe or each.fix.is_safe)]
                content = fixed.changed[path] if path in fixed.changed else self.content(path)
                made = apply_fixes(content, wanted) if wanted else None
                if made is not None:
                    fixed.changed[path] = made.content
                    fixed.safe += made.safe
                    fixed.unsafe += made.unsafe
            if fixed.safe + fixed.unsafe == before:
                break
            fixed.report = self.check(fixed.changed)
        return fixed

    def fixable(self, report: Report, changed: Mapping[Path, bytes] | None = None) -> tuple[int, int]:
        """The numbers of findings with a safe and with an unsafe fix."""
        fixes = [
            each.fix
            for path, findings in self._by_file(report)
            if any(each.fix is not None for each in findings)
            for each in fixable(findings, decoded((changed or {}).get(path) or self.content(path)))
        ]
        safe = sum(fix is not None and fix.is_safe for fix in fixes)
        return safe, len(fixes) - safe

    def _by_file(self, report: Report) -> Iterable[tuple[Path, list[Finding]]]:
        """The findings in the files of the run; others are reported, but not changed."""
        found: dict[Path, list[Finding]] = {}
        files = set(self.files)
        for each in report.findings:
            if Path(each.file) in files:
                found.setdefault(Path(each.file), []).append(each)
        return found.items()

    def diff(self, changed: Mapping[Path, bytes]) -> str:
        """The changes as a unified diff."""
        return "".join(part for path, content in sorted(changed.items()) for part in self._diff(path, content))

    def _diff(self, path: Path, content: bytes) -> Iterator[str]:
        before, after = (decoded(each).replace("\r\n", "\n") for each in (self.content(path), content))
        name = relative(str(path))
        for line in difflib.unified_diff(lines_of(before), lines_of(after), name, name):
            yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


@dataclass
class Fixed:
    """What fixing has done: the findings that are left, the new contents, and how many fixes were made."""

    report: Report
    changed: dict[Path, bytes] = field(default_factory=dict[Path, bytes])
    safe: int = 0
    unsafe: int = 0


def _files(targets: Iterable[str], configurations: Configurations) -> Iterator[Path]:
    def is_excluded(path: Path, root: Path) -> bool:
        return configurations.of_folder(path.parent).is_excluded(path, root)

    for target in targets:
        for path in files_of(target, is_excluded):
            configuration = configurations.of_file(path)
            if str(path) == target and configuration.force_exclude and _is_below_excluded(path, configuration):
                continue
            yield path


def _is_below_excluded(path: Path, configuration: Configuration) -> bool:
    """Whether the file or a folder around it, up to that of the settings, is excluded."""
    absolute = path.resolve()
    around = [each for each in (absolute, *absolute.parents) if each.is_relative_to(configuration.folder)]
    return any(configuration.is_excluded(each, configuration.folder) for each in around)


def _analysed(configuration: Configuration) -> Settings:
    """The settings of the analysis; notes are looked for if a selector may select one."""
    selects_notes = any(selector.upper() != ALL for selector in configuration.select)
    return replace(configuration.settings, notes=configuration.settings.notes or selects_notes)
