"""`durabletask-aio run`: the workflow of a file, on an engine in the process of the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from durabletask_aio.core.cli import main

APPLICATION = """
from __future__ import annotations

from durabletask.aio import AsyncWorkflowContext
from durabletask.task import ActivityContext
from parts_{name} import ship


def charge(ctx: ActivityContext, amount: int) -> str:
    if amount < 0:
        raise ValueError("nothing to pay")
    return f"receipt for {{amount}}"


def unmarked(ctx, amount):
    return amount


async def order(ctx: AsyncWorkflowContext, amount: int) -> str:
    receipt = await ctx.call_activity(charge, input=amount)
    return await ctx.call_sub_orchestrator(delivery, input=receipt)


async def delivery(ctx: AsyncWorkflowContext, receipt: str) -> str:
    return await ctx.call_activity(ship, input=receipt)


async def plain(ctx, amount):
    return await ctx.call_activity("unmarked", input=amount)
"""

PARTS = """
from durabletask.task import ActivityContext


def ship(ctx: ActivityContext, receipt: str) -> str:
    return f"shipped, {receipt}"
"""

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a file in the current directory; its modules are imported once in this process."""
    name = f"app_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(APPLICATION.format(name=name))
    (tmp_path / f"parts_{name}.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; returns exit code, output and errors."""

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main(["run", *arguments])
        return (code, *capsys.readouterr())

    return command


def test_runs_a_workflow_with_the_activities_and_children_of_its_module(app: str, run: Run) -> None:
    assert run(f"{app}.py:order", "--input", "5") == (0, '"shipped, receipt for 5"\n', "")


def test_takes_the_name_of_a_module_and_prints_json(app: str, run: Run) -> None:
    code, output, errors = run(f"{app}:order", "--input", "5", "--id", "order-1", "--json")
    document = json.loads(output)
    assert (code, errors) == (0, "")
    assert (document["instance_id"], document["status"]) == ("order-1", "completed")


def test_a_failed_workflow_has_its_failure_and_exit_code_1(app: str, run: Run) -> None:
    code, output, errors = run(f"{app}.py:order", "--input", "-1")
    assert (code, output) == (1, "")
    assert "WARNING: " in errors
    assert "activity 'charge' failed, attempt 1 of 1: builtins.ValueError: nothing to pay" in errors
    assert "is failed: durabletask.task.TaskFailedError: activity 'charge' failed" in errors


def test_a_function_without_annotations_is_a_workflow_if_it_is_named_and_no_activity(app: str, run: Run) -> None:
    code, _, errors = run(f"{app}.py:plain", "--input", "5")
    assert code == 1
    assert "no activity 'unmarked' is registered here; there are: charge, ship" in errors


def test_an_instance_of_a_file_is_not_started_twice(app: str, run: Run) -> None:
    first = run(f"{app}.py:order", "--input", "5", "--db", "orders.db", "--id", "order-1")
    assert first == (0, '"shipped, receipt for 5"\n', "")
    again = run(f"{app}.py:order", "--input", "7", "--db", "orders.db", "--id", "order-1")
    assert again == (0, '"shipped, receipt for 5"\n', "order-1 was started before; waiting for its end.\n")


def test_an_instance_of_another_workflow_is_refused(app: str, run: Run) -> None:
    assert run(f"{app}.py:delivery", "--input", '"it"', "--db", "orders.db", "--id", "order-1")[0] == 0
    code, output, errors = run(f"{app}.py:order", "--input", "5", "--db", "orders.db", "--id", "order-1")
    assert (code, output) == (2, "")
    assert errors == "error: the instance 'order-1' is one of 'delivery': give another --id\n"


def test_the_log_is_shown_if_asked_for(app: str, run: Run) -> None:
    code, output, errors = run(f"{app}.py:order", "--input", "5", "-v")
    assert (code, output) == (0, '"shipped, receipt for 5"\n')
    assert "Orchestration order completed with status: COMPLETED" in errors


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("{app}.py", "'{app}.py' does not name a workflow; for example: durabletask-aio run app.py:order"),
        ("other.py:order", "there is no file other.py"),
        ("{app}.py:ordr", "{app}.py has no workflow 'ordr'; did you mean 'order'?"),
        ("{app}.py:nothing", "{app}.py has no workflow 'nothing'; it has 'order', 'delivery'."),
        (
            "{app}.py:charge",
            "'charge' of {app}.py is an activity; a workflow is an async function of an AsyncWorkflowContext",
        ),
        (
            "{app}.py:unmarked",
            "'unmarked' of {app}.py is no workflow; a workflow is an async function of an AsyncWorkflowContext",
        ),
        ("no_such_module:order", "cannot import no_such_module: ModuleNotFoundError: No module named 'no_such_module'"),
    ],
    ids=["no workflow", "no file", "misspelled", "unknown", "activity", "function", "no module"],
)
def test_what_cannot_be_run_is_said(reference: str, message: str, app: str, run: Run) -> None:
    code, output, errors = run(reference.format(app=app))
    assert (code, output, errors) == (2, "", f"error: {message.format(app=app)}\n")


def test_an_error_in_the_module_has_its_line(app: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / f"bad_{app}.py").write_text("import os\n\nos.environ['NO_SUCH_VARIABLE']\n")
    code, _, errors = run(f"bad_{app}.py:order")
    assert code == 2
    assert errors.startswith(f"error: cannot import bad_{app}.py: KeyError: 'NO_SUCH_VARIABLE' (")
    assert f"bad_{app}.py:3)" in errors


def test_an_engine_file_that_is_none_is_said(app: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "orders.db").write_text("no database, and long enough to be read as the first page of one" * 100)
    code, _, errors = run(f"{app}.py:order", "--db", "orders.db")
    assert code == 2
    assert "orders.db" in errors


CRASHING = """
import os
from durabletask.aio import AsyncWorkflowContext
from durabletask.task import ActivityContext


def charge(ctx: ActivityContext, amount: int) -> str:
    print("charging", flush=True)
    return "receipt"


def ship(ctx: ActivityContext, receipt: str) -> str:
    if os.environ.get("CRASH"):
        os.kill(os.getpid(), 9)
    return "shipped"


async def order(ctx: AsyncWorkflowContext, amount: int) -> str:
    return await ctx.call_activity(ship, input=await ctx.call_activity(charge, input=amount))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_the_same_command_continues_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(CRASHING)
    command = [sys.executable, "-m", "durabletask_aio", "run", "crashing.py:order", "--db", "o.db", "--id", "order-1"]
    killed = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "CRASH": "1"}, capture_output=True, text=True, check=False
    )
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "charging\n")
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (0, '"shipped"\n')
