"""The program of a process that runs one scenario.

Arguments: the settings, and one of `run MODULE NAME` for a scenario, `remove PREFIX` for the instances that one has
left, and `clean`, at the end, for all entities without state.  A scenario writes JSON, one document a line, to standard
output: requests for the engine's process, which are answered by a line on standard input, and at the end the outcome.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING, TextIO

from durabletask_aio.testing.conformance.outcomes import Outcome, UnexpectedOutcome, classify
from durabletask_aio.testing.conformance.registry import load_scenarios
from durabletask_aio.testing.conformance.scenario_run import ScenarioRun, remove_instances
from durabletask_aio.testing.conformance.settings import Settings

if TYPE_CHECKING:
    from durabletask_aio.testing.conformance.registry import Scenario


class _Answers:
    """Standard output for documents alone; what anything else prints goes to standard error."""

    def __init__(self) -> None:
        self._stream: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def write(self, **document: object) -> None:
        self._stream.write(json.dumps(document) + "\n")
        self._stream.flush()


class _RemoteEngine:
    """The engine's process, which the process that started this one controls."""

    def __init__(self, answers: _Answers) -> None:
        self._answers = answers

    def kill(self) -> None:
        self._ask("kill")

    def start(self) -> None:
        self._ask("start")

    def _ask(self, request: str) -> None:
        self._answers.write(engine=request)
        answer = sys.stdin.readline().strip()
        if answer != "done":
            raise UnexpectedOutcome(answer or "the engine's process is out of reach")


def run_scenario(scenario: Scenario, settings: Settings, answers: _Answers) -> None:
    """Run a scenario, and write its outcome before it is cleaned up after.

    Args:
        scenario: The scenario.
        settings: The settings of the run.
        answers: Where the outcome goes.
    """
    run = ScenarioRun(scenario.name, settings, _RemoteEngine(answers))
    outcome, detail = Outcome.WORKS, ""
    try:
        result = scenario.function(run)
        if result is not None:
            asyncio.run(result)
    except Exception as error:
        traceback.print_exc()
        outcome, detail = classify(error)
    answers.write(outcome=outcome.value, detail=detail)
    run.close()


def main(arguments: list[str]) -> None:
    """Run the scenario that the arguments name, and end the process.

    Args:
        arguments: Those of the program.
    """
    answers = _Answers()
    settings = Settings.from_json(arguments[0])
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    task, *details = arguments[1:]
    if task == "run":
        module, name = details
        (scenario,) = (each for each in load_scenarios([module]) if each.name == name)
        run_scenario(scenario, settings, answers)
    else:
        with settings.new_client() as client:
            if task == "remove":
                remove_instances(settings, client, *details)
            else:
                client.clean_entity_storage(remove_empty_entities=True, release_orphaned_locks=False)
    sys.stderr.flush()
    os._exit(0)  # an activity that hangs would keep the interpreter alive


if __name__ == "__main__":
    main(sys.argv[1:])
