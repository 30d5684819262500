"""What a workflow gives to `ctx.run` is code of an activity, for each layer of the sandbox."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import textwrap
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import pytest
from durabletask.client import OrchestrationFailedError

from durabletask_aio.core import AsyncWorkflowContext, NonDeterminismWarning, SandboxViolationError
from durabletask_aio.core.command_line import run_command
from durabletask_aio.sandbox.cli.check import check as command
from durabletask_aio.sandbox.static.checker import Settings, check_sources
from durabletask_aio.testing import WorkflowEnvironment

HEADER = (
    "import os\nfrom durabletask.aio import AsyncWorkflowContext\n\nasync def flow(ctx: AsyncWorkflowContext, a):\n    "
)

HEAD = """
import functools, os, time
from pathlib import Path
from durabletask.aio import AsyncWorkflowContext

def given(): ...

def read():
    return Path("rates").read_text() + os.environ["REGION"]

class Client:
    def __init__(self, url): self.url = url
    def fetch(self): return Path(self.url).read_text()
    @property
    def clock(self): return time.time()

"""

STEPS = {
    "a function": "await ctx.run(read)",
    "a function of a library": "await ctx.run(time.time)",
    "a method of the environment": "await ctx.run(os.environ.get, 'REGION')",
    "a lambda": "await ctx.run(lambda: read() + str(time.time()), name='rates')",
    "a partial": "await ctx.run(functools.partial(open, 'rates', encoding='utf-8'))",
    "a partial of a lambda": "await ctx.run(functools.partial(lambda name: open(name), 'rates'))",
    "a method": "await ctx.run(Client('rates').fetch)",
    "a method of a path": "await ctx.run(Path('rates').read_text)",
    "a callback among the arguments": "await ctx.run(read, lambda: time.time())",
    "a local function": "def local():\n    return read()\nawait ctx.run(local)",
    "a local function of another step's": "def a():\n    return read()\ndef b():\n    return a()\nawait ctx.run(b)",
    "a local function in a partial": "def local(n):\n    return read()\nawait ctx.run(functools.partial(local, 1))",
    "a local function in a lambda": "def local():\n    return read()\nawait ctx.run(lambda: local())",
    "a lambda in a variable": "local = lambda: time.time()\nawait ctx.run(local)",
    "a partial in a variable": "local = functools.partial(os.getenv, 'REGION')\nawait ctx.run(local)",
    "two side by side": "await asyncio.gather(ctx.run(lambda: time.time()), ctx.run(lambda: open('rates')))",
}

WORKFLOW_CODE = {
    "an argument": ("await ctx.run(str, time.time())", "DET101"),
    "the default of a lambda": ("await ctx.run(lambda now=time.time(): now)", "DET101"),
    "an argument of a partial": ("await ctx.run(functools.partial(str, time.time()))", "DET101"),
    "a property whose value is run": ("await ctx.run(Client('rates').clock)", "DET101"),
    "the environment as a value": ("await ctx.run(len, os.environ)", "DET401"),
    "a local function that is called, too": (
        "def local():\n    return time.time()\nawait ctx.run(local)\nlocal()",
        "DET101",
    ),
    "a lambda in a variable, called": ("local = lambda: time.time()\nawait ctx.run(local)\nlocal()", "DET101"),
    "another object's run": ("Client('rates').run(lambda: time.time())", "DET101"),
    "a step that is not awaited": ("ctx.run(read)", "DET802"),
}


def codes(body: str, folder: Path) -> list[str]:
    file = folder / "flow.py"
    text = textwrap.indent(body, "    ")
    file.write_text(f"{HEAD}import asyncio\nasync def workflow(ctx: AsyncWorkflowContext):\n{text}\n", encoding="utf-8")
    return sorted({finding.rule.code for finding in check_sources([file], Settings()).findings})


@pytest.mark.parametrize("name", STEPS)
def test_the_checker_finds_nothing_in_a_step(name: str, tmp_path: Path) -> None:
    assert codes(STEPS[name], tmp_path) == []


CHANGES = {
    "a list": "found = []\nawait ctx.run(lambda: found.append(1))",
    "a list in a function": "found = list()\ndef local():\n    found.append(1)\nawait ctx.run(local)",
    "an element": "found = given()\ndef local():\n    found['a'] = 1\nawait ctx.run(local)",
    "an attribute": "found = given()\ndef local():\n    found.a.b = 1\nawait ctx.run(functools.partial(local))",
    "a variable": "found = 1\ndef local():\n    nonlocal found\n    found += 1\nawait ctx.run(local)",
}

NO_CHANGES = {
    "an own list": "found = []\ndef local(n):\n    found = []\n    found.append(n)\nawait ctx.run(local, 1)",
    "an argument": "found = []\ndef local(found):\n    found.append(1)\nawait ctx.run(local, found)",
    "a session": "session = given()\nawait ctx.run(lambda: session.add(1))",
    "the workflow's own change": "found = []\nfound.append(await ctx.run(read))",
    "a reader": "found = []\nawait ctx.run(lambda: len(found))",
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_step_that_changes_a_variable_of_the_workflow_is_found(name: str, tmp_path: Path) -> None:
    assert codes(CHANGES[name], tmp_path) == ["DET815"]


@pytest.mark.parametrize("name", NO_CHANGES)
def test_a_step_that_changes_what_is_its_own_is_fine(name: str, tmp_path: Path) -> None:
    assert codes(NO_CHANGES[name], tmp_path) == []


@pytest.mark.parametrize("name", WORKFLOW_CODE)
def test_what_is_evaluated_for_a_step_is_code_of_the_workflow(name: str, tmp_path: Path) -> None:
    body, code = WORKFLOW_CODE[name]

    assert codes(body, tmp_path) == [code]


class Machine:
    def name(self) -> str:
        return socket.gethostname()


def stamp() -> float:
    return time.time()


async def stamp_async() -> float:
    await asyncio.sleep(0)
    return stamp()


async def every_kind(ctx: AsyncWorkflowContext, folder: str) -> list[Any]:
    def local() -> float:
        return stamp()

    in_variable = lambda: time.time()  # noqa: E731
    return [
        await ctx.run(time.time),
        await ctx.run(stamp),
        await ctx.run(stamp_async),
        await ctx.run(local),
        await ctx.run(in_variable),
        await ctx.run(lambda: time.time(), name="lambda"),
        await ctx.run(functools.partial(time.time), name="partial"),
        await ctx.run(functools.partial(lambda: stamp()), name="partial of a lambda"),
        await ctx.run(lambda: str(uuid.uuid4()), name="uuid"),
        await ctx.run(Machine().name),
        await ctx.run(os.listdir, folder),
        await ctx.run((Path(folder) / "rates").read_text),
        await ctx.run(os.environ.get, "REGION"),
        await ctx.run(lambda: eval("time.time()", {"time": time}), name="text"),
    ]


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
@pytest.mark.filterwarnings("error::durabletask_aio.core.NonDeterminismWarning")
def test_steps_run_as_activities_do(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither refused, nor warned of, nor given the values of the workflow's clock."""
    monkeypatch.setenv("REGION", "north")
    (tmp_path / "rates").write_text("1.2")

    async def main() -> list[Any]:
        async with WorkflowEnvironment(orchestrators=[every_kind], sandbox_mode=mode) as environment:
            found: list[Any] = await environment.execute(every_kind, input=str(tmp_path))
            return found

    started = time.time()
    result = asyncio.run(main())

    assert all(started <= moment <= time.time() for moment in [*result[:8], result[13]])
    assert uuid.UUID(result[8]).version == 4
    assert result[9:13] == [socket.gethostname(), ["rates"], "1.2", "north"]


async def reads_the_clock_for_a_step(ctx: AsyncWorkflowContext, _: None) -> str:
    return await ctx.run(str, stamp())


def test_arguments_of_a_step_are_computed_by_the_workflow() -> None:
    async def main(mode: str) -> Any:
        async with WorkflowEnvironment(orchestrators=[reads_the_clock_for_a_step], sandbox_mode=mode) as environment:
            return await environment.execute(reads_the_clock_for_a_step)

    with pytest.raises(SandboxViolationError, match=r"or `await ctx\.run\(\.\.\.\)` for the machine's clock"):
        asyncio.run(main("strict"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main("best_effort"))
    assert any(each.category is NonDeterminismWarning for each in caught)


async def forgets_a_step(ctx: AsyncWorkflowContext, _: None) -> str:
    kept = ctx.run(stamp)
    await ctx.sleep(1)
    return type(kept).__name__


@pytest.mark.filterwarnings("ignore::durabletask_aio.core.NonDeterminismWarning")
def test_a_step_that_is_not_awaited_fails_a_strict_workflow() -> None:
    async def main() -> None:
        async with WorkflowEnvironment(orchestrators=[forgets_a_step], sandbox_mode="strict") as environment:
            await environment.execute(forgets_a_step)

    line = forgets_a_step.__code__.co_firstlineno + 1
    with pytest.raises(OrchestrationFailedError, match=rf"step 'stamp' \(.*test_sandbox_steps\.py:{line}\) was never"):
        asyncio.run(main())


class TestFix:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("return os.getenv('A')", "return await ctx.run(os.getenv, 'A')"),
            ("return os.getenv('A', None)", "return await ctx.run(os.getenv, 'A', None)"),
            ("return os.getcwd().upper()", "return (await ctx.run(os.getcwd)).upper()"),
            (
                "return [os.path.getsize(*each) for each in a]",
                "return [await ctx.run(os.path.getsize, *each) for each in a]",
            ),
        ],
    )
    def test_a_simple_call_becomes_a_step_on_request(
        self,
        before: str,
        after: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        file = tmp_path / "flow.py"
        file.write_text(f"{HEADER}{before}\n")

        assert run_command(command, ["--fix", "flow.py"], prog_name="check") == 1
        assert file.read_text() == f"{HEADER}{before}\n"
        assert run_command(command, ["--fix", "--unsafe-fixes", "flow.py"], prog_name="check") == 0
        assert "Those that add an operation to the history are for new instances" in capsys.readouterr().err
        assert file.read_text() == f"{HEADER}{after}\n"

    @pytest.mark.parametrize(
        "call", ["os.getenv(key='A')", "os.path.exists(x for x in a)", "open('a')", "os.walk('a')"]
    )
    def test_other_calls_are_left_alone(self, call: str, tmp_path: Path) -> None:
        file = tmp_path / "flow.py"
        file.write_text(f"{HEADER}{call}\n")

        (finding,) = check_sources([file], Settings()).findings

        assert finding.fix is None
        assert "`await ctx.run(...)`" in finding.message
