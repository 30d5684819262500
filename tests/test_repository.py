"""What must agree with something else in this repository, and the scripts for fresh machines."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("core", "sandbox", "worker", "testing", "engine")
PACKAGES = (*PARTS, "dapr")
"""Those with a facade, and the one for Dapr, which has none."""
FACADES = {part: "__init__.py" if part == "core" else f"{part}.py" for part in PARTS}
"""The first of each package; the core has two more, for clients and for data."""
SOURCES = sorted((ROOT / "packages").glob("aio-*/src/durabletask_aio/*/**/*.py"))


def text_of(path: str | Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def dependencies(toml: str) -> list[str]:
    """The strings of the first list called `dependencies`; 3.10 has no TOML parser in its standard library."""
    found = re.search(r"^dependencies = \[(.*?)^\]", toml, re.MULTILINE | re.DOTALL)
    assert found
    return re.findall(r'^ *"([^"]+)"', found[1], re.MULTILINE)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of `scripts/`, freshly."""
    monkeypatch.syspath_prepend(ROOT / "scripts")

    def load(name: str) -> Any:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


# What must agree ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
def test_installed_facades_are_those_in_the_sources(part: str) -> None:
    """If this fails, a facade was changed: install again (`hatch env prune`, or run scripts/test.py)."""
    try:
        distribution(f"durabletask-aio-{part}")
    except PackageNotFoundError:
        pytest.skip(f"durabletask-aio-{part} is not installed")
    import durabletask

    facades = sorted((ROOT / "packages" / f"aio-{part}" / "facade").glob("*.py"))
    assert FACADES[part] in [source.name for source in facades]
    for source in facades:
        installed = Path(durabletask.__file__).parent / "aio" / source.name
        assert installed.read_bytes() == source.read_bytes()


def test_the_test_command_installs_what_hatch_installs(scripts: Any) -> None:
    without_hatch = list(scripts("_setup").TEST_REQUIREMENTS)
    section = text_of("hatch.toml").partition("[envs.test]")[2]
    assert dependencies(section)[: len(without_hatch)] == without_hatch


def test_one_range_of_durabletask_everywhere() -> None:
    """Four packages name upstream; the oldest of the range is what the `upstream` environment installs."""
    ranges = {
        dependency
        for part in PARTS
        for dependency in dependencies(text_of(f"packages/aio-{part}/pyproject.toml"))
        if re.match(r"durabletask[<>=!~ ]", dependency)
    }
    assert len(ranges) == 1
    oldest = re.fullmatch(r"durabletask>=([\d.]+),<2", ranges.pop())
    assert oldest
    pinned = re.search(r'value = "durabletask==([\d.]+)", if = \["oldest"\]', text_of("hatch.toml"))
    assert pinned
    assert re.fullmatch(re.escape(oldest[1]) + r"(\.0)?", pinned[1])
    assert f"`durabletask` {oldest[1]}" in text_of("docs/compatibility.md")


def test_the_docs_name_the_last_tested_version_of_durabletask() -> None:
    from durabletask_aio.families import MICROSOFT

    tested = "{}.{}".format(*MICROSOFT.last_tested)
    assert f"| up to {tested}, the last tested minor version |" in text_of("docs/compatibility.md")


@pytest.mark.parametrize("part", PACKAGES)
def test_every_version_has_its_section_in_the_changelog(scripts: Any, part: str) -> None:
    version = re.search(r'^version = "(.+)"$', text_of(f"packages/aio-{part}/pyproject.toml"), re.MULTILINE)
    assert version
    assert scripts("check_release").complaint(part, f"{part}-v{version[1]}") is None


def test_the_docs_name_the_last_tested_version_of_dapr() -> None:
    from durabletask_aio.families import DAPR

    major, minor = DAPR.last_tested
    assert f"| Dapr's SDK | `dapr` 1.18 and {major}.{minor} |" in text_of("docs/compatibility.md")
    assert f"dapr>=1.18,<{major}.{minor + 1}" in dependencies(text_of("packages/aio-dapr/pyproject.toml"))


def test_dapr_is_installed_for_those_who_ask_for_it() -> None:
    extras = text_of("packages/aio-core/pyproject.toml").partition("[project.optional-dependencies]")[2]
    assert re.search(r'^dapr = \["durabletask-aio-dapr', extras, re.MULTILINE)
    everything = re.search(r"^all = \[(.*?)^\]", extras, re.MULTILINE | re.DOTALL)
    assert everything
    assert "dapr" not in everything[1]


@pytest.mark.parametrize("part", PACKAGES)
def test_every_package_has_the_licence(part: str) -> None:
    assert text_of(f"packages/aio-{part}/LICENSE") == text_of("LICENSE")


@pytest.mark.parametrize("part", PACKAGES)
def test_every_package_is_typed(part: str) -> None:
    assert (ROOT / f"packages/aio-{part}/src/durabletask_aio/{part}/py.typed").exists()


def test_the_implementation_is_a_namespace() -> None:
    """A file at its root would belong to six distributions; only the core has one, for `python -m durabletask_aio`."""
    files = [path.relative_to(ROOT / "packages") for path in (ROOT / "packages").glob("aio-*/src/durabletask_aio/*.py")]
    assert files == [Path("aio-core/src/durabletask_aio/__main__.py")]


# What sources may hold ---------------------------------------------------------------------------------------


def lines_of_code(source: str) -> int:
    """Lines that hold code: neither blank, nor a comment, nor a docstring (or a string that documents a name)."""
    documented = {
        number
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(map(str.strip, source.splitlines()), start=1)
    return sum(bool(line) and not line.startswith("#") and number not in documented for number, line in lines)


MAX_LINES_OF_CODE = 500


def test_no_module_has_more_than_500_lines_of_code() -> None:
    sizes = {path: lines_of_code(path.read_text(encoding="utf-8")) for path in SOURCES}
    found = [f"{path.relative_to(ROOT)}: {size}" for path, size in sizes.items() if size > MAX_LINES_OF_CODE]
    assert not found, f"modules with more than {MAX_LINES_OF_CODE} lines of code, to be split:\n" + "\n".join(found)


# Releases ----------------------------------------------------------------------------------------------------


@pytest.fixture
def released(tmp_path: Path) -> Path:
    package = tmp_path / "packages" / "aio-core"
    package.mkdir(parents=True)
    (package / "pyproject.toml").write_text('version = "1.2.0"\n')
    (package / "CHANGELOG.md").write_text("## [Unreleased]\n\n## [1.2.0] - 2026-01-01\n")
    return tmp_path


def test_a_release_that_agrees_passes(scripts: Any, released: Path) -> None:
    assert scripts("check_release").complaint("core", "core-v1.2.0", root=released) is None


def test_a_tag_with_another_version_is_refused(scripts: Any, released: Path) -> None:
    complaint = scripts("check_release").complaint("core", "core-v1.3.0", root=released)
    expected = "The tag is core-v1.3.0, but aio-core/pyproject.toml says version 1.2.0: tag core-v1.2.0."
    assert complaint == expected


def test_a_release_nobody_wrote_about_is_refused(scripts: Any, released: Path) -> None:
    (released / "packages" / "aio-core" / "CHANGELOG.md").write_text("## [Unreleased]\n")
    complaint = scripts("check_release").complaint("core", "core-v1.2.0", root=released)
    assert complaint == "aio-core/CHANGELOG.md has no section '## [1.2.0]': say what users get."


# Fresh machines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_setup", "quickstart", "test"])
def test_old_pythons_can_read_the_scripts_that_turn_them_away(name: str) -> None:
    ast.parse(text_of(f"scripts/{name}.py"), feature_version=(3, 6))


def test_an_old_python_is_told_what_to_do(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = scripts("_setup")
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))
    monkeypatch.setattr(sys, "argv", ["scripts/test.py"])
    expected = r"(?s)needs Python 3\.10 or newer; this is 3\.8 .*python3\.12 scripts/test\.py"
    with pytest.raises(SystemExit, match=expected):
        setup.prepare()


def test_a_python_without_ensurepip_is_told_what_to_install(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setup = scripts("_setup")
    monkeypatch.setattr(setup, "ENVIRONMENT", str(tmp_path / ".venv"))
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit, match=r"(?s)'ensurepip' module is missing.*apt-get install python3-venv"):
        setup.prepare()


def test_a_failing_installation_shows_pips_words(
    scripts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = scripts("_setup")
    program = "import sys; print('no such package'); sys.exit(1)"
    with pytest.raises(SystemExit, match="It did not work"):
        setup._run([sys.executable, "-c", program], "It did not work.")
    assert capsys.readouterr().out == "no such package\n"


def test_a_changed_facade_is_installed_again(scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setup = scripts("_setup")
    for part in PARTS:
        folder = tmp_path / "packages" / f"aio-{part}"
        (folder / "facade").mkdir(parents=True)
        (folder / "facade" / FACADES[part]).write_text("before")
        (folder / "pyproject.toml").write_text("")
    monkeypatch.setattr(setup, "ROOT", str(tmp_path))
    before = setup._state_of_the_sources(())
    assert setup._state_of_the_sources(()) == before
    (tmp_path / "packages" / "aio-worker" / "facade" / "worker.py").write_text("after")
    assert setup._state_of_the_sources(()) != before


# Totals ------------------------------------------------------------------------------------------------------


def test_totals_are_added_up_over_runs(scripts: Any) -> None:
    log = [
        "===== 3 passed, 1 skipped, 9 deselected in 0.52s =====\n",
        "\x1b[31m===== \x1b[31m\x1b[1m2 failed\x1b[0m, \x1b[32m4 passed\x1b[0m, 1 error in 61.20s (0:01:01) =====\n",
        "1 passed in 0.10s\n",
        "ordinary output: 5 passed by\n",
    ]
    expected = {"passed": 8, "failed": 2, "skipped": 1, "deselected": 9, "errors": 1}
    assert scripts("totals").totals(log) == expected


def test_totals_name_the_tests_that_were_run_twice(scripts: Any) -> None:
    log = [
        "RERUN tests/test_a.py::test_one\n",
        "\x1b[33mRERUN\x1b[0m tests/test_a.py::test_two[x]\n",
        "RERUN tests/test_a.py::test_one\n",
        "===== 7 passed, 3 rerun in 0.52s =====\n",
    ]
    assert scripts("totals").run_twice(log) == ["tests/test_a.py::test_one", "tests/test_a.py::test_two[x]"]
    assert scripts("totals").totals(log) == {"passed": 7, "failed": 0, "run twice": 3}
