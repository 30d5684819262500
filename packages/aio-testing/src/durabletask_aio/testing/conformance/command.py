"""`durabletask-aio conformance`: whether an engine does what workflows rely on."""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from durabletask_aio.core.command_line import (
    CommandError,
    ExitCode,
    json_option,
    select_format,
    write,
    write_report,
)
from durabletask_aio.testing.conformance.engine_process import EngineProcess, EngineStartError, answers
from durabletask_aio.testing.conformance.outcomes import Outcome
from durabletask_aio.testing.conformance.registry import (
    Scenario,
    load_scenarios,
    scenario_modules,
    select_scenarios,
)
from durabletask_aio.testing.conformance.report import summary, text_line, to_json, to_markdown
from durabletask_aio.testing.conformance.settings import Settings
from durabletask_aio.testing.conformance.supervisor import Result, Supervisor

_OCCUPIED_SECONDS = 0.2
"""How long to look whether an engine is there already."""

_PROGRESS_LINES = 10
"""After how many scenarios that work there is a line on standard error."""

_EPILOG = """\
\b
examples:
  durabletask-aio conformance localhost:4001
  durabletask-aio conformance localhost:4001 --only events --only 'locks.*'
  durabletask-aio conformance localhost:4002 --engine-command "my-engine --port 4002 --file engine.db"

It starts workers and instances of its own, and removes what it has started. No other worker may be connected to the
engine's task hub, unless it asks for its own work items only.

The exit code is 0 if everything that was run works, 1 if something does not, 2 if the engine cannot be reached.
"""


@click.command(
    "conformance", short_help="Run about two hundred scenarios against an engine, and say which work.", epilog=_EPILOG
)
@click.argument("address", required=False)
@click.option(
    "--only",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Run the scenarios of a subject, or those whose names match, such as events.*; may be repeated.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many scenarios run at a time. With more than one, workers ask for their own work items only, and the "
    "engine has to support that.",
)
@click.option(
    "--engine-command",
    metavar="CMD",
    help="A command that runs the engine at ADDRESS. It is started for the run, and ended with SIGKILL and started "
    "again by the scenarios of such accidents, which are not run otherwise.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(1.0),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds after which a scenario hangs; those with more to do have a multiple of it.",
)
@click.option(
    "--long-activity",
    type=click.FloatRange(0.0),
    default=150.0,
    show_default=True,
    metavar="S",
    help="Seconds that the long activity takes. Workers take a connection that is silent for two minutes for dead.",
)
@click.option(
    "--connect-timeout",
    type=click.FloatRange(0.0),
    default=10.0,
    show_default=True,
    metavar="S",
    help="Seconds to wait for the engine to answer at all.",
)
@click.option("--tls", is_flag=True, help="Connect with TLS.")
@click.option(
    "--metadata",
    multiple=True,
    metavar="KEY=VALUE",
    help="A header for every call, such as taskhub=default; may be repeated.",
)
@click.option("--list", "list_only", is_flag=True, help="List the scenarios, and run none.")
@click.option(
    "--module",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="Run the scenarios of this module, as one imports it, instead of those that come with the command; may be "
    "repeated.",
)
@click.option(
    "--logs",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the log of each scenario, and of the engine if a command starts it.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json", "markdown"]),
    help="Format of the report; default: text.",
)
@json_option
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write the report to a file.")
@click.pass_context
def conformance(
    ctx: click.Context,
    address: str | None,
    patterns: tuple[str, ...],
    jobs: int,
    engine_command: str | None,
    timeout: float,
    long_activity: float,
    connect_timeout: float,
    tls: bool,
    metadata: tuple[str, ...],
    list_only: bool,
    modules: tuple[str, ...],
    logs: Path | None,
    format_: str | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Run about two hundred scenarios against an engine, and say which work.

    ADDRESS is where the engine listens, such as localhost:4001. Each scenario runs in a process of its own, with a
    worker and a client as a program would use them.
    """
    report_format = select_format(format_, as_json)
    scenarios = _selected(modules, patterns)
    if list_only:
        write("".join(f"{each.name}  {each.description}\n" for each in scenarios))
        return
    if address is None:
        raise click.UsageError("Missing argument 'ADDRESS'.", ctx)
    settings = Settings(
        address=address,
        run_id=uuid.uuid4().hex[:6],
        timeout=timeout,
        long_activity=long_activity,
        tls=tls,
        metadata=[_header(ctx, each) for each in metadata],
        filters=jobs > 1,
    )
    began = time.monotonic()
    streaming = report_format == "text" and output is None
    with _log_folder(logs) as folder, _engine(settings, engine_command, connect_timeout, folder) as engine:
        supervisor = Supervisor(settings, engine, folder)
        results = asyncio.run(supervisor.run(scenarios, jobs, _Progress(len(scenarios), table=streaming)))
    seconds = time.monotonic() - began
    if report_format == "json":
        write_report(to_json(results, seconds, address), output)
    elif report_format == "markdown":
        write_report(to_markdown(results, seconds), output)
    elif streaming:
        write(summary(results, seconds))
    else:
        write_report("".join(map(text_line, results)) + summary(results, seconds), output)
    if any(each.outcome not in (Outcome.WORKS, Outcome.NOT_RUN) for each in results):
        ctx.exit(ExitCode.FINDINGS)


def _selected(modules: Sequence[str], patterns: Sequence[str]) -> list[Scenario]:
    try:
        found = load_scenarios(modules or scenario_modules())
    except ImportError as error:
        raise CommandError(f"a module of scenarios cannot be imported: {error}") from error
    try:
        selected = select_scenarios(found, patterns)
    except LookupError as error:
        raise CommandError(str(error.args[0])) from error
    return sorted(selected, key=lambda each: (each.kills_engine, each.alone))  # in the order in which they run


def _header(ctx: click.Context, text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise click.UsageError(f"--metadata is KEY=VALUE, not {text!r}", ctx)
    return key, value


@contextmanager
def _log_folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        yield Path(folder)


@contextmanager
def _engine(
    settings: Settings, command: str | None, connect_timeout: float, logs: Path
) -> Iterator[EngineProcess | None]:
    """Make sure that an engine answers, which is started here if there is a command for it."""
    if command is None:
        if not answers(settings, connect_timeout):
            raise CommandError(f"no engine answers at {settings.address}")
        yield None
        return
    if answers(settings, _OCCUPIED_SECONDS):
        raise CommandError(
            f"something listens at {settings.address} already; --engine-command starts the engine itself"
        )
    engine = EngineProcess(command, settings, logs / "engine.log")
    try:
        try:
            engine.start()
        except (EngineStartError, OSError) as error:
            raise CommandError(f"--engine-command: {error}") from error
        yield engine
    finally:
        engine.stop()


class _Progress:
    """Shows results as they come: as lines of the table, or, if that goes elsewhere, on standard error."""

    def __init__(self, total: int, *, table: bool) -> None:
        self._total = total
        self._table = table
        self._done = 0

    def __call__(self, result: Result) -> None:
        self._done += 1
        if self._table:
            write(text_line(result))
        elif result.outcome is not Outcome.WORKS or self._done % _PROGRESS_LINES == 0:
            click.echo(f"{self._done} of {self._total}: {result.scenario.name}: {result.outcome.value}", err=True)
