"""Runs scenarios, each in a process of its own with a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from durabletask_aio.testing.conformance.engine_process import EngineProcess, EngineStartError, last_line
from durabletask_aio.testing.conformance.outcomes import Outcome
from durabletask_aio.testing.conformance.registry import Scenario
from durabletask_aio.testing.conformance.settings import Settings

_PROGRAM = "durabletask_aio.testing.conformance.scenario_process"

_CLEAN_UP_SECONDS = 20.0
"""How long a scenario that has told its outcome may clean up, and how long instances of one that hung are removed."""


@dataclass(frozen=True)
class Result:
    """What became of a scenario."""

    scenario: Scenario
    outcome: Outcome
    detail: str
    seconds: float


class Supervisor:
    """Runs scenarios against one engine.

    Args:
        settings: The settings of the run.
        engine: The engine's process, if it was started by a command.
        logs: A folder for the standard error of each scenario.
    """

    def __init__(self, settings: Settings, engine: EngineProcess | None, logs: Path) -> None:
        self._settings = settings
        self._engine = engine
        self._logs = logs

    async def run(self, scenarios: Sequence[Scenario], jobs: int, report: Callable[[Result], None]) -> list[Result]:
        """Run scenarios: those that must be alone one by one, after all others.

        Args:
            scenarios: The scenarios.
            jobs: How many run at a time.
            report: Called with each result, in the order of `scenarios` as far as they are known.

        Returns:
            The results, in the order of `scenarios`.
        """
        places = asyncio.Semaphore(jobs)
        others = [each for each in scenarios if not each.alone]
        results: dict[str, Result] = {}
        reported = 0

        async def run_one(scenario: Scenario) -> None:
            nonlocal reported
            async with places:
                results[scenario.name] = await self._run_one(scenario)
            while reported < len(scenarios) and scenarios[reported].name in results:
                report(results[scenarios[reported].name])
                reported += 1

        await asyncio.gather(*(run_one(each) for each in others))
        for each in scenarios:
            if each.alone:
                await run_one(each)
        # Not after each scenario: it concerns the entities of all.
        await self._clean_up("clean")
        return [results[each.name] for each in scenarios]

    async def _run_one(self, scenario: Scenario) -> Result:
        if scenario.kills_engine and self._engine is None:
            return Result(scenario, Outcome.NOT_RUN, "kills the engine: needs --engine-command", 0.0)
        if sys.version_info < scenario.python:
            return Result(scenario, Outcome.NOT_RUN, "needs Python {}.{}".format(*scenario.python), 0.0)
        began = time.monotonic()
        settings = self._settings.limited(scenario.time_factor, long_activity=scenario.long_activity)
        outcome, detail = await self._run_process(scenario, settings, self._logs / f"{scenario.name}.log")
        return Result(scenario, outcome, detail, time.monotonic() - began)

    async def _run_process(self, scenario: Scenario, settings: Settings, log: Path) -> tuple[Outcome, str]:
        with log.open("wb") as stream:
            process = await asyncio.create_subprocess_exec(
                *_program(settings), "run", scenario.function.__module__, scenario.name,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=stream, start_new_session=True,
            )  # fmt: skip
        try:
            outcome = await asyncio.wait_for(self._converse(process), settings.timeout)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), _CLEAN_UP_SECONDS)
        except asyncio.TimeoutError:
            outcome = Outcome.HANGS, f"no answer after {settings.timeout:g} s"
        finally:
            finished = process.returncode == 0
            await _end(process)
            if not finished:  # also if the run is interrupted
                await self._clean_up("remove", f"conformance-{self._settings.run_id}-{scenario.name}-")
        return outcome or (Outcome.DIED, f"exit code {process.returncode}: {last_line(log)}")

    async def _converse(self, process: asyncio.subprocess.Process) -> tuple[Outcome, str] | None:
        """Return the outcome that the process tells, `None` if it ends without one; do what it asks for meanwhile."""
        assert process.stdin is not None
        assert process.stdout is not None
        while line := await process.stdout.readline():
            document = json.loads(line)
            if "outcome" in document:
                return Outcome(document["outcome"]), document["detail"]
            answer = await asyncio.to_thread(self._control_engine, document["engine"])
            process.stdin.write(f"{answer}\n".encode())
            await process.stdin.drain()
        await process.wait()
        return None

    def _control_engine(self, request: str) -> str:
        assert self._engine is not None
        try:
            if request == "kill":
                self._engine.kill()
            else:
                self._engine.start()
        except (EngineStartError, OSError) as error:
            return str(error)
        return "done"

    async def _clean_up(self, *arguments: str) -> None:
        """Remove what scenarios have left, in a process too, since the engine may not answer."""
        process = await asyncio.create_subprocess_exec(
            *_program(self._settings), *arguments,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), _CLEAN_UP_SECONDS)
        finally:
            await _end(process)


def _program(settings: Settings) -> tuple[str, ...]:
    return (sys.executable, "-m", _PROGRAM, settings.to_json())


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of a process and of those that it has started, and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
