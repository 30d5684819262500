"""What the package offers, and the list of its modules."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import durabletask_aio.engine as package
from durabletask_aio.engine.embedded import Engine

FOLDER = Path(package.__file__).parent
FACADE = Path(__file__).parents[1] / "facade" / "engine.py"


def test_the_facade_has_no_other_public_name_than_those_it_lists() -> None:
    spec = importlib.util.spec_from_file_location("facade_under_test", FACADE)
    assert spec is not None
    assert spec.loader is not None
    facade = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(facade)

    assert sorted(name for name in vars(facade) if not name.startswith("_")) == sorted(facade.__all__)


def test_the_list_of_modules_is_complete() -> None:
    names = {
        ".".join(path.relative_to(FOLDER).with_suffix("").parts)
        for path in FOLDER.rglob("*.py")
        if path.name != "__init__.py"
    }
    entries = re.findall(r"^    ([\w.]+(?:, [\w.]+)*): ", package.__doc__ or "", re.MULTILINE)

    assert sorted(name for entry in entries for name in entry.split(", ")) == sorted(names)


def test_importing_the_engine_imports_no_other_package_of_this_project() -> None:
    program = "import sys, durabletask_aio.engine\nprint(*(m for m in sys.modules if m.startswith('durabletask')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert {name.split(".")[1] for name in done.stdout.split() if name.startswith("durabletask_aio.")} == {"engine"}


def test_the_page_without_its_extra_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("durabletask_aio.engine.web.app")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)

    with Engine() as engine, pytest.raises(ImportError, match=r'pip install "durabletask-aio-engine\[ui\]"'):
        engine.page()


def test_the_page_of_an_engine_that_does_not_run_is_refused() -> None:
    with pytest.raises(RuntimeError, match="the engine does not run"):
        Engine().page()
