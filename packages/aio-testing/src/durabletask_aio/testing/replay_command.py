"""``durabletask-aio replay``: a folder of recorded histories against the code that is about to be deployed."""

from __future__ import annotations

import argparse
import glob
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from durabletask_aio.testing import terminal
from durabletask_aio.testing.divergence import ReplayError
from durabletask_aio.testing.history import History
from durabletask_aio.testing.history_codec import HistoryFormatError
from durabletask_aio.testing.orchestrators import OrchestratorLookupError, load_orchestrators
from durabletask_aio.testing.replayer import replay
from durabletask_aio.testing.verify import OtherProcessError, replay_under_hash_seeds, verify_deterministic

_SECONDS_BETWEEN_SIGNS_OF_LIFE = 5.0

_EXAMPLES = """\
examples:
  durabletask-aio replay --orchestrators my.workflows histories/
  durabletask-aio replay --orchestrators my.workflows --format junit -o replay.xml histories/
  durabletask-aio replay --orchestrators my.workflows:place_order=order histories/order-*.json

The status is 0 if every history replays, 1 if one does not, 2 if something could not be read or found.
"""


@dataclass
class _Outcome:
    path: str
    workflow: str
    steps: int
    seconds: float
    error: str | None


class _UsageError(Exception):
    """Said on standard error; status 2."""


class ReplayCommand:
    """Status 0 if every history replays, 1 if one does not, 2 if something could not be read or found."""

    help = "replay recorded histories against today's code: is it safe to deploy?"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = _EXAMPLES
        parser.add_argument(
            "histories",
            nargs="+",
            metavar="HISTORY",
            help="a file written by History.save or by upstream's history export, or a folder of them",
        )
        parser.add_argument(
            "--orchestrators",
            action="append",
            required=True,
            metavar="MODULE[:FUNCTION[=NAME]]",
            help="the module that has the orchestrators, as one imports it; or one function in it, and the name it is "
            "registered under if that is not its own; may be given several times",
        )
        parser.add_argument(
            "--twice",
            action="store_true",
            help="replay each history also cut at every event, as if the worker had been restarted there (of a longer "
            "one, at a hundred), and all of them in new processes under two hash seeds: this finds code that looks at "
            "is_replaying or depends on the order of a set",
        )
        parser.add_argument(
            "--structure-only",
            action="store_true",
            help="compare names and targets only, not inputs, results and times: for redacted histories",
        )
        parser.add_argument(
            "--format", choices=["text", "json", "junit"], default="text", help="of the report (default: %(default)s)"
        )
        parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write the report there")

    def run(self, arguments: argparse.Namespace) -> int:
        try:
            return _run(arguments)
        except (_UsageError, OrchestratorLookupError, HistoryFormatError, OtherProcessError, OSError) as error:
            terminal.complain("replay", error)
            return 2


def _run(arguments: argparse.Namespace) -> int:
    began = time.perf_counter()
    orchestrators = load_orchestrators(arguments.orchestrators)
    paths = _expand(arguments.histories)
    histories = [(path, _load(path, orchestrators)) for path in paths]
    outcomes: list[_Outcome] = []
    last_sign = began
    for number, (path, history) in enumerate(histories, start=1):
        outcomes.append(_replay(path, history, orchestrators[history.workflow_name or ""], arguments))
        if time.perf_counter() - last_sign > _SECONDS_BETWEEN_SIGNS_OF_LIFE:
            last_sign = time.perf_counter()
            print(f"{number} of {len(histories)} histories replayed", file=sys.stderr, flush=True)
    if arguments.twice:
        _replay_elsewhere(outcomes, histories, arguments)
    text = _FORMATS[arguments.format](outcomes, time.perf_counter() - began)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text, encoding="utf-8")
    else:
        terminal.write(text)
    return 1 if any(outcome.error for outcome in outcomes) else 0


def _expand(patterns: Sequence[str]) -> list[str]:
    paths: list[str] = []
    for pattern in patterns:
        # A shell has usually done this already; that of Windows has not.
        found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
        if not found:
            raise _UsageError(f"no file matches {pattern!r}")
        for path in map(Path, found):
            inside = sorted(each for kind in ("*.json", "*.jsonl.gz") for each in path.rglob(kind))
            # Replaying nothing would be a success, and a typing error in a CI file would stay unseen.
            if path.is_dir() and not inside:
                raise _UsageError(f"there is no history in the folder {str(path)!r}: no *.json, no *.jsonl.gz")
            paths += map(str, inside or [path])
    return paths


def _load(path: str, orchestrators: dict[str, Callable[..., object]]) -> History:
    history = History.load(path)
    name = history.workflow_name
    if name is None:
        raise _UsageError(f"{path} does not say which workflow was started; is it the whole history?")
    if name not in orchestrators:
        raise _UsageError(
            f"{path} is a history of {name!r}; the orchestrators found are: {', '.join(sorted(orchestrators))}. "
            f"For one that is registered under another name than its own: --orchestrators module:function={name}"
        )
    return history


def _replay(
    path: str, history: History, orchestrator: Callable[..., object], arguments: argparse.Namespace
) -> _Outcome:
    began = time.perf_counter()
    payloads = not arguments.structure_only
    error: str | None = None
    steps = 0
    try:
        if arguments.twice:
            steps = verify_deterministic(history, orchestrator, payloads=payloads, hash_seeds=()).steps
        else:
            steps = replay(history, orchestrator, payloads=payloads).steps
    except ReplayError as found:
        error = str(found)
    return _Outcome(path, history.workflow_name or "", steps, time.perf_counter() - began, error)


def _replay_elsewhere(
    outcomes: Sequence[_Outcome], histories: Sequence[tuple[str, History]], arguments: argparse.Namespace
) -> None:
    """Replay those that pass once more, in other processes: one for all of them, since starting it takes longest."""
    passed = [
        (outcome, history) for outcome, (_, history) in zip(outcomes, histories, strict=True) if not outcome.error
    ]
    errors = replay_under_hash_seeds(
        [history for _, history in passed], arguments.orchestrators, payloads=not arguments.structure_only
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
        "histories": [vars(outcome) for outcome in outcomes],
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


# Messages of failures hold what programs put there, colours of a terminal, say.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_FORMATS: dict[str, Callable[[Sequence[_Outcome], float], str]] = {"text": _text, "json": _json, "junit": _junit}

COMMAND = ReplayCommand()


def main() -> int:
    """For ``python -m``: a process of its own under another hash seed."""
    parser = argparse.ArgumentParser(prog="durabletask-aio replay", description=COMMAND.help)
    COMMAND.configure(parser)
    return COMMAND.run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
