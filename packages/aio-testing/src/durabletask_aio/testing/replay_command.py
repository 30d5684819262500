"""`durabletask-aio replay`: a folder of recorded histories against the code that is about to be deployed."""

from __future__ import annotations

import glob
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from xml.etree import ElementTree as ET

import click

from durabletask_aio.core.command_line import (
    CommandError,
    ExitCode,
    json_option,
    run_command,
    select_format,
    write_report,
)
from durabletask_aio.testing import replayer
from durabletask_aio.testing.divergence import ReplayError
from durabletask_aio.testing.history import History
from durabletask_aio.testing.history_codec import HistoryFormatError
from durabletask_aio.testing.history_files import MAX_SIZE
from durabletask_aio.testing.orchestrators import OrchestratorLookupError, load_orchestrators
from durabletask_aio.testing.verify import OtherProcessError, replay_under_hash_seeds, verify_deterministic

_SECONDS_BETWEEN_PROGRESS_LINES = 5.0

_EPILOG = """\
\b
examples:
  durabletask-aio replay --orchestrators my.workflows histories/
  durabletask-aio replay --orchestrators my.workflows --format junit -o replay.xml histories/
  durabletask-aio replay --orchestrators my.workflows:place_order=order histories/order-*.json

The exit code is 0 if every history replays, 1 if one does not, 2 if something could not be read or found.
"""


@dataclass
class _Outcome:
    """What became of one history; the fields are the keys of the JSON report."""

    path: str
    workflow: str
    steps: int
    seconds: float
    error: str | None


@dataclass(frozen=True)
class _How:
    """The options of the replays."""

    twice: bool
    payloads: bool
    sandbox_mode: str | None


@click.command(
    "replay", short_help="Replay recorded histories against today's code: is it safe to deploy?", epilog=_EPILOG
)
@click.argument("histories", nargs=-1, required=True, metavar="HISTORY...", type=click.Path())
@click.option(
    "--orchestrators",
    multiple=True,
    required=True,
    metavar="MODULE[:FUNCTION[=NAME]]",
    help="The module that has the orchestrators, as one imports it; or one function in it, and the name it is "
    "registered under if that is not its own; may be repeated.",
)
@click.option(
    "--twice",
    is_flag=True,
    help="Replay each history also cut at every event, as if the worker had been restarted there (of a longer one, at "
    "a hundred), and all of them in new processes under two hash seeds: this finds code that looks at is_replaying or "
    "depends on the order of a set.",
)
@click.option(
    "--structure-only",
    is_flag=True,
    help="Compare names and targets only, not inputs, results and times: for redacted histories.",
)
@click.option(
    "--sandbox-mode",
    type=click.Choice(["off", "best_effort", "strict"]),
    help="The sandbox mode of workflows that have none of their own; default: off.",
)
@click.option(
    "--max-size",
    type=click.IntRange(min=1),
    default=MAX_SIZE // 2**20,
    show_default=True,
    metavar="MIB",
    help="Refuse histories that are larger, decompressed.",
)
@click.option(
    "--format", "format_", type=click.Choice(["text", "json", "junit"]), help="Format of the report; default: text."
)
@json_option
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write the report to a file.")
@click.pass_context
def replay(
    ctx: click.Context,
    histories: tuple[str, ...],
    orchestrators: tuple[str, ...],
    twice: bool,
    structure_only: bool,
    sandbox_mode: str | None,
    max_size: int,
    format_: str | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Replay recorded histories against today's code: is it safe to deploy?

    Histories are files written by History.save or by upstream's history export, or folders of them.
    """
    began = time.perf_counter()
    report_format = select_format(format_, as_json)
    try:
        # Modules print while they are imported, and workflows while they run; that must not end up in a report.
        with nullcontext() if report_format == "text" else redirect_stdout(sys.stderr):
            how = _How(twice=twice, payloads=not structure_only, sandbox_mode=sandbox_mode)
            outcomes = _replay_all(histories, orchestrators, how, max_size=max_size * 2**20)
    except (OrchestratorLookupError, HistoryFormatError, OtherProcessError) as error:
        raise CommandError(str(error)) from error
    write_report(_FORMATS[report_format](outcomes, time.perf_counter() - began), output)
    if any(outcome.error for outcome in outcomes):
        ctx.exit(ExitCode.FINDINGS)


def _replay_all(patterns: Sequence[str], references: Sequence[str], how: _How, *, max_size: int) -> Sequence[_Outcome]:
    orchestrators = load_orchestrators(references)
    histories = [(path, _load(path, orchestrators, max_size)) for path in _history_files(patterns)]
    outcomes: list[_Outcome] = []
    last_line = time.perf_counter()
    for number, (path, history) in enumerate(histories, start=1):
        orchestrator = orchestrators[history.workflow_name or ""]
        with _reraising_interrupts():
            outcomes.append(_replay_one(path, history, orchestrator, how))
        if time.perf_counter() - last_line > _SECONDS_BETWEEN_PROGRESS_LINES:
            last_line = time.perf_counter()
            click.echo(f"{number} of {len(histories)} histories replayed", err=True)
    if how.twice:
        _replay_in_other_processes(outcomes, [history for _, history in histories], references, how)
    return outcomes


@contextmanager
def _reraising_interrupts() -> Iterator[None]:
    """Let Ctrl-C end the command also when it interrupts workflow code, of which it then is a failure."""
    interrupted = False

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, or handled by other code
        yield
        return
    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupted:
        raise KeyboardInterrupt


def _history_files(patterns: Sequence[str]) -> list[str]:
    """Expand patterns and folders; each of them must lead to a file."""
    paths: list[str] = []
    for pattern in patterns:
        # A shell has usually done this already; that of Windows has not.
        found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
        if not found:
            raise CommandError(f"no file matches {pattern!r}")
        for path in map(Path, found):
            inside = sorted(each for kind in ("*.json", "*.jsonl.gz") for each in path.rglob(kind))
            # Replaying nothing would be a success, and a typing error in a CI file would stay unseen.
            if path.is_dir() and not inside:
                raise CommandError(f"there is no history in the folder {str(path)!r}: no *.json, no *.jsonl.gz")
            paths += map(str, inside or [path])
    return paths


def _load(path: str, orchestrators: dict[str, Callable[..., object]], max_size: int) -> History:
    history = History.load(path, max_size=max_size)
    name = history.workflow_name
    if name is None:
        raise CommandError(f"{path} does not say which workflow was started; is it the whole history?")
    if name not in orchestrators:
        raise CommandError(
            f"{path} is a history of {name!r}; the orchestrators found are: {', '.join(sorted(orchestrators))}. "
            f"For one that is registered under another name than its own: --orchestrators module:function={name}"
        )
    return history


def _replay_one(path: str, history: History, orchestrator: Callable[..., object], how: _How) -> _Outcome:
    began = time.perf_counter()
    error: str | None = None
    steps = 0
    try:
        options: Any = {"payloads": how.payloads, "sandbox_mode": how.sandbox_mode}
        if how.twice:
            steps = verify_deterministic(history, orchestrator, hash_seeds=(), **options).steps
        else:
            steps = replayer.replay(history, orchestrator, **options).steps
    except ReplayError as found:
        error = str(found)
    except HistoryFormatError as found:
        raise HistoryFormatError(f"{path}: {found}") from found
    return _Outcome(path, history.workflow_name or "", steps, time.perf_counter() - began, error)


def _replay_in_other_processes(
    outcomes: Sequence[_Outcome], histories: Sequence[History], references: Sequence[str], how: _How
) -> None:
    """Replay those that pass once more, in one process for each hash seed, since starting one takes longest."""
    passed = [(outcome, history) for outcome, history in zip(outcomes, histories, strict=True) if not outcome.error]
    options = () if how.sandbox_mode is None else ("--sandbox-mode", how.sandbox_mode)
    errors = replay_under_hash_seeds(
        [history for _, history in passed], references, payloads=how.payloads, options=options
    )
    for (outcome, _), error in zip(passed, errors, strict=True):
        outcome.error = None if error is None else str(error)


def _text(outcomes: Sequence[_Outcome], seconds: float) -> str:
    lines: list[str] = []
    for outcome in outcomes:
        if outcome.error is None:
            steps = f"{outcome.steps} step{'' if outcome.steps == 1 else 's'}"
            lines.append(f"ok    {outcome.path}   {outcome.workflow}, {steps}")
        else:
            lines.append(f"FAIL  {outcome.path}")
            lines += [f"      {line}" for line in outcome.error.splitlines()]
    failed = sum(outcome.error is not None for outcome in outcomes)
    rate = len(outcomes) / seconds if seconds else 0.0
    lines.append(f"{len(outcomes)} replayed, {failed} failed in {seconds:.2f} s ({rate:.0f} a second)")
    return "\n".join(lines) + "\n"


def _json(outcomes: Sequence[_Outcome], seconds: float) -> str:
    document = {
        "histories": [asdict(outcome) for outcome in outcomes],
        "failed": sum(outcome.error is not None for outcome in outcomes),
        "seconds": round(seconds, 3),
    }
    return json.dumps(document, indent=2) + "\n"


def _junit(outcomes: Sequence[_Outcome], seconds: float) -> str:
    suite = ET.Element(
        "testsuite",
        name="durabletask-aio replay",
        tests=str(len(outcomes)),
        failures=str(sum(outcome.error is not None for outcome in outcomes)),
        errors="0",
        time=f"{seconds:.3f}",
    )
    for outcome in outcomes:
        case = ET.SubElement(
            suite, "testcase", classname=outcome.workflow, name=outcome.path, time=f"{outcome.seconds:.3f}"
        )
        if outcome.error is not None:
            text = _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", outcome.error)
            failure = ET.SubElement(case, "failure", message=text.splitlines()[0])
            failure.text = text
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


# Messages of failures hold whatever programs put there, such as the colours of a terminal.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_FORMATS: dict[str, Callable[[Sequence[_Outcome], float], str]] = {"text": _text, "json": _json, "junit": _junit}


if __name__ == "__main__":  # how `--twice` starts the processes that have another hash seed
    sys.exit(run_command(replay, prog_name="durabletask-aio replay"))
