"""`examples/agent.py`: with a fake model in a test, and killed in the middle."""

from __future__ import annotations

import asyncio
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from durabletask.aio.sandbox import check
from durabletask.aio.testing import WorkflowEnvironment

PROGRAM = Path(__file__).resolve().parent.parent / "examples" / "agent.py"

KILLED = f"""
import asyncio, os, runpy, sys

program = runpy.run_path({str(PROGRAM)!r})
call_model, tools = program["call_model"], program["TOOLS"]
asyncio.sleep = lambda seconds, sleep=asyncio.sleep: sleep(min(seconds, 0.01))


def note(name):
    with open("log", "a") as file:
        file.write(name + "\\n")
    if sys.argv[1:] == [name]:
        os.kill(os.getpid(), 9)


async def fake_model(ctx, messages):
    note("model")
    return await call_model(ctx, messages)


def noting(name, tool):
    def noted(*arguments):
        note(name)
        return tool(*arguments)

    return noted


fake_model.__name__ = "call_model"
program["main"].__globals__["call_model"] = fake_model
tools.update({{name: noting(name, tool) for name, tool in tools.items()}})
asyncio.run(program["main"]())
"""


def test_the_loop_with_a_fake_model() -> None:
    """The environment replays what it ran, under the sandbox too."""
    program = runpy.run_path(str(PROGRAM))

    async def main() -> Any:
        async with WorkflowEnvironment(orchestrators=[program["agent"]], sandbox_mode="strict") as env:
            model = env.stub("call_model", sequence=[["find_cities", "to Oslo"], ["hour"], ["answer", "at noon"]])
            env.stub("hour", returns=12)
            answer = await env.execute("agent", input="when?")
            return answer, [call.input for call in model.calls]

    assert asyncio.run(main()) == ("at noon", [["when?"], ["when?", ["Oslo"]], ["when?", ["Oslo"], 12]])


def test_the_checker_finds_nothing_in_it() -> None:
    assert check(PROGRAM) == []


def test_it_is_short() -> None:
    assert len([line for line in PROGRAM.read_text(encoding="utf-8").splitlines() if line.strip()]) < 40


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_it_goes_on_after_its_process_was_killed_in_a_tool(tmp_path: Path) -> None:
    """What is recorded is not done again; what was under way is."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED, encoding="utf-8")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=120, check=False
        )

    killed = run("warmest")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = run()
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("['Lisbon', ")

    done = (tmp_path / "log").read_text(encoding="utf-8").split()
    assert done == ["model", "find_cities", "model", "warmest", "warmest", "model", "hour", "model"]
