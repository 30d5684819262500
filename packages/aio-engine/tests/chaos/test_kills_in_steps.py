"""A process that is killed at a moment of a workflow of steps: what ran how often, and what the workflow returns.

The instance is continued by another process, in which the two concurrent steps would end in the other order.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import step_processes
from scale import LONG
from step_processes import INSTANCE, KILLED, RESTARTED, read_runs, records, workflow

from durabletask_aio.engine import events
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.worker.worker import TaskHubGrpcWorker

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")]

QUIET = logging.Logger("quiet", level=logging.CRITICAL)  # noqa: LOG001 - not to be found by name
STEPS = ("first", "second", "third", "right", "left", "flaky", "last")

RUNS_OF_STEP = {"start": 1, "in": 2, "after": 2, "send": 2, "commit": 2, "committed": 1, "answered": 1}
"""How often a step runs if the process is killed at that place of it."""

EXCEPTIONS = {
    "after third": 1,  # recorded="now": the next line runs when the record is committed
    "start flaky 1": 2,  # a failed attempt, and one that succeeds
    "in flaky 1": 3,
    "send flaky 1": 2,  # the failed attempt is lost with its failure, and the next one succeeds
    "commit flaky 1": 2,
    "committed flaky 1": 2,
    "answered flaky 1": 2,
    "start flaky 2": 2,
    "in flaky 2": 3,
    "after flaky 2": 3,
    "send flaky 2": 3,
    "commit flaky 2": 3,
    "committed flaky 2": 2,
    "answered flaky 2": 2,
}

EMBEDDED_ONLY = ("commit ", "committed ")


def all_moments() -> list[str]:
    found = ["before first"]
    for step in ("first", "second", "third", "right", "left", "flaky 1", "flaky 2", "last"):
        for place in RUNS_OF_STEP:
            is_beside = step in ("right", "left") and place == "start"  # the other one has begun or has not
            has_failed = step == "flaky 1" and place == "after"
            if not (is_beside or has_failed):
                found.append(f"{place} {step}")
    return found


EMBEDDED = all_moments()
SERVED = [each for each in all_moments() if not each.startswith(EMBEDDED_ONLY)]
if not LONG:
    EMBEDDED = ["in second", "commit second", "committed second", "after right", "committed flaky 1"]
    SERVED = ["send second", "answered left", "answered last"]


def expected_runs(moment: str) -> dict[str, int]:
    runs = dict.fromkeys(STEPS, 1)
    runs["flaky"] = 2
    place, step = moment.split(" ", 1)
    if place != "before":
        times = EXCEPTIONS.get(moment, RUNS_OF_STEP[place])
        for each in ("right", "left") if step in ("right", "left") else (step.split()[0],):
            runs[each] = times
    return runs


def kill(folder: Path, moment: str, *address: str) -> None:
    """Run the program until it has killed itself."""
    command = [sys.executable, step_processes.__file__, str(folder), moment, *address]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def read_records(engine: Engine) -> Counter[str]:
    """Return how many attempts of each step the history has."""
    with engine.kernel.reading() as reader:
        instance = reader.instance(INSTANCE)
        return Counter(records(events.past_events(reader.history(instance))))


def finish(engine: Engine, worker: Any) -> Any:
    """Run the instance to its end, in this process."""
    worker.add_orchestrator(workflow)
    with closing(engine.client(logger=QUIET)) as client:
        worker.start()
        try:
            state = client.wait_for_orchestration_completion(INSTANCE, timeout=60)
        finally:
            worker.stop()
    return state.get_output()


def check(folder: Path, moment: str, recorded: Counter[str], at_the_end: Counter[str], output: Any) -> None:
    """Compare what ran in both processes with what was recorded when the first one was killed."""
    runs = read_runs(folder)
    total = {step: runs[KILLED][step] + runs[RESTARTED][step] for step in STEPS}
    print(f"| {moment} | {' | '.join(str(times) for times in total.values())} |")
    for step in STEPS:
        # What is recorded is not run again, and only one attempt can have run without being recorded.
        assert runs[RESTARTED][step] == at_the_end[step] - recorded[step], (step, runs, recorded)
        assert runs[KILLED][step] - recorded[step] in (0, 1), (step, runs, recorded)
    done = {step for step in STEPS if recorded[step] == at_the_end[step]}
    assert output == {
        "value": 4,
        "by": {step: KILLED if step in done else RESTARTED for step in STEPS},
        "order": ["right", "left"] if "left" in done else ["left", "right"],
    }
    assert total == expected_runs(moment)


@pytest.mark.parametrize("moment", EMBEDDED)
def test_a_program_with_its_own_engine_is_killed(tmp_path: Path, moment: str) -> None:
    kill(tmp_path, moment)
    with Engine(tmp_path / "engine.db") as engine:
        recorded = read_records(engine)
        output = finish(engine, engine.worker(logger=QUIET))
        check(tmp_path, moment, recorded, read_records(engine), output)


@pytest.mark.parametrize("moment", SERVED)
def test_a_worker_of_a_served_engine_is_killed(tmp_path: Path, moment: str) -> None:
    with Engine(tmp_path / "engine.db", reconnect_period=0) as engine:
        address = f"127.0.0.1:{engine.listen().port}"
        with closing(engine.client(logger=QUIET)) as client:
            client.schedule_new_orchestration("workflow", input=str(tmp_path), instance_id=INSTANCE)
        kill(tmp_path, moment, address)
        recorded = read_records(engine)
        output = finish(engine, TaskHubGrpcWorker(host_address=address, logger=QUIET))
        check(tmp_path, moment, recorded, read_records(engine), output)
