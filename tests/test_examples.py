"""The programs in `examples/patterns/`: each prints what docs/patterns.md shows, and the checker finds nothing."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from durabletask.aio.sandbox import check

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = sorted((ROOT / "examples" / "patterns").glob("*.py"))
SECTION = re.compile(r"^<!-- program: (\S+) -->\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shown() -> dict[str, str]:
    """Each program of the page with the output below it."""
    return dict(SECTION.findall((ROOT / "docs" / "patterns.md").read_text(encoding="utf-8")))


def test_the_page_shows_every_program() -> None:
    assert sorted(shown()) == [path.relative_to(ROOT).as_posix() for path in PROGRAMS]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_prints_what_the_page_shows(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its environment replays what it ran, so this fails for a workflow that is not deterministic, too."""
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out == shown()[path.relative_to(ROOT).as_posix()]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_the_checker_finds_nothing_in_a_program(path: Path) -> None:
    assert check(path) == []


def test_portable_workflows_run_on_an_engine() -> None:
    """The same file on a Dapr sidecar: packages/aio-dapr/tests/test_portable.py."""
    folder = ROOT / "examples" / "portable"
    done = subprocess.run(
        [sys.executable, folder / "on_engine.py"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ((folder / "expected.txt").read_text(encoding="utf-8"), "")
