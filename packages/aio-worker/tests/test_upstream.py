"""What this package relies on in `durabletask`; each failure says what to look at."""

from __future__ import annotations

import hashlib
import inspect
import subprocess
import sys
import textwrap
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest
from durabletask import worker as upstream

from durabletask_aio.worker import _upstream
from durabletask_aio.worker.rebind import rebind_globals

# Of the sources with which this release was compared: durabletask 1.12.0.
EXECUTE_DIGESTS = {"7f5550cd5bc7514b"}
ACTIVITY_DIGESTS = {"954f8fdb1e532b83"}


def test_every_name_that_is_needed_is_there() -> None:
    assert _upstream.missing_names() == [], (
        "durabletask no longer has these names; adapt durabletask_aio.worker._upstream"
    )


def test_missing_names_are_listed_in_one_sentence() -> None:
    module = SimpleNamespace(**vars(upstream))
    del module._AsyncWorkerManager
    module._ActivityExecutor = SimpleNamespace()

    with pytest.raises(
        ImportError, match=r"lacks _ActivityExecutor\.execute, _AsyncWorkerManager, which durabletask-aio"
    ):
        _upstream.self_check(module)


def test_execute_is_still_the_one_whose_end_we_repeat() -> None:
    source = textwrap.dedent(inspect.getsource(upstream._OrchestrationExecutor.execute))
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]

    assert digest in EXECUTE_DIGESTS, (
        "upstream changed _OrchestrationExecutor.execute: compare it with HistoryExecutor.continue_live in "
        f"durabletask_aio.core._upstream, and then add {digest!r} here"
    )


def test_execute_activity_is_still_the_one_whose_async_version_we_have() -> None:
    sources = [
        textwrap.dedent(inspect.getsource(function))
        for function in (upstream.TaskHubGrpcWorker._execute_activity, upstream._ActivityExecutor.execute)
    ]
    digest = hashlib.sha256("".join(sources).encode()).hexdigest()[:16]

    assert digest in ACTIVITY_DIGESTS, (
        "upstream changed how activities are executed: compare it with Activities._respond, _run and _call in "
        f"durabletask_aio.worker.activities, and then add {digest!r} here"
    )


class TestReboundCopies:
    def test_run_the_same_code_with_other_globals(self) -> None:
        copy = rebind_globals(uses_a_global, NAME="theirs")

        assert (uses_a_global(), copy()) == ("ours", "theirs")

    def test_keep_defaults(self) -> None:
        copy = rebind_globals(uses_a_global, NAME="theirs")

        assert copy.__kwdefaults__ == {"suffix": ""}
        assert copy(suffix="!") == "theirs!"

    def test_refuse_a_name_that_the_code_does_not_use(self) -> None:
        with pytest.raises(ImportError, match="uses_a_global of durabletask no longer uses OTHER"):
            rebind_globals(uses_a_global, OTHER="x")

    def test_change_nothing_of_upstream(self) -> None:
        before = dict(vars(upstream))
        _upstream.orchestrator_turn(lambda *args, **keywords: None)
        _upstream.activity_execution(
            lambda *args: None,
            SimpleNamespace(),
            new_failure_details=lambda *args: None,
            make_converter=lambda converter: converter,
        )

        assert dict(vars(upstream)) == before


NAME = "ours"


def uses_a_global(*, suffix: str = "") -> Any:
    return NAME + suffix


# -- names that are gone ----------------------------------------------------------------------------------------------

IMPORTING = """
import durabletask.worker
{change}
import durabletask.aio.worker
"""

REGISTERING = """
import warnings
import durabletask.worker
{change}
import durabletask.aio

async def flow(ctx, value):
    return value

warnings.simplefilter("ignore")
durabletask.worker.TaskHubGrpcWorker().add_orchestrator(flow)
"""


def run(program: str, change: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", program.format(change=change)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("program", [IMPORTING, REGISTERING], ids=["import", "registration"])
@pytest.mark.parametrize("name", ["_get_new_event_summary", "_get_action_summary"])
def test_a_helper_of_log_lines_may_be_gone(program: str, name: str) -> None:
    assert run(program, f"del durabletask.worker.{name}") == (0, "")


@pytest.mark.parametrize("program", [IMPORTING, REGISTERING], ids=["import", "registration"])
@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("durabletask.worker._ActivityExecutor", "_ActivityExecutor"),
        ("durabletask.worker.TaskHubGrpcWorker._execute_activity", "TaskHubGrpcWorker._execute_activity"),
        ("durabletask.internal.type_discovery.activity_input_type",) * 2,
    ],
)
def test_a_required_name_that_is_gone_is_named_to_the_user(program: str, gone: str, named: str) -> None:
    code, output = run(program, f"del {gone}")

    assert code == 1
    last = output[output.rindex("ImportError:") :]
    assert last.startswith(f"ImportError: durabletask {version('durabletask')} lacks {named}, which durabletask-aio-")
    assert "pip install durabletask-aio-worker" not in output


def test_a_core_with_another_hosting_interface_is_refused() -> None:
    program = (
        "import durabletask_aio.core.hosting as hosting\nhosting.VERSION = 2{change}\nimport durabletask.aio.worker"
    )
    code, output = run(program, "")

    assert code == 1
    assert "\nImportError: durabletask-aio-worker " in output
    assert "was written for version 1 of the core's hosting interface" in output
