"""The cache and the baseline of `durabletask-aio check`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from durabletask_aio.core.command_line import run_command
from durabletask_aio.sandbox.cli import runs
from durabletask_aio.sandbox.cli.check import check as command
from durabletask_aio.sandbox.static.checker import Report

FLOW = """
from durabletask.aio import AsyncWorkflowContext
from helper import stamp


async def workflow(ctx: AsyncWorkflowContext):
    return stamp(ctx)
"""
HELPER = "import time\n\n\ndef stamp(ctx):\n    return time.time()\n"


def run(*arguments: str) -> int:
    return run_command(command, arguments, prog_name="durabletask-aio check")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "flow.py").write_text(FLOW)
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "plain.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of files of the analyses that were really made."""
    made: list[int] = []
    real = runs.check_files

    def counted(files: list[Path], *arguments: object, **keywords: object) -> Report:
        made.append(len(files))
        return real(files, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(runs, "check_files", counted)
    return made


class TestCache:
    def test_the_second_report_is_the_first_one(
        self, folder: Path, analysed: list[int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        reports: list[str] = []
        for arguments in ((), ("--json",), ("--output-format", "sarif")):
            for _ in range(2):
                assert run(*arguments) == 1
                reports.append(capsys.readouterr().out)
        assert reports[0::2] == reports[1::2]
        assert analysed == [3]
        assert (folder / ".durabletask_cache/.gitignore").read_text() == "*\n"

    @pytest.mark.parametrize(
        ("change", "again"),
        [
            (lambda folder: (folder / "helper.py").write_text(HELPER + "\n"), True),
            (lambda folder: (folder / "flow.py").write_text(FLOW + "\n"), True),
            (lambda folder: (folder / "plain.py").write_text("x = 2\n"), False),
            (lambda folder: (folder / "plain.py").write_text("x = 2  # determinism: allow[DET101]\n"), True),
            (lambda folder: (folder / "plain.py").write_text(FLOW), True),
            (lambda folder: (folder / "plain.py").unlink(), False),
            (lambda folder: (folder / "helper.py").unlink(), True),
            (lambda folder: (folder / "new.py").write_text("x = 1\n"), False),
            (lambda folder: (folder / "new.py").write_text(FLOW), True),
            (lambda folder: (folder / "time.py").write_text("def time(): return 1\n"), True),
            (lambda folder: (folder / "durabletask").mkdir(), False),
            (lambda folder: (folder / "flow.py").touch(), False),
        ],
    )
    def test_it_depends_on_what_the_analysis_has_read(
        self, folder: Path, analysed: list[int], change: Callable[[Path], object], again: bool
    ) -> None:
        run()
        change(folder)
        cached = run("--json", "-o", "cached.json")
        assert len(analysed) == (2 if again else 1)
        assert run("--no-cache", "--json", "-o", "anew.json") == cached
        assert json.loads((folder / "cached.json").read_text()) == json.loads((folder / "anew.json").read_text())

    def test_it_depends_on_files_outside_of_the_targets(self, folder: Path, analysed: list[int]) -> None:
        assert run("flow.py") == run("flow.py") == 1
        assert analysed == [1]
        (folder / "helper.py").write_text("def stamp(ctx):\n    return 1\n")
        assert run("flow.py") == 0
        (folder / "helper.py").unlink()
        assert run("flow.py") == 0
        (folder / "helper.py").write_text(HELPER)
        assert run("flow.py") == 1

    def test_it_depends_on_the_settings(
        self, folder: Path, analysed: list[int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        run()
        assert run("--ignore", "DET1") == 0  # the same analysis, another selection of its findings
        assert len(analysed) == 1
        assert run("--allow", "clock") == 0
        assert run("--orchestrator", "stamp") == 1
        assert len(analysed) == 3

    def test_another_folder_or_none(self, folder: Path, analysed: list[int]) -> None:
        for _ in range(2):
            run("--cache-dir", "elsewhere/cache")
        assert len(analysed) == 1
        for _ in range(2):
            run("--no-cache")
        assert len(analysed) == 3
        assert not (folder / ".durabletask_cache").exists()

    @pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"format": 1, "files": []}'])
    def test_a_damaged_entry_is_replaced(self, folder: Path, analysed: list[int], content: bytes) -> None:
        run()
        (entry,) = (folder / ".durabletask_cache").glob("*.json")
        entry.write_bytes(content)
        assert run() == run() == 1
        assert len(analysed) == 2

    def test_a_folder_that_cannot_be_written_is_no_error(self, folder: Path) -> None:
        (folder / ".durabletask_cache").write_text("a file")
        assert run() == 1

    def test_fixing_takes_the_first_report_from_it(self, folder: Path, analysed: list[int]) -> None:
        run()
        assert run("--fix") == 0
        assert len(analysed) == 2  # of what is left
        assert run() == 0


class TestBaseline:
    def test_what_is_known_is_not_reported(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--write-baseline", "known.json") == 0
        assert "1 finding written to known.json" in capsys.readouterr().err
        before = (folder / "known.json").read_text()

        assert run("--baseline", "known.json") == 0
        assert "1 finding of the baseline not shown" in capsys.readouterr().out
        # Lines that move change nothing; a second call on a line of the same text is a finding.
        (folder / "helper.py").write_text(f"# moved\n{HELPER}")
        assert run("--baseline", "known.json") == 0
        run("--write-baseline", "known.json")
        assert (folder / "known.json").read_text() == before
        (folder / "helper.py").write_text(HELPER + "    return time.time()\n")
        assert run("--baseline", "known.json") == 1

    def test_paths_are_relative_to_the_file(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run("--write-baseline", "ci/known.json")
        (folder / "sub").mkdir()
        monkeypatch.chdir(folder / "sub")
        assert run("..", "--baseline", "../ci/known.json") == 0
        assert str(folder) not in (folder / "ci/known.json").read_text()

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
    def test_the_setting(self, folder: Path) -> None:
        run("--write-baseline", "known.json")
        (folder / "pyproject.toml").write_text('[tool.durabletask-aio.check]\nbaseline = "known.json"\n')
        assert run() == 0

    def test_a_new_one_ignores_the_old_one(self, folder: Path) -> None:
        run("--write-baseline", "known.json")
        run("--baseline", "known.json", "--write-baseline", "new.json")
        assert (folder / "known.json").read_text() == (folder / "new.json").read_text()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "there is no baseline known.json; write it with"),
            ("{", "known.json is not a baseline"),
            ("[]", "known.json is not a baseline"),
            ('{"version": 2, "findings": []}', "version 2; this tool reads version 1"),
        ],
    )
    def test_errors_name_the_file(
        self, folder: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
    ) -> None:
        if content is not None:
            (folder / "known.json").write_text(content)
        assert run("--baseline", "known.json") == 2
        assert message in capsys.readouterr().err
