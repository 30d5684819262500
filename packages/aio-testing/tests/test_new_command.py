"""`durabletask-aio new`: the project runs, and its tests pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from durabletask_aio.core.cli import main

FILES = ["README.md", "pyproject.toml", ".gitignore", "workflows.py", "main.py", "test_workflows.py"]


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_makes_the_files_and_says_what_to_do_next(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "services/My-App"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert output.startswith("Made services/My-App with README.md, pyproject.toml, ")
    assert "python main.py order-1 5" in output
    folder = tmp_path / "services" / "My-App"
    assert sorted(each.name for each in folder.iterdir()) == sorted(FILES)
    texts = {each.name: each.read_text(encoding="utf-8") for each in folder.iterdir()}
    assert not [name for name, text in texts.items() if "{{" in text]
    assert 'name = "my-app"' in texts["pyproject.toml"]
    assert 'Engine("My_App.db")' in texts["main.py"]


def test_prints_json(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my_app", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": "my_app", "files": FILES}


def test_fills_an_empty_folder_and_no_other(tmp_path, capsys, monkeypatch) -> None:
    folder = tmp_path / "my_app"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert main(["new", "."]) == 0
    changed = folder / "workflows.py"
    changed.write_text("kept")
    capsys.readouterr()
    assert main(["new", "."]) == 2
    assert capsys.readouterr().err == "error: . is not empty\n"
    assert changed.read_text() == "kept"


@pytest.mark.parametrize("name", ["3x", "class", "my app", "café"])
def test_refuses_what_is_no_name(name, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", name]) == 2
    message = f"error: {name!r} cannot be the name of a project: use letters, digits and '_', as in my_app\n"
    assert capsys.readouterr().err == message
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_project_runs_and_its_tests_pass(tmp_path) -> None:
    assert main(["new", str(tmp_path / "my_app")]) == 0
    folder = tmp_path / "my_app"
    usage = run_python(folder, "main.py")
    assert (usage.returncode, usage.stderr) == (1, "usage: python main.py ORDER_ID AMOUNT\n")
    first = run_python(folder, "main.py", "order-1", "5")
    assert first.stdout == "charging 5 euros for order-1\nshipping\nshipped, receipt for 5 euros\n", first.stderr
    again = run_python(folder, "main.py", "order-1", "5")
    assert again.stdout == "shipped, receipt for 5 euros\n", again.stderr
    tests = run_python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "2 passed" in tests.stdout, tests.stdout
    assert run_python(folder, "-m", "durabletask_aio", "check", ".").returncode == 0


@pytest.mark.slow
def test_the_project_has_types(tmp_path) -> None:
    pytest.importorskip("mypy")
    assert main(["new", str(tmp_path / "my_app")]) == 0
    found = run_python(tmp_path / "my_app", "-m", "mypy", "--strict", "--explicit-package-bases", ".")
    assert found.returncode == 0, found.stdout
