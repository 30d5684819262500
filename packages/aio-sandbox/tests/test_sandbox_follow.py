"""Installed packages: not followed, followed completely, or followed for I/O only."""

from __future__ import annotations

import importlib
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from durabletask_aio.core import SandboxMode, SandboxViolationError, WorkflowValidationError
from durabletask_aio.core.cli import main
from durabletask_aio.sandbox.rules import ownership
from durabletask_aio.sandbox.rules.allowance import configure
from durabletask_aio.sandbox.runtime.sandbox import SANDBOX
from durabletask_aio.sandbox.static.analysis import check

PACKAGE = {
    "__init__.py": "from ratelib.core import load, stamp, Rates\n",
    "core.py": """
        import threading
        import time

        _lock = threading.Lock()

        def load(name):
            started = time.time()
            _lock.acquire()
            try:
                return _read(name), time.time() - started
            finally:
                _lock.release()

        def _read(name):
            with open(name) as file:
                return file.read()

        def stamp():
            return time.time()

        class Rates:
            def __getitem__(self, name):
                return _read(name)
    """,
}


@pytest.fixture
def ratelib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An installed package, in a folder of this test."""
    packages = tmp_path / "site-packages"
    (packages / "ratelib").mkdir(parents=True)
    for name, text in PACKAGE.items():
        (packages / "ratelib" / name).write_text(textwrap.dedent(text))
    monkeypatch.setattr(ownership, "_PACKAGES", ownership._as_prefixes([str(packages)]))
    monkeypatch.syspath_prepend(str(packages))
    try:
        yield importlib.import_module("ratelib")
    finally:
        for name in ("ratelib", "ratelib.core"):
            sys.modules.pop(name, None)


@pytest.fixture
def for_io(ratelib: Any) -> Iterator[Any]:
    undo = configure(follow_io=["ratelib"])
    yield ratelib
    undo()


def line_of(ratelib: Any, text: str) -> int:
    return Path(ratelib.__file__).with_name("core.py").read_text().splitlines().index(text) + 1


OPENS = "    with open(name) as file:"


class TestWhileRunning:
    @pytest.mark.parametrize("layers", ["strict", "watched"])
    def test_a_package_is_not_followed_by_default(
        self, ratelib: Any, request: pytest.FixtureRequest, layers: str
    ) -> None:
        driver = request.getfixturevalue(layers)

        async def workflow(ctx: Any) -> Any:
            return ratelib.load(__file__)[0]

        outcome = driver(workflow)

        assert outcome.violation is None
        assert outcome.result.startswith('"""Installed packages')

    @pytest.mark.parametrize("layers", ["strict", "watched"])
    def test_followed_for_io_a_call_is_reported_at_the_users_line(
        self, for_io: Any, request: pytest.FixtureRequest, layers: str
    ) -> None:
        driver = request.getfixturevalue(layers)

        async def workflow(ctx: Any) -> Any:
            return for_io.load(__file__)

        first = workflow.__code__.co_firstlineno
        outcome = driver(workflow)

        assert isinstance(outcome.violation, SandboxViolationError)
        message = outcome.violation.message
        assert message.startswith("`open()` is not deterministic: the file system is used (DET501).\n  at ")
        assert f"test_sandbox_follow.py:{first + 1}" in message
        assert f"core.py:{line_of(for_io, OPENS)} in _read()" in message
        assert (
            "      return for_io.load(__file__)\n  Use `await ctx.run(...)` for short work, or an activity" in message
        )

    @pytest.mark.parametrize("layers", ["strict", "watched"])
    def test_followed_for_io_its_clock_and_locks_are_ignored(
        self, for_io: Any, request: pytest.FixtureRequest, layers: str
    ) -> None:
        driver = request.getfixturevalue(layers)

        async def workflow(ctx: Any) -> Any:
            return for_io.stamp(), for_io.core._lock.locked()

        outcome = driver(workflow)

        assert (outcome.violation, outcome.warnings) == (None, [])
        assert abs(outcome.result[0] - time.time()) < 60

    def test_methods_that_are_called_implicitly_are_followed_too(self, for_io: Any, strict: Any) -> None:
        async def workflow(ctx: Any) -> Any:
            rates = for_io.Rates()
            return rates[__file__]

        assert isinstance(strict(workflow).violation, SandboxViolationError)

    def test_a_pragma_on_the_users_line_allows(self, for_io: Any, strict: Any) -> None:
        async def workflow(ctx: Any) -> Any:
            return for_io.load(__file__)[0]  # determinism: allow[file] part of the deployment

        assert strict(workflow).violation is None
        assert check(workflow) == []

    def test_best_effort_warns_at_the_users_line_and_does_not_replace_the_packages_clock(
        self, for_io: Any, best_effort: Any
    ) -> None:
        async def workflow(ctx: Any) -> Any:
            return for_io.load(__file__)[0], for_io.stamp()

        outcome = best_effort(workflow)

        assert [warning.split("\n")[0] for warning in outcome.warnings] == [
            "`open()` is not deterministic: the file system is used (DET501)."
        ]
        assert abs(outcome.result[1] - time.time()) < 60

    def test_it_can_be_undone(self, ratelib: Any, strict: Any) -> None:
        async def workflow(ctx: Any) -> Any:
            return ratelib.load(__file__)[0]

        undo = configure(follow_io=["ratelib"])
        try:
            assert isinstance(strict(workflow).violation, SandboxViolationError)
        finally:
            undo()

        assert strict(workflow).violation is None

    def test_followed_completely_its_clock_is_reported_at_its_own_line(self, ratelib: Any, strict: Any) -> None:
        async def workflow(ctx: Any) -> Any:
            return ratelib.stamp()

        undo = configure(follow=["ratelib"])
        try:
            violation = strict(workflow).violation
        finally:
            undo()

        assert f"core.py:{line_of(ratelib, '    return time.time()')}" in violation.message


class TestAnalysis:
    def test_the_analysis_reports_the_users_line(self, for_io: Any) -> None:
        async def workflow(ctx: Any) -> Any:
            return for_io.load("a"), for_io.load("b"), for_io.stamp()

        first = workflow.__code__.co_firstlineno
        (finding,) = check(workflow)

        assert (finding.rule.code, finding.file, finding.line, finding.function) == (
            "DET501",
            __file__,
            first + 1,
            "workflow",
        )
        assert finding.inside is not None
        assert finding.inside.endswith(f"core.py:{line_of(for_io, OPENS)} in _read()")
        assert finding.reached == ("workflow", "load", "_read")

    def test_every_line_that_calls_into_the_package_is_reported(self, for_io: Any) -> None:
        async def workflow(ctx: Any) -> Any:
            one = for_io.load("a")
            two = for_io.load("b")
            return one, two

        assert len(check(workflow)) == 2

    def test_strict_does_not_refuse_for_what_a_package_may_do(self, for_io: Any) -> None:
        async def workflow(ctx: Any) -> Any:
            return for_io.load("a") if ctx.instance_id == "never" else None

        with pytest.warns(UserWarning, match="DET501"):
            assert SANDBOX.guard(workflow, SandboxMode.STRICT, workflow_name="workflow") is not None

    def test_every_installed_package_can_be_followed(self, ratelib: Any) -> None:
        async def workflow(ctx: Any) -> Any:
            return ratelib.load("a")

        undo = configure(follow_io=["*"])
        try:
            assert len(check(workflow)) == 1
        finally:
            undo()
        assert check(workflow) == []

    def test_errors_name_the_mistake(self) -> None:
        with pytest.raises(WorkflowValidationError, match="'ratlib' is not the import name of an installed package"):
            configure(follow_io=["ratlib"])
        with pytest.raises(WorkflowValidationError, match=r"write a list: follow_io=\['ratelib'\]"):
            configure(follow_io="ratelib")


FLOW = """
from durabletask.aio import AsyncWorkflowContext
from ratelib import load, stamp

async def flow(ctx: AsyncWorkflowContext, name: str):
    stamp()
    return load(name)
"""


class TestChecker:
    @pytest.fixture(autouse=True)
    def folder(self, ratelib: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "flow.py").write_text(FLOW)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def test_it_does_not_follow_packages_by_default(self) -> None:
        assert main(["check", "flow.py"]) == 0

    def test_it_follows_them_for_io(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check", "flow.py", "--follow-io", "ratelib"]) == 1

        text = capsys.readouterr().out
        assert "flow.py:7:12: DET501 `open()` is not deterministic" in text
        assert f"core.py:{line_of(sys.modules['ratelib'], OPENS)} in _read()" in text
        assert "1 finding in 1 orchestrator" in text

    def test_it_follows_them_completely(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check", "flow.py", "--follow", "*"]) == 1

        text = capsys.readouterr().out
        found = [line.split(": ")[1].split()[0] for line in text.splitlines() if line.startswith("site-packages")]
        assert found == ["DET101", "DET804", "DET101", "DET501", "DET101"]

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
    def test_the_configuration_names_them(self, folder: Path) -> None:
        (folder / "pyproject.toml").write_text('[tool.durabletask-aio.check]\nfollow-io = ["ratelib"]\n')

        assert main(["check", "flow.py"]) == 1

    def test_a_package_that_is_not_there_is_misuse(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check", "flow.py", "--follow-io", "ratlib"]) == 2
        assert "'ratlib' is not the import name of an installed package" in capsys.readouterr().err
