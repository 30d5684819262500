"""What the package offers, and the list of its modules."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import durabletask_aio.engine as package

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
