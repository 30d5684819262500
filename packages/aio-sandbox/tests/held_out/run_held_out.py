"""Measure how many of the held-out snippets, which the sandbox was not developed with, it detects.

    python run_held_out.py            # this Python: a table, and every miss and false positive
    python run_held_out.py --json     # the same as one JSON object: column -> snippet -> outcome

Every snippet runs in a process of its own, once per sandbox mode, as one instance from start to end. The checker runs
once over all of them as they are, and once with `workflow` named as an orchestrator (half of the snippets do not
annotate `ctx`, and none registers its workflow).
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TURNS = HERE.parents[2] / "aio-core" / "tests" / "support"
INPUT = {"order": "A-17", "items": ["pear", "apple", "fig"], "amount": 120}
MODES = ("best_effort", "strict")
COLUMNS = (*MODES, "check", "check --orchestrator workflow")

CAUGHT = "caught"
"""A `NonDeterminismWarning`, a `SandboxViolationError` at registration or in the failure, or a finding."""
STOPPED = "stopped"
"""Registration or the instance failed, but with another error: not counted as caught."""
SILENT = "silent"


def snippets() -> dict[str, Path]:
    """Identifier -> file: B01 and following are bad, I01 and following are innocent."""
    found = {}
    for letter, folder in (("B", "bad"), ("I", "innocent")):
        for path in sorted((HERE / folder).glob("[0-9]*.py")):
            if not _needs_newer(path):
                found[letter + path.stem[:2]] = path
    return found


def _needs_newer(path: Path) -> bool:
    for line in path.read_text().splitlines():
        if line.startswith("# needs: Python "):
            needed = tuple(int(part) for part in line.rpartition(" ")[2].split("."))
            return sys.version_info[:2] < needed
    return False


def _lay_out(identifier: str, path: Path, folder: Path) -> str:
    """Copy a snippet, and the modules it imports, into the layout of a project; return the name of its module."""
    module = f"{identifier.lower()}{path.stem[2:]}"
    shutil.copy(path, folder / f"{module}.py")
    for companion in (path.parent / "modules" / path.stem).glob("*.py"):
        shutil.copy(companion, folder / companion.name)
    return module


# -- one snippet in one mode, in this process -------------------------------------------------------------------------


def run_here(module: str, mode: str) -> dict[str, Any]:
    """Import a snippet from the current directory, run it, and return what was detected."""
    sys.path[:0] = [os.getcwd(), str(TURNS)]
    from durabletask.aio import NonDeterminismWarning, as_orchestrator
    from turns import FAILED, Instance

    seen: dict[str, Any] = {"outcome": SILENT, "errors": [], "warnings": []}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        snippet = importlib.import_module(module)
        activities: dict[str, Any] = {
            function.__name__: (lambda value, function=function: function(None, value))
            for function in getattr(snippet, "ACTIVITIES", ())
        }
        try:
            orchestrator = as_orchestrator(snippet.workflow, sandbox_mode=mode)
        except Exception as error:
            seen["errors"].append(f"at registration: {type(error).__name__}: {error}")
        else:
            instance = Instance(orchestrator, INPUT).run(activities)
            if instance.outcome is None:
                seen["errors"].append("NotDone: nothing outstanding, and no outcome")
            elif instance.outcome.orchestrationStatus == FAILED:
                seen["errors"] += _chain(instance.outcome.failureDetails)
        gc.collect()  # so that coroutines that are never awaited warn
    seen["warnings"] = [f"{warning.category.__name__}: {warning.message}" for warning in caught]
    warned = any(issubclass(warning.category, NonDeterminismWarning) for warning in caught)
    refused = any("SandboxViolationError" in error for error in seen["errors"])
    if refused or (warned and mode != "strict"):  # strict promises errors, so a warning does not count
        seen["outcome"] = CAUGHT
    elif seen["errors"]:
        seen["outcome"] = STOPPED
    return seen


def _chain(details: Any) -> list[str]:
    chain = [f"{details.errorType}: {details.errorMessage}"]
    while details.HasField("innerFailure"):
        details = details.innerFailure
        chain.append(f"{details.errorType}: {details.errorMessage}")
    return chain


# -- all of them, each in a process of its own ------------------------------------------------------------------------


def measure(modes: tuple[str, ...] = MODES) -> dict[str, dict[str, Any]]:
    """Column -> snippet -> outcome."""
    columns: dict[str, dict[str, Any]] = {mode: {} for mode in modes}
    for identifier, path in snippets().items():
        for mode in modes:
            with tempfile.TemporaryDirectory() as folder:
                module = _lay_out(identifier, path, Path(folder))
                columns[mode][identifier] = _run_apart(module, mode, folder)
    if modes == MODES:
        columns[COLUMNS[2]] = _check([])
        columns[COLUMNS[3]] = _check(["--orchestrator", "workflow"])
    return columns


def _environment() -> dict[str, str]:
    ours = ("DAPR_WF_", "DT_", "PYTHONHASHSEED", "PYTHONWARNINGS", "PYTHONPATH")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}


def _run_apart(module: str, mode: str, folder: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--here", module, mode],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith("seen: "):
            return json.loads(line[len("seen: ") :])
    return {"outcome": STOPPED, "errors": [f"exit code {done.returncode}: {done.stderr[-500:]}"], "warnings": []}


def _check(options: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        owner = {}
        for identifier, path in snippets().items():
            before = {file.name for file in Path(folder).iterdir()}
            _lay_out(identifier, path, Path(folder))
            owner.update({file.name: identifier for file in Path(folder).iterdir() if file.name not in before})
        command = "from durabletask_aio.core.cli import main; import sys; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", command, "check", ".", "--format", "json", *options],
            cwd=folder,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the checker ended with {done.returncode}: {done.stderr}")
    seen: dict[str, dict[str, Any]] = {
        identifier: {"outcome": SILENT, "errors": [], "warnings": []} for identifier in snippets()
    }
    for finding in json.loads(done.stdout)["findings"]:
        entry = seen[owner[Path(finding["file"]).name]]
        entry["outcome"] = CAUGHT
        level = "errors" if finding["severity"] == "error" else "warnings"
        entry[level].append(f"{finding['code']} line {finding['line']}: {finding['message']}")
    return seen


# -- counting ---------------------------------------------------------------------------------------------------------


def counts(columns: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Per column: the number of bad and innocent snippets, and of each outcome."""
    table = {}
    for column, seen in columns.items():
        bad = [entry["outcome"] for identifier, entry in seen.items() if identifier[0] == "B"]
        innocent = [entry["outcome"] for identifier, entry in seen.items() if identifier[0] == "I"]
        table[column] = {
            "bad": len(bad),
            "caught": bad.count(CAUGHT),
            "stopped": bad.count(STOPPED),
            "innocent": len(innocent),
            "false positives": innocent.count(CAUGHT),
            "innocent stopped": innocent.count(STOPPED),
        }
    return table


def _print(columns: dict[str, dict[str, Any]]) -> None:
    for column, row in counts(columns).items():
        print(f"{column}: " + ", ".join(f"{name} {count}" for name, count in row.items()))
    for column, seen in columns.items():
        print(f"\n{column}")
        for identifier, entry in seen.items():
            if (entry["outcome"] == CAUGHT) != (identifier[0] == "B"):
                if identifier[0] == "I" and entry["outcome"] == SILENT:
                    continue
                print(f"  {identifier} {entry['outcome']} {(entry['errors'] + entry['warnings'])[:2]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print what was seen as JSON")
    parser.add_argument("--off", action="store_true", help="run with the sandbox off: do the snippets run at all?")
    parser.add_argument("--here", nargs=2, metavar=("MODULE", "MODE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print("\nseen: " + json.dumps(run_here(*options.here)))
        return
    columns = measure(("off",) if options.off else MODES)
    if options.json:
        print(json.dumps(columns, indent=1))
    else:
        _print(columns)


if __name__ == "__main__":
    main()
