"""`durabletask-aio check`: the checker on the command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

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
from durabletask_aio.sandbox.cli.config import Configurations, Options
from durabletask_aio.sandbox.cli.explanation import explain, rule_to_dict
from durabletask_aio.sandbox.cli.places import published_docs
from durabletask_aio.sandbox.cli.reports import FORMATS, Surroundings
from durabletask_aio.sandbox.cli.runs import check_targets
from durabletask_aio.sandbox.code.sources import decoded
from durabletask_aio.sandbox.rules.catalogue import Severity
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.static.checker import Report

_STDIN: Final = "-"
_EPILOG = """\
\b
examples:
  durabletask-aio check
  durabletask-aio check src/ --ignore DET8
  durabletask-aio check my.module --orchestrator order
  durabletask-aio check --explain DET101

The exit code is 0 if nothing is found, 1 if something is, 2 if the check cannot be made. Notes do not count.
"""


@click.command(
    "check",
    short_help="Find what makes workflows non-deterministic, without importing or running anything.",
    epilog=_EPILOG,
)
@click.argument("targets", nargs=-1, metavar="[PATH|MODULE|-]...", type=click.Path(allow_dash=True))
@click.option(
    "--orchestrator",
    "orchestrators",
    multiple=True,
    metavar="NAME",
    help="Also check this function ('name' or 'module:name'); may be repeated.",
)
@click.option(
    "--select",
    multiple=True,
    metavar="RULES",
    help="Report these rules only: codes, beginnings of codes (DET1), slugs, categories or ALL, with commas between.",
)
@click.option("--ignore", multiple=True, metavar="RULES", help="Do not report these rules; as for --select.")
@click.option(
    "--allow",
    multiple=True,
    metavar="NAME",
    help="Do not report this rule, category or call; may be repeated.",
)
@click.option("--errors-only", is_flag=True, help="Leave out rules that only warn.")
@click.option("--notes", is_flag=True, help="Also report what is right as it stands; not in the exit code.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Skip files and folders; may be repeated.")
@click.option("--force-exclude", is_flag=True, help="Skip excluded files even if they are named.")
@click.option(
    "--follow",
    multiple=True,
    metavar="PACKAGE",
    help="Go into this installed package as if it were yours; '*' for all; may be repeated.",
)
@click.option(
    "--follow-io",
    multiple=True,
    metavar="PACKAGE",
    help="Go into this installed package for files, network, processes and threads only; may be repeated.",
)
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the settings from this TOML file instead of the nearest pyproject.toml of each file.",
)
@click.option(
    "--stdin-filename",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The name of the file that is read from standard input ('-').",
)
@click.option(
    "--output-format",
    "--format",
    "format_",
    type=click.Choice(list(FORMATS)),
    metavar="FORMAT",
    help=f"Format of the report: {', '.join(name for name in FORMATS if name != 'text')}; default: full.",
)
@json_option
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write the report to a file.")
@click.option("-e", "--exit-zero", is_flag=True, help="Exit with 0 even if something is found.")
@click.option("--explain", "code", metavar="CODE", help="Print what a rule means, and exit.")
@click.option("--rules", is_flag=True, help="List the rules, and exit.")
@click.option("--statistics", is_flag=True, help="Print what was looked at, and how fast, on standard error.")
@click.pass_context
def check(
    ctx: click.Context,
    /,
    targets: tuple[str, ...],
    config: Path | None,
    stdin_filename: Path | None,
    format_: str | None,
    as_json: bool,
    output: Path | None,
    exit_zero: bool,
    code: str | None,
    rules: bool,
    statistics: bool,
    **options: Any,
) -> None:
    """Find what makes workflows non-deterministic, without importing or running anything.

    Checks files, folders and modules by their dotted names; the current folder if none is given, and standard input
    for '-'.
    """
    report_format = select_format(format_, as_json)
    try:
        if code is not None:
            _print_explanation(code, as_json)
            return
        if rules:
            _print_rules(as_json)
            return
        configurations = Configurations(Options(**options), config)
        texts = _standard_input(ctx, targets, stdin_filename)
        report = check_targets(() if texts else targets or (".",), configurations, texts)
        docs_url = configurations.of_folder(Path.cwd()).docs_url or published_docs()
        text = FORMATS[report_format](report, Surroundings(docs_url))
    except (WorkflowValidationError, ValueError) as error:
        raise CommandError(str(error)) from error
    write_report(f"{text}\n" if text else "", output)
    _print_hints(report, targets)
    if statistics:
        _print_statistics(report)
    if not exit_zero and any(each.severity is not Severity.NOTE for each in report.findings):
        ctx.exit(ExitCode.FINDINGS)


def _standard_input(ctx: click.Context, targets: tuple[str, ...], filename: Path | None) -> dict[Path, str]:
    """The text on standard input by the name of its file; empty if it is not to be read."""
    if _STDIN not in targets:
        if filename is not None:
            raise click.UsageError("--stdin-filename needs the target '-', which stands for standard input", ctx)
        return {}
    if len(targets) > 1:
        raise click.UsageError("'-' stands for standard input, and can be the only target", ctx)
    return {filename or Path("stdin.py"): decoded(sys.stdin.buffer.read())}


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


def _print_hints(report: Report, targets: tuple[str, ...]) -> None:
    """Say on standard error what looks like a check of nothing."""
    if report.importing and not report.orchestrators:
        files = "1 file imports" if report.importing == 1 else f"{report.importing} files import"
        click.echo(
            f"hint: {files} an SDK of durable workflows, but no orchestrator was recognised. An orchestrator is found"
            " by its registration, its decorator or the annotation of its context; name another one with"
            " --orchestrator NAME, or in the setting `orchestrators`.",
            err=True,
        )
    if os.environ.get("PRE_COMMIT") and targets and all(Path(target).is_file() for target in targets):
        click.echo(
            "hint: pre-commit gave only the files that have changed, and a change of a helper shows in the workflows"
            " that call it: set `pass_filenames: false` for this hook, to check the whole project.",
            err=True,
        )


def _print_statistics(report: Report) -> None:
    speed = report.files / report.seconds if report.seconds else 0.0
    for each in report.orchestrators:
        click.echo(f"{each.module}:{each.name} ({each.found_by})", err=True)
    click.echo(
        f"{report.files} files, {len(report.orchestrators)} orchestrators, {report.seconds:.2f} s,"
        f" {speed:.0f} files per second",
        err=True,
    )
