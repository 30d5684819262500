"""``durabletask-aio replay``: a folder of recorded histories against the code that is about to be deployed."""

from __future__ import annotations

import argparse
import glob
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from durabletask_aio.testing.divergence import ReplayError
from durabletask_aio.testing.history import History
from durabletask_aio.testing.history_codec import HistoryFormatError
from durabletask_aio.testing.orchestrators import OrchestratorLookupError, load_orchestrators
from durabletask_aio.testing.replayer import replay
from durabletask_aio.testing.verify import HASH_SEEDS, replay_under_hash_seeds, verify_deterministic

_SECONDS_BETWEEN_SIGNS_OF_LIFE = 5.0


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

    help = "replay recorded histories against today's code"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("histories", nargs="+", help="files written by History.save or upstream's history export")
        parser.add_argument(
            "--orchestrators",
            action="append",
            required=True,
            metavar="MODULE[:FUNCTION[=NAME]]",
            help="where the orchestrators are, and under which name one is registered; may be given several times",
        )
        parser.add_argument(
            "--twice",
            action="store_true",
            help="replay also cut at every event, and in new processes under two hash seeds",
        )
        parser.add_argument(
            "--structure-only",
            action="store_true",
            help="compare names and targets only, not inputs, results and times: for redacted histories",
        )
        parser.add_argument("--format", choices=["text", "json", "junit"], default="text")
        parser.add_argument("-o", "--output", type=Path, help="write there and not to standard output")

    def run(self, arguments: argparse.Namespace) -> int:
        began = time.perf_counter()
        try:
            orchestrators = load_orchestrators(arguments.orchestrators)
            paths = _expand(arguments.histories)
            histories = [(path, _load(path, orchestrators)) for path in paths]
        except (_UsageError, OrchestratorLookupError, HistoryFormatError, OSError) as error:
            print(f"durabletask-aio replay: {error}", file=sys.stderr)
            return 2
        outcomes: list[_Outcome] = []
        last_sign = began
        for number, (path, history) in enumerate(histories, start=1):
            outcomes.append(_replay(path, history, orchestrators, arguments))
            if time.perf_counter() - last_sign > _SECONDS_BETWEEN_SIGNS_OF_LIFE:
                last_sign = time.perf_counter()
                print(f"{number} of {len(histories)} histories replayed", file=sys.stderr, flush=True)
        text = _FORMATS[arguments.format](outcomes, time.perf_counter() - began)
        if arguments.output is not None:
            arguments.output.write_text(text, encoding="utf-8")
        else:
            sys.stdout.write(text)
        return 1 if any(outcome.error for outcome in outcomes) else 0


def _expand(patterns: Sequence[str]) -> list[str]:
    paths: list[str] = []
    for pattern in patterns:
        # A shell has usually done this already; that of Windows has not.
        found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
        for path in found:
            paths += sorted(str(each) for each in Path(path).glob("**/*.json")) if Path(path).is_dir() else [path]
        if not found:
            raise _UsageError(f"no file matches {pattern!r}")
    return paths


def _load(path: str, orchestrators: dict[str, Callable[..., Any]]) -> History:
    history = History.load(path)
    if history.workflow_name is None:
        raise _UsageError(f"{path} does not say which workflow was started; is it the whole history?")
    if history.workflow_name not in orchestrators:
        known = ", ".join(sorted(orchestrators)) or "none"
        raise _UsageError(f"{path} is a history of {history.workflow_name!r}; the orchestrators found are: {known}")
    return history


def _replay(
    path: str, history: History, orchestrators: dict[str, Callable[..., Any]], arguments: argparse.Namespace
) -> _Outcome:
    began = time.perf_counter()
    name = history.workflow_name or ""
    orchestrator = orchestrators[name]
    payloads = not arguments.structure_only
    error: str | None = None
    steps = 0
    try:
        if arguments.twice:
            steps = verify_deterministic(history, orchestrator, payloads=payloads, hash_seeds=()).steps
            for reference in _references(name, arguments.orchestrators):
                replay_under_hash_seeds(history, reference, payloads=payloads, hash_seeds=HASH_SEEDS)
        else:
            steps = replay(history, orchestrator, payloads=payloads).steps
    except ReplayError as found:
        error = str(found)
    return _Outcome(path, name, steps, time.perf_counter() - began, error)


def _references(name: str, references: Sequence[str]) -> list[str]:
    return [reference for reference in references if name in load_orchestrators([reference])][:1]


def _text(outcomes: Sequence[_Outcome], seconds: float) -> str:
    lines: list[str] = []
    for outcome in outcomes:
        if outcome.error is None:
            lines.append(f"ok    {outcome.path}   {outcome.workflow}, {outcome.steps} steps")
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
            failure = ET.SubElement(case, "failure", message=outcome.error.splitlines()[0])
            failure.text = outcome.error
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


_FORMATS: dict[str, Callable[[Sequence[_Outcome], float], str]] = {"text": _text, "json": _json, "junit": _junit}

COMMAND = ReplayCommand()


def main() -> int:
    """For ``python -m``: a process of its own under another hash seed."""
    parser = argparse.ArgumentParser(prog="durabletask-aio replay", description=COMMAND.help)
    COMMAND.configure(parser)
    return COMMAND.run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
