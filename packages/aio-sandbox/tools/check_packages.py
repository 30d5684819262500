# ruff: noqa: T201  # what a script is for
"""Run the checker over real code: packages from PyPI with orchestrators, and this project's examples.

    python tools/check_packages.py                # downloads the source distributions with pip
    python tools/check_packages.py --keep DIR     # downloads to DIR, and uses what is there already

Prints the table of docs/sandbox.md and each finding. People decide whether a finding is true; `JUDGED` records their
decisions, and a finding that is not in it makes the exit status 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
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
JUDGED: dict[tuple[str, str, int, str], tuple[bool, str]] = {
    ("dapr-agents", "dapr_agents/agents/durable.py", 867, "DET301"): (True, _CHILD_ID),
    ("dapr-agents", "dapr_agents/agents/durable.py", 1545, "DET301"): (True, _CHILD_ID),
    ("dapr-agents", "dapr_agents/agents/schemas.py", 27, "DET101"): (
        True,
        "a model that the workflow makes and gives to an activity has the clock as the default of a field",
    ),
}
"""By package, file, line and rule: whether the finding is true, and why."""
ROUNDS = 3


@dataclass
class Row:
    name: str
    report: Report
    seconds: float
    root: Path


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
    reports = [check_sources([root]) for _ in range(ROUNDS)]
    return Row(name, reports[0], min(report.seconds for report in reports), root)


def verdict(row: Row, file: str, line: int, code: str) -> tuple[bool, str] | None:
    relative = Path(file).relative_to(row.root).as_posix()
    return JUDGED.get((row.name.partition("==")[0], relative, line, code))


def table(rows: list[Row]) -> str:
    lines = ["| sources | files | orchestrators | findings | true | false | files per second |", "| --- " * 7 + "|"]
    for row in rows:
        findings = row.report.findings
        verdicts = [verdict(row, each.file, each.line, each.rule.code) for each in findings]
        true = sum(each is not None and each[0] for each in verdicts)
        false = sum(each is not None and not each[0] for each in verdicts)
        cells = (
            f"`{row.name}`" if "==" in row.name else row.name,
            row.report.files,
            len(row.report.orchestrators),
            len(findings),
            true,
            false,
            f"{row.report.files / row.seconds:.0f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def print_findings(row: Row) -> list[str]:
    """Print the findings of a row; return those that are not in `JUDGED`."""
    unjudged: list[str] = []
    for each in row.report.findings:
        known = verdict(row, each.file, each.line, each.rule.code)
        word = "not judged" if known is None else f"{'true' if known[0] else 'false'}: {known[1]}"
        place = Path(each.file).relative_to(row.root).as_posix()
        print(f"\n{row.name}: {place}:{each.line}: {each.message}\n  {word}")
        if known is None:
            unjudged.append(place)
    return unjudged


if __name__ == "__main__":
    sys.exit(main())
