"""What users install: wheels, in fresh environments, in every combination and in many orders.

One environment is enough for all orders: that each walk leaves it as it was is asserted.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("core", "worker", "sandbox", "testing", "engine")
COMPANIONS = PARTS[1:]
FACADES = {part: "__init__.py" if part == "core" else f"{part}.py" for part in PARTS}
OLDEST, NEWEST = "1.12.0", "1.12.0"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROBE = Path(__file__).with_name("packaging_probe.py")


def uv(*arguments: str | Path) -> str:
    """Run uv, which makes an environment in the time pip takes to start."""
    command = [sys.executable, "-m", "uv", "--no-progress", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named uv" in result.stderr:
        pytest.fail("These tests need uv, which the environment of `hatch run test:slow` has.")
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}{result.stderr}"
    return result.stdout


class Environment:
    """A virtual environment of the Python that runs the tests, with nothing of this repository in it."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.wheels = wheels
        self.folder = folder
        uv("venv", "--python", sys.executable, "--seed", folder)
        scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = scripts / ("python.exe" if os.name == "nt" else "python")
        self.scripts = scripts

    def wheel(self, part: str) -> Path:
        (path,) = self.wheels.glob(f"durabletask_aio_{part}-*.whl")
        return path

    def install(self, *what: str | Path, **options: bool) -> None:
        flags = [f"--{name.replace('_', '-')}" for name, wanted in options.items() if wanted]
        uv("pip", "install", "--python", self.python, "--find-links", self.wheels, *flags, *what)

    def install_part(self, part: str) -> None:
        # One wheel and nothing else: with its dependencies, installing a plugin would bring the core along, and
        # half of the states that an interrupted pip leaves behind would never be seen.
        self.install(self.wheel(part), no_deps=True)

    def uninstall_part(self, part: str) -> None:
        uv("pip", "uninstall", "--python", self.python, f"durabletask-aio-{part}")

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DT_", "DAPR"))}
        command = [str(argument) for argument in (self.python, *arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self.folder, env=environment, timeout=300
        )

    def probe(self) -> dict[str, Any]:
        """What a fresh interpreter finds; see packaging_probe.py."""
        result = self.run(PROBE)
        assert result.returncode == 0, result.stdout + result.stderr
        report: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return report

    def records(self) -> dict[str, set[str]]:
        """The files of each distribution of this project, and of upstream, according to their RECORDs."""
        (packages,) = (path.parent.parent for path in self.folder.rglob("durabletask/worker.py"))
        return {
            path.parent.name.split("-")[0]: {row[0] for row in csv.reader(path.read_text().splitlines())}
            for path in packages.glob("durabletask*.dist-info/RECORD")
        }


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for part in PARTS:
        uv("build", "--wheel", "--out-dir", folder, ROOT / "packages" / f"aio-{part}")
    return folder


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Environment:
    """The environment in which the orders are walked: upstream is there, this project is not."""
    environment = Environment(tmp_path_factory.mktemp("walked") / "env", wheels)
    environment.install(f"durabletask=={NEWEST}", "pytest")
    return environment


@pytest.fixture
def fresh(tmp_path: Path, wheels: Path) -> Environment:
    return Environment(tmp_path / "env", wheels)


# Every combination, every order ------------------------------------------------------------------------------


def assert_report_fits(report: dict[str, Any], installed: set[str]) -> None:
    """`report` is what a user should meet who has exactly the packages `installed`."""
    expected = what_a_user_meets(installed)
    for fact, wanted in expected.items():
        got = report[fact]
        if isinstance(wanted, re.Pattern):
            assert wanted.search(str(got)), f"{fact} with {sorted(installed)}: {got}"
        elif isinstance(wanted, str):
            assert wanted in str(got), f"{fact} with {sorted(installed)}: {got}"
        else:
            assert got == wanted, f"{fact} with {sorted(installed)}: {got}"
    assert set(expected) == set(report)


def what_a_user_meets(installed: set[str]) -> dict[str, Any]:
    """By fact: True where it works, a part of the error where it does not."""
    core, worker, sandbox, testing, engine = (part in installed for part in PARTS)
    missing_core = re.compile(r"pip install .*durabletask-aio-core")
    without_core = "No module named 'durabletask.aio.{}'"
    facts: dict[str, Any] = {
        "generators still register": True,
        "public names": True if core else "durabletask.aio",
    }
    for part in COMPANIONS:
        if part not in installed:
            facts[f"import durabletask.aio.{part}"] = "durabletask.aio" if not core else without_core.format(part)
        else:
            facts[f"import durabletask.aio.{part}"] = True if core else missing_core
    if testing and core and not (worker and engine):
        missing = "worker" if engine else "engine"
        facts["import durabletask.aio.testing"] = f"pip install durabletask-aio-{missing}"
    if core:
        facts["as_orchestrator registers"] = True
        facts["an async function registers"] = True if worker else "pip install durabletask-aio-worker"
        modes = True if sandbox else 'pip install "durabletask-aio-core[sandbox]"'
        facts["as_orchestrator with a mode"] = modes
        facts["an async function with a mode"] = modes if worker else "pip install durabletask-aio-worker"
    return facts


def orders() -> list[tuple[str, ...]]:
    """The orders of four packages, with the engine at each position in turn.

    All 120 orders would take five times as long and show little more: the engine needs the core and is needed by the
    test kit, as the worker is, and comes before and after each of the two.
    """
    others = [part for part in PARTS if part != "engine"]
    found: list[tuple[str, ...]] = []
    for number, order in enumerate(itertools.permutations(others)):
        position = number % len(PARTS)
        found.append((*order[:position], "engine", *order[position:]))
    return found


@pytest.mark.parametrize("order", orders(), ids="-".join)
def test_each_order_of_installing_and_uninstalling(walked: Environment, order: tuple[str, ...]) -> None:
    installed: set[str] = set()
    for part in PARTS:  # what a failed walk may have left behind
        walked.uninstall_part(part)
    before = walked.records()
    assert set(before) == {"durabletask"}
    for part in order:
        walked.install_part(part)
        installed.add(part)
        assert_report_fits(walked.probe(), installed)
    # Uninstalled in another order each time: the permutations of the last three rotate independently of the first.
    for part in (order[2], order[0], order[4], order[3], order[1]):
        walked.uninstall_part(part)
        installed.remove(part)
        assert_report_fits(walked.probe(), installed)
    assert walked.records() == before


def test_pip_itself_installs_and_uninstalls(fresh: Environment) -> None:
    def pip(*arguments: str | Path) -> None:
        result = fresh.run("-m", "pip", "--disable-pip-version-check", *arguments)
        assert result.returncode == 0, result.stdout + result.stderr

    pip("install", "--quiet", "--find-links", fresh.wheels, "durabletask-aio-core[all]")
    assert_report_fits(fresh.probe(), set(PARTS))
    pip("uninstall", "--yes", "durabletask-aio-core")
    assert_report_fits(fresh.probe(), set(COMPANIONS))
    pip("install", "--quiet", "--find-links", fresh.wheels, "durabletask-aio-core")
    assert_report_fits(fresh.probe(), set(PARTS))


def test_the_core_alone_from_its_folder(fresh: Environment) -> None:
    fresh.install(ROOT / "packages" / "aio-core")
    assert_report_fits(fresh.probe(), {"core"})


@pytest.mark.parametrize("extra", [*COMPANIONS, "all"])
def test_extras_of_the_core_bring_the_companions(fresh: Environment, extra: str) -> None:
    fresh.install(f"durabletask-aio-core[{extra}]", "pytest")
    expected = {"testing": {"worker", "testing", "engine"}, "all": set(PARTS)}
    assert_report_fits(fresh.probe(), {"core"} | expected.get(extra, {extra}))


def test_the_quick_start_runs_on_what_is_installed(fresh: Environment) -> None:
    fresh.install("durabletask-aio-core[all]")
    program = ROOT / "examples" / "order.py"
    crashed, completed = fresh.run(program, "--crash"), fresh.run(program)
    assert crashed.returncode != 0
    assert crashed.stdout == "charging 5 euros\nshipping\n"
    assert completed.stdout == "shipping\nshipped, receipt for 5 euros\n", completed.stderr


# Neighbours --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reinstalled", [OLDEST, NEWEST])
def test_upstream_is_replaced_beneath_us(fresh: Environment, reinstalled: str) -> None:
    fresh.install("durabletask-aio-core[all]", f"durabletask=={NEWEST}", "pytest")
    fresh.install(f"durabletask=={reinstalled}", reinstall=True)
    assert_report_fits(fresh.probe(), set(PARTS))


def test_an_upstream_that_is_too_old_is_named(fresh: Environment) -> None:
    fresh.install("durabletask-aio-core")
    fresh.install("durabletask==1.0.0", no_deps=True)
    error = fresh.probe()["public names"]
    assert "and 1.0.0 is installed" in error
    assert "pip install 'durabletask<2,>=" in error


def test_dapr_installed_before_us_is_named(fresh: Environment) -> None:
    fresh.install("durabletask-dapr==0.17.4")
    fresh.install("durabletask-aio-core[all]", "pytest")
    report = fresh.probe()
    assert "pip uninstall durabletask-dapr" in report["public names"]


def test_dapr_installed_over_us_is_named(fresh: Environment) -> None:
    """It overwrites our `durabletask/aio/__init__.py`: what it did not overwrite has to tell."""
    fresh.install("durabletask-aio-core[all]", "pytest")
    fresh.install("durabletask-dapr==0.17.4")
    report = fresh.probe()
    for part in COMPANIONS:
        assert "pip uninstall durabletask-dapr" in report[f"import durabletask.aio.{part}"]
    command = fresh.run("-m", "durabletask_aio.core.cli", "--help")
    assert command.returncode != 0
    assert "pip uninstall durabletask-dapr" in command.stderr


# Files -------------------------------------------------------------------------------------------------------


def test_no_file_belongs_to_two_distributions(fresh: Environment) -> None:
    fresh.install("durabletask-aio-core[all]")
    records = fresh.records()
    assert set(records) == {"durabletask", *(f"durabletask_aio_{part}" for part in PARTS)}
    for one, other in itertools.combinations(records, 2):
        assert records[one].isdisjoint(records[other]), (one, other)


@pytest.fixture
def wheel_checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import wheels as checks

    yield checks
    sys.modules.pop("wheels", None)


@pytest.mark.parametrize("part", PARTS)
def test_a_wheel_contains_what_it_should_and_nothing_else(wheels: Path, wheel_checks: Any, part: str) -> None:
    (path,) = wheels.glob(f"durabletask_aio_{part}-*.whl")
    assert wheel_checks.surprises(path) == []


def test_a_stray_file_in_a_wheel_would_be_seen(wheels: Path, wheel_checks: Any, tmp_path: Path) -> None:
    (original,) = wheels.glob("durabletask_aio_core-*.whl")
    copy = tmp_path / original.name
    copy.write_bytes(original.read_bytes())
    with zipfile.ZipFile(copy, "a") as archive:
        archive.writestr("durabletask_aio/core/notes.txt", "")
    assert wheel_checks.surprises(copy) == [f"{copy.name} should not contain durabletask_aio/core/notes.txt"]


@pytest.mark.parametrize("part", PARTS)
def test_the_facade_in_a_wheel_is_the_one_in_the_sources(wheels: Path, part: str) -> None:
    (path,) = wheels.glob(f"durabletask_aio_{part}-*.whl")
    sources = sorted((ROOT / "packages" / f"aio-{part}" / "facade").glob("*.py"))
    assert FACADES[part] in [source.name for source in sources]
    with zipfile.ZipFile(path) as archive:
        for source in sources:
            assert archive.read(f"durabletask/aio/{source.name}") == source.read_bytes()
