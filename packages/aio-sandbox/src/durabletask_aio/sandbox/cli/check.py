"""`durabletask-aio check`: the checker on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.core.command_line import (
    CommandError,
    ExitCode,
    json_option,
    select_format,
    write,
    write_json,
    write_report,
)
from durabletask_aio.sandbox.cli.config import read_settings
from durabletask_aio.sandbox.cli.explanation import explain, rule_to_dict
from durabletask_aio.sandbox.cli.reports import FORMATS
from durabletask_aio.sandbox.rules import allowance
from durabletask_aio.sandbox.rules.catalogue import Severity
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.static.checker import Report, Settings, check_sources

_EPILOG = """\
\b
examples:
  durabletask-aio check src/
  durabletask-aio check my.module --orchestrator order
  durabletask-aio check --explain DET101

The exit code is 0 if nothing is found, 1 if something is, 2 if the check cannot be made. Notes do not count.
"""


@click.command(
    "check",
    short_help="Find what makes workflows non-deterministic, without importing or running anything.",
    epilog=_EPILOG,
)
@click.argument("targets", nargs=-1, metavar="[PATH|MODULE]...", type=click.Path())
@click.option(
    "--orchestrator",
    "orchestrators",
    multiple=True,
    metavar="NAME",
    help="""
Also check this function ('name' or 'module:name'); may be repeated.""",
)
@click.option("--format", "format_", type=click.Choice(list(FORMATS)), help="Format of the report; default: text.")
@json_option
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write the report to a file.")
@click.option(
    "--allow",
    multiple=True,
    metavar="NAME",
    help="""
Do not report this rule, category or call; may be repeated.""",
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Skip files and folders; may be repeated.")
@click.option(
    "--follow",
    multiple=True,
    metavar="PACKAGE",
    help="""
Go into this installed package as if it were yours; '*' for all; may be repeated.""",
)
@click.option(
    "--follow-io",
    multiple=True,
    metavar="PACKAGE",
    help="""
Go into this installed package for files, network, processes and threads only; may be repeated.""",
)
@click.option("--errors-only", is_flag=True, help="Leave out rules that only warn.")
@click.option("--notes", is_flag=True, help="Also report what is right as it stands; not in the exit code.")
@click.option("--explain", "code", metavar="CODE", help="Print what a rule means, and exit.")
@click.option("--rules", is_flag=True, help="List the rules, and exit.")
@click.option("--statistics", is_flag=True, help="Print what was looked at, and how fast, on standard error.")
@click.pass_context
def check(
    ctx: click.Context,
    /,
    targets: tuple[str, ...],
    format_: str | None,
    as_json: bool,
    output: Path | None,
    code: str | None,
    rules: bool,
    statistics: bool,
    **settings: Any,
) -> None:
    """Find what makes workflows non-deterministic, without importing or running anything.

    Checks files, folders and modules by their dotted names.
    """
    report_format = select_format(format_, as_json)
    try:
        if code is not None:
            _print_explanation(code, as_json)
        elif rules:
            _print_rules(as_json)
        elif not targets:
            raise click.UsageError("give at least one file, folder or module to check", ctx)
        else:
            report = check_sources(targets, _merged_settings(**settings))
            text = FORMATS[report_format](report)
            write_report(f"{text}\n" if text else "", output)
            if statistics:
                _print_statistics(report)
            if any(each.severity is not Severity.NOTE for each in report.findings):
                ctx.exit(ExitCode.FINDINGS)
    except (WorkflowValidationError, ValueError) as error:
        raise CommandError(str(error)) from error


def _print_explanation(code: str, as_json: bool) -> None:
    rule = default_catalogue().rule(code)
    if as_json:
        write_json(rule_to_dict(rule, default_catalogue()))
    else:
        write(f"{rule.code} ({rule.slug})\n\n{explain(rule, default_catalogue())}\n")


def _print_rules(as_json: bool) -> None:
    rules = default_catalogue().rules.values()
    if as_json:
        write_json({"rules": [rule_to_dict(rule, default_catalogue()) for rule in rules]})
    else:
        for rule in rules:
            write(f"{rule.code}  {rule.severity.value:<8} {rule.slug:<26} {rule.title}\n")


def _merged_settings(
    orchestrators: tuple[str, ...],
    allow: tuple[str, ...],
    exclude: tuple[str, ...],
    follow: tuple[str, ...],
    follow_io: tuple[str, ...],
    errors_only: bool,
    notes: bool,
) -> Settings:
    """Add the options of the command line to the settings in `pyproject.toml`."""
    settings = read_settings(Path.cwd())
    return Settings(
        allow=allowance.checked([*settings.allow, *allow]),
        exclude=(*settings.exclude, *exclude),
        orchestrators=settings.orchestrators | set(orchestrators),
        forbid=settings.forbid,
        follow=allowance.checked_packages([*settings.follow, *follow], "follow"),
        follow_io=allowance.checked_packages([*settings.follow_io, *follow_io], "follow-io"),
        errors_only=settings.errors_only or errors_only,
        notes=settings.notes or notes,
    )


def _print_statistics(report: Report) -> None:
    speed = report.files / report.seconds if report.seconds else 0.0
    for each in report.orchestrators:
        click.echo(f"{each.module.name}:{each.name} ({each.found_by})", err=True)
    click.echo(
        f"{report.files} files, {len(report.orchestrators)} orchestrators, {report.seconds:.2f} s,"
        f" {speed:.0f} files per second",
        err=True,
    )
