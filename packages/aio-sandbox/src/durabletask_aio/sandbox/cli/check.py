"""`durabletask-aio check`: the checker on the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
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
from durabletask_aio.sandbox.cli import baseline as baselines
from durabletask_aio.sandbox.cli.baseline import Baseline
from durabletask_aio.sandbox.cli.cache import Cache, default_folder
from durabletask_aio.sandbox.cli.config import Configurations, Options
from durabletask_aio.sandbox.cli.explanation import explain, rule_to_dict
from durabletask_aio.sandbox.cli.places import published_docs
from durabletask_aio.sandbox.cli.reports import FORMATS, Surroundings
from durabletask_aio.sandbox.cli.runs import Fixed, Run
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
@click.option("--fix", is_flag=True, help="Fix what can be fixed without adding operations to a history.")
@click.option("--diff", is_flag=True, help="Print what --fix would change, and change nothing; 1 if there is anything.")
@click.option(
    "--unsafe-fixes",
    is_flag=True,
    help="With --fix or --diff: also what adds operations to histories, for new instances only.",
)
@click.option(
    "--baseline",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Do not report the findings in this file, which --write-baseline has written.",
)
@click.option(
    "--write-baseline",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write what is found to a baseline, and exit with 0.",
)
@click.option("--no-cache", is_flag=True, help="Neither read nor write the cache.")
@click.option(
    "--cache-dir",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of the cache; default: .durabletask_cache next to the nearest pyproject.toml.",
)
@click.option(
    "-j",
    "--jobs",
    metavar="N",
    type=click.IntRange(min=1),
    help="Use at most N processes; default: one for each CPU. A small project is checked in one.",
)
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
    fix: bool,
    diff: bool,
    unsafe_fixes: bool,
    baseline: Path | None,
    write_baseline: Path | None,
    no_cache: bool,
    cache_dir: Path | None,
    jobs: int | None,
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
        known = None if write_baseline is not None else _baseline(baseline, configurations)
        cache = None if no_cache else Cache(cache_dir or default_folder())
        run = _run(ctx, targets, stdin_filename, configurations, known, cache, jobs or _cpu_count())
        if write_baseline is not None:
            found = run.check().findings
            baselines.write_baseline(write_baseline, found)
            click.echo(f"{_findings(len(found))} written to {write_baseline}", err=True)
            return
        if diff:
            _print_diff(ctx, run, unsafe=unsafe_fixes, exit_zero=exit_zero)
            return
        fixed = run.fix(unsafe=unsafe_fixes) if fix else Fixed(run.check())
        for path, content in fixed.changed.items():
            if path not in run.contents:
                path.write_bytes(content)
        docs_url = run.configurations.of_folder(Path.cwd()).docs_url or published_docs()
        text = FORMATS[report_format](fixed.report, Surroundings(docs_url, tuple(_remarks(run, fixed))))
    except (WorkflowValidationError, ValueError) as error:
        raise CommandError(str(error)) from error
    if fix and run.contents:
        # As with other formatters of standard input: the file goes to standard output, what is left to standard error.
        (path,) = run.contents
        sys.stdout.flush()
        sys.stdout.buffer.write(fixed.changed.get(path, run.contents[path]))
        click.echo(text, err=True)
    else:
        write_report(f"{text}\n" if text else "", output)
    _print_hints(fixed, targets)
    if statistics:
        _print_statistics(fixed.report)
    if not exit_zero and any(each.severity is not Severity.NOTE for each in fixed.report.findings):
        ctx.exit(ExitCode.FINDINGS)


def _print_diff(ctx: click.Context, run: Run, *, unsafe: bool, exit_zero: bool) -> None:
    fixed = run.fix(unsafe=unsafe)
    write(run.diff(fixed.changed))
    count = fixed.safe + fixed.unsafe
    click.echo(f"would fix {_findings(count)}" if count else "nothing to fix", err=True)
    _print_note_on_unsafe(fixed)
    if count and not exit_zero:
        ctx.exit(ExitCode.FINDINGS)


def _remarks(run: Run, fixed: Fixed) -> Iterator[str]:
    """What people are told about fixes below the summary."""
    count = fixed.safe + fixed.unsafe
    if count:
        yield f"{_findings(count)} fixed"
    if fixed.report.known:
        yield f"{_findings(fixed.report.known)} of the baseline not shown"
    safe, unsafe = run.fixable(fixed.report, fixed.changed)
    if safe:
        yield f"{safe} can be fixed with --fix" + (f", {unsafe} more with --fix --unsafe-fixes" if unsafe else "")
    elif unsafe:
        yield f"{unsafe} can be fixed with --fix --unsafe-fixes"


def _findings(count: int) -> str:
    return f"{count} finding" if count == 1 else f"{count} findings"


def _print_note_on_unsafe(fixed: Fixed) -> None:
    if fixed.unsafe:
        click.echo(
            f"note: {fixed.unsafe} of the fixes are unsafe. Those that add an operation to the history are for new"
            " instances: running ones do not replay with them. Finish or version these before you deploy the change.",
            err=True,
        )


def _run(
    ctx: click.Context,
    targets: tuple[str, ...],
    filename: Path | None,
    configurations: Configurations,
    baseline: Baseline | None,
    cache: Cache | None,
    jobs: int,
) -> Run:
    """The run that the arguments ask for."""
    if _STDIN not in targets:
        if filename is not None:
            raise click.UsageError("--stdin-filename needs the target '-', which stands for standard input", ctx)
        return Run.of_targets(targets or (".",), configurations, cache=cache, baseline=baseline, jobs=jobs)
    if len(targets) > 1:
        raise click.UsageError("'-' stands for standard input, and can be the only target", ctx)
    path = filename or Path("stdin.py")
    return Run.of_content(path, sys.stdin.buffer.read(), configurations, baseline=baseline)


def _cpu_count() -> int:
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _baseline(given: Path | None, configurations: Configurations) -> Baseline | None:
    path = given or configurations.of_folder(Path.cwd()).baseline
    return None if path is None else Baseline.read(path)


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


def _print_hints(fixed: Fixed, targets: tuple[str, ...]) -> None:
    """Say on standard error what is to be known about unsafe fixes, and what looks like a check of nothing."""
    report = fixed.report
    _print_note_on_unsafe(fixed)
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
