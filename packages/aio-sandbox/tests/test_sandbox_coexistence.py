"""Together with other tools that watch code: coverage.py, debuggers, profilers."""

from __future__ import annotations

import bdb
import cProfile
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import os, sys
sys.path.insert(0, {tests!r})
from conftest import Driver, Layer
import time


def helper(value):
    total = 0
    for index in range(value):
        total += index
    return total


async def workflow(ctx):
    first = helper(3)
    if first > 100:
        first = 0
    try:
        getattr(time, "".join(["ti", "me"]))()
    except Exception:
        first += 1
    return first


if len(sys.argv) > 1:
    outcome = Driver("strict", *Layer)(workflow)
    assert outcome.violation is not None
    assert outcome.result == 4, outcome.error
else:
    try:
        workflow(None).send(None)
    except StopIteration:
        pass
"""


def lines(folder: Path, core: str, *arguments: str) -> list[int]:
    """The lines of the program that coverage.py saw with one of its cores."""
    program = folder / "program.py"
    program.write_text(PROGRAM.format(tests=os.path.dirname(os.path.abspath(__file__))))
    environment = {**os.environ, "COVERAGE_CORE": core, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "coverage"]
    for step in (["run", "--data-file=data", "program.py", *arguments], ["json", "--data-file=data", "-o", "out.json"]):
        subprocess.run([*command, *step], cwd=folder, env=environment, check=True, capture_output=True, text=True)
    report = json.loads((folder / "out.json").read_text())
    executed: list[int] = report["files"]["program.py"]["executed_lines"]
    # Lines of the workflow and its helper; those of the driver at the end differ anyway.
    end = PROGRAM.split("if len(sys.argv)")[0].count("\n")
    return [line for line in executed if line <= end]


@pytest.mark.slow
@pytest.mark.parametrize("core", ["ctrace", "pytrace", "sysmon"])
def test_coverage_sees_the_same_lines_as_without_the_sandbox(core: str, tmp_path: Path) -> None:
    pytest.importorskip("coverage")
    if core == "sysmon" and sys.version_info < (3, 12):
        pytest.skip("coverage.py has no such core here")

    without, with_sandbox = lines(tmp_path, core), lines(tmp_path, core, "strict")

    # The handler is reached only if there is a violation.
    text = PROGRAM.splitlines()
    handler = {number for number, line in enumerate(text, 1) if line.strip() in {"except Exception:", "first += 1"}}
    assert {*without, *handler} == set(with_sandbox)


def helper(value: int) -> int:
    total = 0
    for index in range(value):
        total += index
    return total


class Debugger(bdb.Bdb):
    def __init__(self) -> None:
        super().__init__()
        self.hits: list[int] = []

    def user_line(self, frame: Any) -> None:
        if frame.f_code is helper.__code__ and frame.f_lineno in self.get_file_breaks(frame.f_code.co_filename):
            self.hits.append(frame.f_lineno)
        self.set_continue()


def test_breakpoints_in_workflow_code_are_hit(strict: Any) -> None:
    async def workflow(ctx: Any) -> int:
        return helper(4)

    strict(workflow)
    debugger = Debugger()
    line = helper.__code__.co_firstlineno + 3
    debugger.set_break(__file__, line)
    before = sys.gettrace()
    try:
        outcome = debugger.runcall(strict, workflow)
    finally:
        sys.settrace(before)

    assert (outcome.result, [line] * 4) == (6, debugger.hits)


def test_a_profiler_sees_the_workflow_and_strict_still_raises(strict: Any) -> None:
    async def workflow(ctx: Any) -> float:
        helper(3)
        return time.time()

    profiler = cProfile.Profile()
    before = sys.getprofile()
    sys.setprofile(None)
    try:
        outcome = profiler.runcall(strict, workflow)
    finally:
        sys.setprofile(before)
    profiler.create_stats()

    assert outcome.violation is not None
    assert "helper" in {name for _, _, name in profiler.stats}
