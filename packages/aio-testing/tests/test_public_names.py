"""The public import path shows what the package offers, and nothing else."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import durabletask_aio.testing as package

FACADE = Path(__file__).parents[1] / "facade" / "testing.py"


def test_the_facade_has_every_name_of_the_package():
    spec = importlib.util.spec_from_file_location("facade_under_test", FACADE)
    facade = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(facade)
    assert sorted(facade.__all__) == sorted(package.__all__)
    assert {name: getattr(facade, name) for name in facade.__all__} == {
        name: getattr(package, name) for name in package.__all__
    }


def test_every_name_shows_its_public_path():
    modules = {name: value.__module__ for name in package.__all__ if callable(value := getattr(package, name))}
    other = {name: module for name, module in modules.items() if module != "durabletask.aio.testing"}
    assert not other, f"these show another module: {other}"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'durabletask_aio\.testing' has no attribute 'nothing'"):
        _ = package.nothing


def test_the_map_of_the_package_has_every_module():
    modules = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - {"__init__"}
    entries = re.findall(r"^    (\w[\w, ]*):", package.__doc__, re.MULTILINE)
    assert sorted(name for entry in entries for name in entry.split(", ")) == sorted(modules)


def test_a_core_with_another_hosting_interface_is_refused():
    program = (
        "import durabletask_aio.core.hosting as hosting\n"
        "hosting.VERSION = 2\n"
        "import durabletask_aio.testing._upstream\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"ImportError: durabletask-aio-testing \S+ was written for version 1 of the core's", done.stderr)
