# ruff: noqa: T201  # what a script is for
"""Run the checker over real code: packages from PyPI with orchestrators, and this project's examples.

    python tools/check_packages.py                # downloads the source distributions with pip
    python tools/check_packages.py --keep DIR     # downloads to DIR, and uses what is there already

Prints the table of docs/sandbox.md and each finding; ruff is measured if it is on the `PATH`. People decide whether a
finding is true; `JUDGED` records their decisions, and a finding that is not in it makes the exit status 1.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from durabletask_aio.sandbox.static.checker import Report, check_sources

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
PACKAGES = (
    "azure-functions-durable==1.7.0",
    "dapr-agents==1.0.9",
    "dapr-ext-workflow==1.17.5",
    "agent-framework-durabletask==1.0.0b260922",
    "agent-framework-azurefunctions==1.0.0b260922",
)
_CHILD_ID = "the id of a child workflow is drawn again on every replay"
_OTHER_LOOP = (
    "code of the user runs on an event loop of the worker's thread; the results that it waits for are recorded"
)
_REGISTRY = "the workflow asks a state store, over the network and with retries, for the name of a child workflow"
JUDGED: dict[tuple[str, str, int, str], tuple[str, str]] = {
    ("azure-functions-durable", "azure/durable_functions/openai_agents/event_loop.py", 16, "DET603"): (
        "harmless",
        _OTHER_LOOP,
    ),
    ("azure-functions-durable", "azure/durable_functions/openai_agents/event_loop.py", 17, "DET603"): (
        "harmless",
        _OTHER_LOOP,
    ),
    ("azure-functions-durable", "azure/durable_functions/openai_agents/usage_telemetry.py", 35, "DET801"): (
        "harmless",
        "the flag in the class decides only whether a line is printed",
    ),
    ("dapr-agents", "dapr_agents/agents/durable.py", 867, "DET301"): ("true", _CHILD_ID),
    ("dapr-agents", "dapr_agents/agents/durable.py", 1545, "DET301"): ("true", _CHILD_ID),
    ("dapr-agents", "dapr_agents/agents/schemas.py", 27, "DET101"): (
        "true",
        "a model that the workflow makes and gives to an activity has the clock as the default of a field",
    ),
    ("dapr-agents", "dapr_agents/storage/daprstores/stateservice.py", 132, "DET201"): ("true", _REGISTRY),
    ("dapr-agents", "dapr_agents/storage/daprstores/stateservice.py", 135, "DET110"): ("true", _REGISTRY),
    ("dapr-agents", "dapr_agents/utils/dapr_client_factory.py", 131, "DET401"): ("true", _REGISTRY),
    ("agent-framework-durabletask", "agent_framework_durabletask/_executors.py", 205, "DET101"): (
        "true",
        "an answer that the workflow makes itself, where it does not wait for an agent, has the clock in a field",
    ),
    ("agent-framework-durabletask", "agent_framework_durabletask/_models.py", 145, "DET101"): (
        "true",
        "a request that the workflow sends to an entity has the clock as the default of a field",
    ),
}
"""By package, file, line and rule: the verdict, and why.

A finding is `true` if a replay may differ because of it, `harmless` if it breaks the rule and a replay does not differ,
and `false` if it does not break the rule.
"""
VERDICTS = ("true", "harmless", "false")
ROUNDS = 3
CHECK = (sys.executable, "-m", "durabletask_aio", "check", "--exit-zero", "--no-cache", "--output-format", "concise")
MEASURE = """
import os, sys, time
start = time.perf_counter()
nowhere = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=nowhere), 0)
print(time.perf_counter() - start, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Runs a program in a small process: the memory that the system tells includes that of the process which starts it."""
RUFF = ("check", "--isolated", "--exit-zero", "--silent", "--no-cache")


@dataclass
class Row:
    name: str
    report: Report
    root: Path
    checker: Cost
    ruff: Cost | None


@dataclass
class Cost:
    """What a run of a program took: the best of several, with its start."""

    seconds: float
    megabytes: float

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s, {self.megabytes:.0f} MB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where to download to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        rows = [checked("examples of this project", EXAMPLES)]
        rows += [checked(requirement, sources_of(requirement, folder)) for requirement in PACKAGES]
    print(table(rows))
    unjudged = [line for row in rows for line in print_findings(row)]
    return 1 if unjudged else 0


def sources_of(requirement: str, folder: Path) -> Path:
    """The unpacked source distribution of a package."""
    name = requirement.replace("-", "_").replace("==", "-")
    archive = folder / f"{name}.tar.gz"
    if not archive.is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--no-binary", ":all:", "--dest", str(folder), requirement], check=True)
    if not (folder / name).is_dir():
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    return folder / name


def checked(name: str, root: Path) -> Row:
    ruff = shutil.which("ruff")
    return Row(
        name, check_sources([root]), root, cost(CHECK, root), None if ruff is None else cost((ruff, *RUFF), root)
    )


def cost(command: Sequence[str], folder: Path) -> Cost:
    """The seconds and the memory of the fastest run of a program."""
    runs: list[Cost] = []
    for _ in range(ROUNDS):
        measuring = [sys.executable, "-S", "-c", MEASURE, *command]
        made = subprocess.run(measuring, cwd=folder, stdout=subprocess.PIPE, check=True, text=True)
        seconds, kilobytes = made.stdout.split()
        runs.append(Cost(float(seconds), int(kilobytes) / 1024))
    return min(runs, key=lambda each: each.seconds)


def verdict(row: Row, file: str, line: int, code: str) -> tuple[str, str] | None:
    relative = Path(file).relative_to(row.root).as_posix()
    return JUDGED.get((row.name.partition("==")[0], relative, line, code))


def table(rows: list[Row]) -> str:
    titles = ("sources", "files", "orchestrators", "findings", *VERDICTS, "checker", "ruff")
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for row in rows:
        found = row.report.findings
        verdicts = [known[0] for each in found if (known := verdict(row, each.file, each.line, each.rule.code))]
        cells = (
            f"`{row.name}`" if "==" in row.name else row.name,
            row.report.files,
            len(row.report.orchestrators),
            len(found),
            *(verdicts.count(each) for each in VERDICTS),
            row.checker,
            row.ruff or "",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def print_findings(row: Row) -> list[str]:
    """Print the findings of a row; return those that are not in `JUDGED`."""
    unjudged: list[str] = []
    for each in row.report.findings:
        known = verdict(row, each.file, each.line, each.rule.code)
        word = "not judged" if known is None else f"{known[0]}: {known[1]}"
        place = Path(each.file).relative_to(row.root).as_posix()
        print(f"\n{row.name}: {place}:{each.line}: {each.message}\n  {word}")
        if known is None:
            unjudged.append(place)
    return unjudged


if __name__ == "__main__":
    sys.exit(main())
