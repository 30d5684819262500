"""The steps of docs/tutorial.md: their tests pass, and the program of step 3 survives `kill -9`."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from durabletask.aio.sandbox import check
from durabletask.aio.testing import WorkflowEnvironment

ROOT = Path(__file__).resolve().parent.parent
STEPS = sorted((ROOT / "examples" / "tutorial").iterdir())


def load(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_every_file() -> None:
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    shown = re.findall(r"^<!-- program: (\S+) -->$", page, re.MULTILINE)
    assert sorted(shown) == [path.relative_to(ROOT).as_posix() for step in STEPS for path in sorted(step.glob("*.py"))]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_tests_of_a_step_pass(step: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(step / "shop.py", monkeypatch)
    names = vars(load(step / "test_shop.py", monkeypatch))
    tests = [test for name, test in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        if inspect.iscoroutinefunction(test):
            asyncio.run(test(WorkflowEnvironment))
        else:
            test()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_checker_finds_nothing_in_a_step(step: Path) -> None:
    assert check(step / "shop.py") == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_the_order_of_step_3_continues_after_a_kill(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = ("--address", f"localhost:{port}")

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "examples/tutorial/step_3/shop.py")],
            cwd=tmp_path,
            env={**os.environ, "PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "durabletask_aio", *arguments, *address]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)

    def wait_for(text: str, *arguments: str) -> None:
        deadline = time.monotonic() + 60
        while text not in command(*arguments).stdout:
            assert time.monotonic() < deadline, f"{arguments} does not print {text!r}"

    first = start()
    wait_for('"waiting for pickup"', "show", "order-1")
    first.send_signal(signal.SIGKILL)
    assert first.communicate(timeout=60)[0] == "charging 5 euros\n"
    second = start()
    wait_for("Sent picked-up to order-1.", "raise", "order-1", "picked-up", "--data", '"van 7"')
    assert second.communicate(timeout=60)[0] == "on its way with van 7, receipt for 5 euros\n"
    assert second.returncode == 0
