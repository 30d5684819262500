"""`durabletask-aio conformance`: what it reports of scenarios that end in every way, and the whole table."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from durabletask.client import TaskHubGrpcClient

from durabletask_aio.engine.loopback import free_port
from durabletask_aio.testing.conformance.outcomes import (
    Doubled,
    Lost,
    UnexpectedOutcome,
    check_delivered,
    check_equal,
)
from durabletask_aio.testing.conformance.registry import load_scenarios, scenario, scenario_modules
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun
from durabletask_aio.testing.conformance.settings import Settings
from durabletask_aio.testing.local import local_backend as new_backend

HERE = Path(__file__).parent

OURS = ("--module", "conformance_scenarios")


def conformance(*arguments: str, folder: Path = HERE, timeout: float = 150) -> subprocess.CompletedProcess[str]:
    # In this folder, so that the scenarios of the tests can be imported.
    return subprocess.run(
        [sys.executable, "-m", "durabletask_aio", "conformance", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
    )


@pytest.fixture
def unused_port() -> int:
    port = free_port(0)
    assert port is not None
    return port


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The scenarios of the tests on a local engine: the run, the instances that are left, and the folder of logs."""
    logs = tmp_path_factory.mktemp("logs")
    with new_backend() as backend:
        # Five at a time, since most of them wait.
        result = conformance(backend.address, *OURS, "--json", "--timeout", "12", "--jobs", "5", "--logs", str(logs))
        with TaskHubGrpcClient(host_address=backend.address) as client:
            left = client.get_all_orchestration_states()
    return result, left, logs


def test_the_document_has_every_scenario_and_the_counts(report):
    result, _, _ = report
    document = json.loads(result.stdout)
    assert {each["name"].partition(".")[2]: each["outcome"] for each in document["scenarios"]} == {
        "works": "works",
        "works_async": "works",
        "wrong": "wrong",
        "refused": "refused clearly",
        "waits": "hangs",
        "hangs": "hangs",
        "dies": "died",
        "lost": "lost",
        "doubled": "doubled",
        "kills_engine": "not run",
        "future_python": "not run",
    }
    assert document["counts"] == {
        "works": 2,
        "refused clearly": 1,
        "wrong": 1,
        "hangs": 2,
        "lost": 1,
        "doubled": 1,
        "died": 1,
        "not run": 2,
    }
    assert result.returncode == 1
    assert all(each["description"].endswith(".") for each in document["scenarios"])


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("wrong", r"instance 1 is FAILED, not COMPLETED: .*ValueError.*no \| such"),
        ("refused", r"NOT_FOUND: .*"),
        ("waits", r"instance 1 is RUNNING after 4 s"),
        ("hangs", r"no answer after 6 s"),
        ("dies", r"exit code 3: out of memory"),
        ("lost", r"events: 1 of 3 missing, such as 2"),
        ("doubled", r"events: 1 more than expected, such as 2"),
        ("kills_engine", r"kills the engine: needs --engine-command"),
        ("future_python", r"needs Python 99\.0"),
    ],
)
def test_the_detail_says_what_happened_instead(report, name, pattern):
    result, _, _ = report
    details = {each["name"].partition(".")[2]: each["detail"] for each in json.loads(result.stdout)["scenarios"]}
    assert re.fullmatch(pattern, details[name]), details[name]


def test_nothing_is_left_on_the_engine_not_even_of_a_process_that_was_killed(report):
    _, left, _ = report
    assert left == []


def test_progress_goes_to_standard_error_and_what_scenarios_print_to_their_logs(report):
    result, _, logs = report
    assert "conformance_scenarios.hangs: hangs" in result.stderr
    assert "what a scenario prints" not in result.stdout + result.stderr
    assert "what a scenario prints" in (logs / "conformance_scenarios.works.log").read_text()


def test_the_table_has_a_line_for_each_and_a_summary_and_the_exit_code_is_0_if_all_works(local_backend):
    result = conformance(local_backend.address, *OURS, "--only", "*.works*", "--only", "*.future_python")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "works            conformance_scenarios.works  A workflow returns its input."
    assert lines[1] == "works            conformance_scenarios.works_async  A scenario may be a coroutine function."
    assert lines[2:4] == [
        "not run          conformance_scenarios.future_python  This Python is too old.",
        "                 needs Python 99.0",
    ]
    assert re.fullmatch(r"2 of 2 work, 1 not run; \d+ s", lines[4])
    assert len(lines) == 5


def test_markdown_is_a_table_whose_cells_are_escaped(local_backend, tmp_path):
    path = tmp_path / "table.md"
    result = conformance(
        local_backend.address, *OURS, "--only", "*.wrong", "--only", "*.lost", "--format", "markdown", "-o", str(path)
    )
    assert result.returncode == 1
    assert result.stdout == ""
    head, line, first, second, empty, summary = path.read_text().splitlines()
    assert (head, line, empty) == ("| Scenario | | Outcome |", "| --- | --- | --- |", "")
    assert first.startswith("| `conformance_scenarios.wrong` | A workflow fails. | wrong: instance 1 is FAILED")
    assert "no \\| such" in first
    assert second == ("| `conformance_scenarios.lost` | An event is lost. | lost: events: 1 of 3 missing, such as 2 |")
    assert summary.startswith("0 of 2 work, 1 wrong, 1 lost; ")


@pytest.mark.skipif(sys.platform == "win32", reason="the command line is split as a shell on POSIX does")
@pytest.mark.slow
def test_an_engine_that_is_started_by_a_command_is_killed_and_started_again_and_stopped(unused_port):
    address = f"localhost:{unused_port}"
    command = f"{sys.executable} -m durabletask_aio dev --port {unused_port}"
    result = conformance(address, *OURS, "--only", "*.works", "--only", "*.kills_engine", "--engine-command", command)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 of 2 work" in result.stdout
    assert conformance(address, "--only", "asyncio_code.gather", "--connect-timeout", "0.5").returncode == 2


def test_an_engine_command_that_ends_is_an_error_with_its_exit_code(unused_port):
    command = f"{sys.executable} -c 'print(\"no disk\"); exit(7)'"
    result = conformance(f"localhost:{unused_port}", *OURS, "--engine-command", command)
    assert result.returncode == 2
    assert result.stderr == "error: --engine-command: the engine's command ended with exit code 7: no disk\n"


def test_an_engine_command_for_an_address_that_is_taken_is_an_error(local_backend):
    result = conformance(local_backend.address, *OURS, "--engine-command", "true")
    assert result.returncode == 2
    assert result.stderr == (
        f"error: something listens at {local_backend.address} already; --engine-command starts the engine itself\n"
    )


def test_an_address_without_an_engine_is_an_error(unused_port):
    result = conformance(f"localhost:{unused_port}", "--connect-timeout", "0.5")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: no engine answers at localhost:{unused_port}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a process of its own cannot be sent Ctrl-C there")
@pytest.mark.slow
def test_ctrl_c_ends_the_scenarios_and_removes_their_instances(local_backend, wait_until):
    psutil = pytest.importorskip("psutil")
    process = subprocess.Popen(
        [sys.executable, "-m", "durabletask_aio", "conformance", local_backend.address, *OURS, "--only", "*.hangs"],
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: bool(local_backend.instances()), "the instance of the scenario")
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, output, errors.strip()) == (130, "", "")
    assert children
    assert not any(each.is_running() for each in children)
    assert not local_backend.instances()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("localhost:1", "--only", "evnets"),
            "error: no scenario matches 'evnets'; the subjects are: activities, asyncio_code, ",
        ),
        (("localhost:1", "--module", "no_such"), "error: a module of scenarios cannot be imported: No module named"),
        (("localhost:1", "--metadata", "taskhub"), "error: --metadata is KEY=VALUE, not 'taskhub'"),
        (("localhost:1", "--jobs", "0"), "error: Invalid value for '--jobs'"),
        ((), "error: Missing argument 'ADDRESS'."),
    ],
)
def test_wrong_usage_is_an_error(arguments, message):
    result = conformance(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(message)


def test_the_list_shows_the_scenarios_of_a_subject():
    result = conformance("--list", "--only", "asyncio_code")
    assert result.returncode == 0
    assert result.stdout.startswith("asyncio_code.gather  `asyncio.gather` of activities returns")


def test_the_scenario_on_the_page_of_the_docs_works(local_backend, tmp_path):
    page = (HERE.parents[2] / "docs/conformance.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "of_our_own.py").write_text(block, encoding="utf-8")
    result = conformance(local_backend.address, "--module", "of_our_own", folder=tmp_path)
    assert result.stdout.startswith("works            of_our_own.two_events"), result.stdout + result.stderr


def test_every_scenario_has_a_name_of_its_own_and_a_sentence_that_fits_a_line():
    found = load_scenarios(scenario_modules())
    assert len({each.name for each in found}) == len(found)
    assert len({each.description for each in found}) == len(found)
    for each in found:
        assert each.description.endswith("."), each.name
        assert len(each.description) <= 110, each.name


@pytest.mark.parametrize("docstring", ["", "Two\n\n    lines."])
def test_a_scenario_needs_a_docstring_of_one_line(docstring):
    def unfinished(run): ...

    unfinished.__doc__ = docstring
    with pytest.raises(ValueError, match=r"^the scenario 'unfinished' needs a docstring of one line$"):
        scenario()(unfinished)


def test_checks_tell_apart_what_is_lost_doubled_or_out_of_order():
    check_delivered([1, 2], [1, 2])
    with pytest.raises(Lost, match=r"^delivered: 1 of 2 missing, such as 2$"):
        check_delivered([1], [1, 2])
    with pytest.raises(Doubled, match=r"^delivered: 1 more than expected, such as 1$"):
        check_delivered([1, 1, 2], [1, 2])
    with pytest.raises(UnexpectedOutcome, match=r"^delivered: expected \[1, 2\], got \[2, 1\]$"):
        check_delivered([2, 1], [1, 2])
    with pytest.raises(UnexpectedOutcome, match=r"\(1002 characters\), got 'a'$"):
        check_equal("a", "b" * 1000)


@pytest.mark.slow
@pytest.mark.parametrize(
    "killing", [each for each in load_scenarios(scenario_modules()) if each.kills_engine], ids=lambda each: each.title
)
def test_the_scenarios_that_kill_the_engine_work_on_one_that_keeps_what_it_has(killing):
    engine = new_backend()

    class Control:
        """Ends the engine's connections; it keeps its instances, as an engine on a disk does."""

        def kill(self):
            engine.stop()

        def start(self):
            engine.start()

    run = ScenarioRun(killing.name, Settings(engine.start().address, "test", wait_timeout=40), Control())
    try:
        killing.function(run)
    finally:
        run.close()
        engine.stop()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_local_engine_does_what_every_scenario_asks_for(local_backend):
    result = conformance(local_backend.address, "--json", "--jobs", "2", "--long-activity", "3", timeout=1100)
    document = json.loads(result.stdout)
    failed = {
        each["name"]: f"{each['outcome']}: {each['detail']}"
        for each in document["scenarios"]
        if each["outcome"] not in ("works", "not run")
    }
    assert failed == {}
