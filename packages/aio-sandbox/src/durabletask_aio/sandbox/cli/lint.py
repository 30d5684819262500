"""``durabletask-aio check``: the checker on the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from durabletask_aio.core.errors import WorkflowValidationError
from durabletask_aio.sandbox.cli.config import read_settings
from durabletask_aio.sandbox.cli.explain import explain
from durabletask_aio.sandbox.cli.reports import FORMATS
from durabletask_aio.sandbox.rules import allowance
from durabletask_aio.sandbox.rules.catalogue import Severity, default
from durabletask_aio.sandbox.static.checker import Report, Settings, check_sources

CLEAN: Final = 0
FOUND: Final = 1
MISUSED: Final = 2
"""The exit statuses."""


class CheckCommand:
    """See :class:`durabletask_aio.core.plugins.Command`."""

    help = "find what makes workflows non-deterministic, without importing or running anything"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("targets", nargs="*", metavar="PATH|MODULE", help="files, folders or dotted module names")
        parser.add_argument(
            "--orchestrator",
            action="append",
            default=[],
            metavar="NAME",
            help="also check this function ('name' or 'module:name'); may be repeated",
        )
        parser.add_argument("--format", choices=list(FORMATS), default="text", help="default: text")
        parser.add_argument("--output", type=Path, metavar="FILE", help="write the report to a file")
        parser.add_argument(
            "--allow",
            action="append",
            default=[],
            metavar="NAME",
            help="do not report this rule, category or call; may be repeated",
        )
        parser.add_argument("--exclude", action="append", default=[], metavar="GLOB", help="skip files and folders")
        parser.add_argument(
            "--follow",
            action="append",
            default=[],
            metavar="PACKAGE",
            help="go into this installed package as if it were yours; '*' for all; may be repeated",
        )
        parser.add_argument(
            "--follow-io",
            action="append",
            default=[],
            metavar="PACKAGE",
            help="go into this installed package for files, network, processes and threads only; may be repeated",
        )
        parser.add_argument("--errors-only", action="store_true", help="leave out rules that only warn")
        parser.add_argument(
            "--notes", action="store_true", help="also tell of what is right as it stands; not in the exit status"
        )
        parser.add_argument("--explain", metavar="CODE", help="print what a rule means, and exit")
        parser.add_argument("--rules", action="store_true", help="list the rules, and exit")
        parser.add_argument("--statistics", action="store_true", help="print what was looked at, and how fast")

    def run(self, arguments: Any) -> int:
        try:
            return self._run(arguments)
        except (WorkflowValidationError, ValueError) as error:
            print(f"durabletask-aio check: {error}", file=sys.stderr)
            return MISUSED

    def _run(self, arguments: Any) -> int:
        if arguments.explain:
            rule = default().rule(arguments.explain)
            print(f"{rule.code} ({rule.slug})\n\n{explain(rule, default())}")
            return CLEAN
        if arguments.rules:
            for rule in default().rules.values():
                print(f"{rule.code}  {rule.severity.value:<8} {rule.slug:<26} {rule.title}")
            return CLEAN
        if not arguments.targets:
            print("durabletask-aio check: give at least one file, folder or module to check.", file=sys.stderr)
            return MISUSED
        report = check_sources(arguments.targets, _settings(arguments))
        _write(FORMATS[arguments.format](report), arguments.output)
        if arguments.statistics:
            _print_statistics(report)
        return FOUND if any(each.severity is not Severity.NOTE for each in report.findings) else CLEAN


def _settings(arguments: Any) -> Settings:
    """What the command line says, added to what ``pyproject.toml`` says."""
    settings = read_settings(Path.cwd())
    return Settings(
        allow=allowance.checked([*settings.allow, *arguments.allow]),
        exclude=(*settings.exclude, *arguments.exclude),
        orchestrators=settings.orchestrators | set(arguments.orchestrator),
        forbid=settings.forbid,
        follow=allowance.checked_packages([*settings.follow, *arguments.follow], "follow"),
        follow_io=allowance.checked_packages([*settings.follow_io, *arguments.follow_io], "follow-io"),
        errors_only=settings.errors_only or arguments.errors_only,
        notes=settings.notes or arguments.notes,
    )


def _write(text: str, output: Path | None) -> None:
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")
    elif text:
        print(text)


def _print_statistics(report: Report) -> None:
    speed = report.files / report.seconds if report.seconds else 0.0
    for each in report.orchestrators:
        print(f"{each.module.name}:{each.name} ({each.found_by})", file=sys.stderr)
    print(
        f"{report.files} files, {len(report.orchestrators)} orchestrators, {report.seconds:.2f} s,"
        f" {speed:.0f} files per second",
        file=sys.stderr,
    )


COMMAND: Final = CheckCommand()
