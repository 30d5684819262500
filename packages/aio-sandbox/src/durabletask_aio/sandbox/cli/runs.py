"""A run of the checker from the command line: which files, with which settings, and which findings are reported."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from durabletask_aio.sandbox.cli.config import Configuration, Configurations
from durabletask_aio.sandbox.cli.selection import ALL
from durabletask_aio.sandbox.static.checker import Report, Settings, check_files, ordered
from durabletask_aio.sandbox.static.targets import files_of


def check_targets(
    targets: Iterable[str], configurations: Configurations, texts: dict[Path, str] | None = None
) -> Report:
    """Check targets, each file with its own settings.

    The files with the same settings are checked together; what a workflow reaches outside of them is followed all the
    same. A finding is reported according to the settings of the file that it is in.

    `texts` has files that are checked with the text given here; they need not exist.
    """
    started = time.perf_counter()
    texts = texts or {}
    named = {str(target) for target in targets}
    groups: dict[int, tuple[Configuration, list[Path]]] = {}
    for path in [*texts, *_files(targets, configurations)]:
        configuration = configurations.of_file(path)
        files = groups.setdefault(id(configuration), (configuration, []))[1]
        files.append(path)
    report = Report([], 0, [], 0)
    for configuration, files in groups.values():
        part = check_files(
            list(dict.fromkeys(files)), _analysed(configuration), named={*named, *map(str, texts)}, texts=texts
        )
        report.findings += part.findings
        report.files += part.files
        report.orchestrators += part.orchestrators
        report.importing += part.importing
    report.findings = [
        each for each in ordered(report.findings) if configurations.of_file(Path(each.file)).is_reported(each)
    ]
    report.seconds = time.perf_counter() - started
    return report


def _files(targets: Iterable[str], configurations: Configurations) -> Iterable[Path]:
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
