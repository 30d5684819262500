"""`durabletask-aio check` as users of ruff expect it: selection, settings of each file, formats, standard input."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
import textwrap
import types
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from durabletask_aio.core.command_line import run_command
from durabletask_aio.sandbox.cli.check import check as command
from durabletask_aio.sandbox.cli.places import page_of
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.static import checker
from durabletask_aio.sandbox.static.analysis import check
from durabletask_aio.sandbox.static.checker import MIN_SHARE

FLOW = """
import asyncio, time, uuid
from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext):
    first = time.time()
    await asyncio.wait_for(ctx.sleep(5), 1)
    ctx.sleep(1)
    return first, uuid.uuid4()
"""
needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "flow.py").write_text(FLOW)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return run_command(command, arguments, prog_name="durabletask-aio check")


def settings(folder: Path, text: str, name: str = "pyproject.toml") -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"[tool.durabletask-aio.check]\n{textwrap.dedent(text)}\n")


def codes(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The codes of the findings, in the order of the report."""
    run("--json", *arguments)
    return [each["code"] for each in json.loads(capsys.readouterr().out)["findings"]]


class TestSelection:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ((), ["DET101", "DET802", "DET301"]),
            (("--select", "DET1"), ["DET101"]),
            (("--select", "DET1,uuid"), ["DET101", "DET301"]),
            (("--select", "clock", "--select", "det802"), ["DET101", "DET802"]),
            (("--select", "DET604"), ["DET604"]),
            (("--select", "ALL"), ["DET101", "DET802", "DET301"]),
            (("--ignore", "DET1"), ["DET802", "DET301"]),
            (("--ignore", "not-awaited,clock"), ["DET301"]),
            (("--ignore", "ALL"), []),
            (("--select", "DET101", "--ignore", "DET1"), ["DET101"]),
            (("--select", "DET1", "--ignore", "DET101"), []),
            (("--select", "DET1", "--ignore", "DET1"), []),
        ],
    )
    def test_the_most_specific_selector_decides(
        self, folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: list[str]
    ) -> None:
        assert codes(capsys, *arguments) == expected

    @pytest.mark.parametrize("option", ["--select", "--ignore"])
    def test_a_selector_of_nothing_is_refused(
        self, folder: Path, capsys: pytest.CaptureFixture[str], option: str
    ) -> None:
        assert run(option, "DET19") == 2
        assert f"{option} 'DET19' selects no rule" in capsys.readouterr().err

    def test_exit_zero_reports_all_the_same(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--exit-zero") == 0
        assert "DET101" in capsys.readouterr().out


class TestNoqa:
    def test_suppresses_the_rules_that_it_names(self, tmp_path: Path) -> None:
        text = """
        import time
        from durabletask.aio import AsyncWorkflowContext

        async def workflow(ctx: AsyncWorkflowContext):
            a = time.time()  # noqa: DET101
            b = time.time()  # noqa:E501,DET101
            c = (
                time.time()
            )  # NOQA: DET101 the time is only logged
            d = time.time()  # determinism: allow[DET301] an example  # noqa: DET101
            e = time.time()  # noqa: DET301
            f = time.time()  # noqa
            g = time.time()  # noqa: E501
            h = "# noqa: DET101"
        """
        (tmp_path / "flow.py").write_text(textwrap.dedent(text))

        assert [(each.rule.code, each.line) for each in check(tmp_path / "flow.py")] == [
            ("DET101", 12),
            ("DET101", 13),
            ("DET101", 14),
        ]

    def test_an_unknown_code_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "flow.py").write_text("x = 1  # noqa: DET999\n")

        (finding,) = check(tmp_path)

        assert finding.rule.code == "DET901"
        assert "`DET999`" in finding.message


@needs_toml
class TestSettings:
    def test_each_file_has_those_of_the_nearest_file(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settings(folder, 'ignore = ["DET8"]')
        settings(folder / "other", 'select = ["uuid"]')
        (folder / "other/flow.py").write_text(FLOW)
        (folder / "other/deeper").mkdir()
        # A file for other tools does not end the search.
        (folder / "other/deeper/pyproject.toml").write_text("[tool.other]\n")
        (folder / "other/deeper/flow.py").write_text(FLOW)

        assert codes(capsys, "flow.py") == ["DET101", "DET301"]
        assert codes(capsys, "other/flow.py") == ["DET301"]
        assert codes(capsys) == ["DET101", "DET301", "DET301", "DET301"]

    def test_one_file_can_be_named_for_all(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settings(folder, 'ignore = ["DET8"]')
        (folder / "check.toml").write_text('select = ["uuid"]\n')
        settings(folder / "other", 'select = ["clock"]')

        assert codes(capsys, "--config", "check.toml") == ["DET301"]
        assert codes(capsys, "--config", "other/pyproject.toml") == ["DET101"]
        assert run("--config", "nowhere.toml") == 2
        assert "nowhere.toml" in capsys.readouterr().err

    def test_a_finding_has_the_settings_of_its_own_file(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settings(folder / "lib", 'ignore = ["clock"]')
        (folder / "lib/__init__.py").touch()
        (folder / "lib/clock.py").write_text("import time\n\ndef now():\n    return time.time()\n")
        (folder / "flow.py").write_text(
            "from durabletask.aio import AsyncWorkflowContext\nfrom lib.clock import now\n\n"
            "async def workflow(ctx: AsyncWorkflowContext):\n    return now()\n"
        )
        assert codes(capsys) == []
        (folder / "lib/pyproject.toml").unlink()
        assert codes(capsys) == ["DET101"]

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("flow.py", ["DET802"]),
            ("*.py", ["DET802"]),
            ("tests/*", ["DET101", "DET802", "DET301"]),
            ("!flow.py", ["DET101", "DET802", "DET301"]),
            ("!tests/*", ["DET802"]),
        ],
    )
    def test_rules_can_be_ignored_in_some_files(
        self, folder: Path, capsys: pytest.CaptureFixture[str], pattern: str, expected: list[str]
    ) -> None:
        settings(folder, f"""per-file-ignores = {{"{pattern}" = ["DET1", "uuid"]}}""")

        assert codes(capsys) == expected

    def test_excluded_files_are_checked_if_they_are_named(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "legacy").mkdir()
        (folder / "flow.py").rename(folder / "legacy/flow.py")
        settings(folder, 'exclude = ["legacy/*"]')

        assert run() == 0
        assert run("legacy/flow.py") == 1
        assert run("legacy/flow.py", "--force-exclude") == 0
        settings(folder, 'exclude = ["legacy"]\nforce-exclude = true')
        assert run("legacy/flow.py") == 0

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('select = ["DET19"]', "select 'DET19' selects no rule"),
            ('per-file-ignores = {"a.py" = "DET1"}', "per-file-ignores must be a table of lists of strings"),
            ("docs-url = 1", "docs-url must be a string"),
        ],
    )
    def test_errors_name_the_mistake(
        self, folder: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
    ) -> None:
        settings(folder, text)

        assert run() == 2
        error = capsys.readouterr().err
        assert message in error
        assert "pyproject.toml" in error


class TestFormats:
    def test_concise_has_one_line_for_each_finding(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--output-format", "concise") == 1
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 5
        assert lines[0].startswith("flow.py:7:13: DET101 `time.time()` is not deterministic")
        assert lines[3:] == ["3 findings in 1 orchestrator (1 file)", "2 can be fixed with --fix"]

    def test_full_is_the_default(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run()
        default = capsys.readouterr().out
        for name in ("full", "text"):
            run("--output-format", name)
            assert capsys.readouterr().out == default

    def test_gitlab_has_a_fingerprint_that_survives_moved_lines(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run("--output-format", "gitlab")
        before = json.loads(capsys.readouterr().out)
        (folder / "flow.py").write_text(f"# A new line.\n{FLOW}")
        run("--output-format", "gitlab")
        after = json.loads(capsys.readouterr().out)

        assert [each["check_name"] for each in before] == ["DET101", "DET802", "DET301"]
        assert before[0]["location"] == {
            "path": "flow.py",
            "positions": {"begin": {"line": 7, "column": 13}, "end": {"line": 7, "column": 13}},
        }
        assert [each["severity"] for each in before] == ["major", "minor", "major"]
        assert [each["fingerprint"] for each in before] == [each["fingerprint"] for each in after]
        assert len({each["fingerprint"] for each in before}) == 3

    def test_junit_has_a_failure_for_each_finding(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "flow.py").write_text(FLOW.replace("first = ", 'first = "\\x0c\f", '))
        run("--output-format", "junit")
        root = ET.fromstring(capsys.readouterr().out)

        assert (root.tag, root.get("tests"), root.get("failures")) == ("testsuites", "3", "3")
        (suite,) = root
        assert suite.get("name") == "flow.py"
        assert [case.get("name") for case in suite] == ["DET101 wall-clock", "DET802 not-awaited", "DET301 uuid"]

    def test_junit_passes_without_findings(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--output-format", "junit", "--ignore", "ALL") == 0
        root = ET.fromstring(capsys.readouterr().out)
        assert (root.get("tests"), root.get("failures")) == ("1", "0")

    @needs_toml
    def test_programs_are_told_the_page_of_a_rule(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        page = "https://docs.example.org/aio/reference/rules/#det101"
        settings(folder, 'docs-url = "https://docs.example.org/aio/"')

        run("--output-format", "json")
        assert json.loads(capsys.readouterr().out)["findings"][0]["url"] == page
        run("--output-format", "sarif")
        driver = json.loads(capsys.readouterr().out)["runs"][0]["tool"]["driver"]
        assert driver["rules"][0]["helpUri"] == page
        for name in ("full", "gitlab", "junit"):
            run("--output-format", name)
            assert page in capsys.readouterr().out

    def test_the_page_of_rules_has_the_anchors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        root = Path(__file__).resolve().parents[3]
        if not (root / "scripts/docs_hooks.py").is_file():
            pytest.skip("not in a checkout of the repository")
        # The environment of the tests has no mkdocs, of which the hooks take only an error.
        monkeypatch.setitem(sys.modules, "mkdocs", types.ModuleType("mkdocs"))
        exceptions = types.SimpleNamespace(PluginError=RuntimeError)
        monkeypatch.setitem(sys.modules, "mkdocs.exceptions", exceptions)
        monkeypatch.syspath_prepend(str(root / "scripts"))
        sections = importlib.import_module("docs_hooks").rules()
        assert "<!-- table: rules -->" in (root / "docs/reference/rules.md").read_text(encoding="utf-8")
        for rule in default_catalogue().rules.values():
            page = page_of(rule, "https://docs.example.org") or ""
            path, _, anchor = page.rpartition("#")
            assert path == "https://docs.example.org/reference/rules/"
            assert f"{{ #{anchor} }}\n" in sections


class TestJobs:
    @pytest.fixture
    def project(self, folder: Path) -> Path:
        """Enough workflows for two processes; their findings overlap in a helper, in a file that does not parse."""
        count = 2 * MIN_SHARE + 1
        (folder / "helper.py").write_text("import time\n\n\ndef stamp():\n    return time.time()\n")
        (folder / "broken.py").write_text("def broken(:\n")
        (folder / "flows.py").write_text(
            "import broken, absent, random\nfrom helper import stamp\n"
            "from durabletask.aio import AsyncWorkflowContext\n"
            + "".join(
                f"async def flow_{number}(ctx: AsyncWorkflowContext):\n"
                f"    await ctx.call_activity('charge_{number}')\n"
                f"    broken.something(), absent.other()\n"
                f"    return {'stamp()' if number % 2 else 'random.random()'}  # noqa: DET30{number % 3}\n"
                for number in range(count)
            )
            + "def setup(worker):\n    worker.add_named_activity('charge_4', stamp)\n"
        )
        return folder

    def test_any_number_gives_the_same_report(
        self, project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reports: list[str] = []
        pools: list[int] = []

        class Pool(ProcessPoolExecutor):
            def __init__(self, max_workers: int, context: Any) -> None:
                pools.append(max_workers)
                super().__init__(max_workers, context)

        monkeypatch.setattr(checker, "ProcessPoolExecutor", Pool)
        for jobs in ("1", "2"):
            assert run("--no-cache", "--notes", "--json", "--jobs", jobs) == 1
            reports.append(capsys.readouterr().out)
        assert pools == [1]
        assert reports[0] == reports[1]
        found = {each["code"] for each in json.loads(reports[0])["findings"]}
        assert found >= {"DET101", "DET201", "DET808", "DET902", "DET903"}

    def test_a_small_project_is_checked_in_one_process(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checker, "ProcessPoolExecutor", None)
        assert run("--no-cache", "--jobs", "8") == 1

    def test_the_number_is_checked(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--jobs", "0") == 2
        assert "--jobs" in capsys.readouterr().err


class TestStandardInput:
    def give(self, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    def test_is_checked_under_the_name_given(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.give(monkeypatch, FLOW.replace("time.time()", "1").encode())

        # The file itself has another text, which an editor has not saved yet.
        assert codes(capsys, "-", "--stdin-filename", "flow.py") == ["DET802", "DET301"]

    def test_imports_are_followed_from_the_place_of_the_file(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "lib").mkdir()
        (folder / "lib/clock.py").write_text("import time\n\ndef now():\n    return time.time()\n")
        text = (
            "from durabletask.aio import AsyncWorkflowContext\nfrom clock import now\n\n"
            "async def workflow(ctx: AsyncWorkflowContext):\n    return now()\n"
        )
        self.give(monkeypatch, text.encode())
        assert codes(capsys, "-", "--stdin-filename", "lib/new.py") == ["DET101"]

    def test_needs_no_name(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.give(monkeypatch, b"\xef\xbb\xbf" + FLOW.replace("\n", "\r\n").encode())

        assert run("-", "--output-format", "concise") == 1
        assert capsys.readouterr().out.startswith("stdin.py:7:13: DET101")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("-", "flow.py"), "can be the only target"),
            (("flow.py", "--stdin-filename", "flow.py"), "needs the target '-'"),
        ],
    )
    def test_misuse_is_refused(
        self, folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
    ) -> None:
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err


class TestProgram:
    @pytest.mark.parametrize("module", ["durabletask_aio", "durabletask_aio.sandbox"])
    def test_as_a_module(self, folder: Path, module: str) -> None:
        command = [sys.executable, "-m", module, *(["check"] if module == "durabletask_aio" else []), "flow.py"]
        result = subprocess.run(
            [*command, "--output-format", "concise"], capture_output=True, text=True, check=False, timeout=120
        )
        assert result.returncode == 1
        assert result.stdout.startswith("flow.py:7:13: DET101")
        assert result.stderr == ""


class TestHints:
    def test_no_orchestrator_in_files_that_import_an_sdk(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "flow.py").write_text("from durabletask import task\n\ndef flow(c, _):\n    yield c.sleep(1)\n")

        assert run() == 0
        output = capsys.readouterr()
        assert output.out == "no findings in 0 orchestrators (1 file)\n"
        assert "hint: 1 file imports an SDK of durable workflows, but no orchestrator was recognised" in output.err
        run("--orchestrator", "flow")
        assert capsys.readouterr().err == ""

    def test_nothing_is_said_about_other_projects(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "flow.py").write_text("import mydurabletask\n# import durabletask\n")
        run()
        assert capsys.readouterr().err == ""

    def test_a_hook_that_is_given_the_changed_files(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PRE_COMMIT", "1")
        run("flow.py")
        assert "pass_filenames: false" in capsys.readouterr().err
        run()
        assert capsys.readouterr().err == ""


def test_a_file_in_another_encoding_is_read_as_python_reads_it(tmp_path: Path) -> None:
    text = "# -*- coding: latin-1 -*-\n" + FLOW.replace("first = ", 'first = "é", ')
    (tmp_path / "flow.py").write_bytes(text.encode("latin-1"))
    first = check(tmp_path)[0]
    assert first.source_line == '    first = "é", time.time()'
    assert first.column == first.source_line.index("time.time()") + 1


def test_every_rule_can_be_selected_by_each_of_its_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rule in default_catalogue().rules.values():
        for name in (rule.code, rule.code[:4], rule.slug, rule.category.value):
            assert run("--select", name, "--exit-zero") == 0, name
    capsys.readouterr()
