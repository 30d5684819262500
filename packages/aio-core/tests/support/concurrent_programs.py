"""Random workflows that use asyncio for all it is worth: tasks, queues, locks, races, cancellation, timeouts.

`portable` programs keep to what every supported Python has and has alike, so that a seed names one program and one
run of it everywhere.  As a script it prints a digest of a range of them::

    python concurrent_programs.py 0 200
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import random as random_module
import sys
from collections.abc import Callable
from random import Random
from typing import Any

if __name__ == "__main__":
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parent))

from durabletask.internal import orchestrator_service_pb2 as pb
from program_texts import EVENTS, program_text
from random_engine import RandomEngine
from turns import Instance, canonical

from durabletask_aio.core.cancellation import CANCEL_EVENT
from durabletask_aio.core.orchestrator import as_orchestrator


class Program:
    """One program: its text, its orchestrator, and the run that its seed stands for."""

    def __init__(self, seed: int, *, portable: bool, cancelled: bool = False) -> None:
        """Write a program.

        Args:
            seed: names the program and its run.
            portable: keep to what every supported Python has and has alike.
            cancelled: have it cleaned up when it is cancelled, and ask it to, up to three times.
        """
        self.seed = seed
        self.cancelled = cancelled
        self.text = program_text(seed, portable=portable, cancelled=cancelled)
        names: dict[str, Any] = {"asyncio": asyncio, "contextvars": contextvars, "random": random_module}
        exec(compile(self.text, f"<program {seed}>", "exec"), names)
        self.orchestrator: Callable[..., Any] = as_orchestrator(names["cancellable" if cancelled else "program"])

    def run(self) -> Instance:
        """Run it to its end, or until nothing is outstanding any more."""
        random = Random(f"run/{self.seed}")
        engine = RandomEngine(
            random,
            events=self._events(random),
            failures=random.choice([0, 0.1, 0.3]),
            max_batch=random.choice([1, 2, 5]),
        )
        instance = Instance(self.orchestrator, 0, name="program", instance_id=f"run-{self.seed}")
        return engine.run(instance)

    def _events(self, random: Random) -> list[str]:
        events = [random.choice(EVENTS) for _ in range(random.randint(0, 6))]
        if self.cancelled:
            for _ in range(random.randint(1, 3)):
                events.insert(random.randint(0, len(events)), CANCEL_EVENT)
        return events

    def __repr__(self) -> str:
        return f"<seed {self.seed}>\n{self.text}"


def digest(instance: Instance) -> str:
    """A short name for everything that `instance` answered, turn by turn, but for the wording of our own errors."""
    found = hashlib.sha256()
    for turn in instance.turns:
        found.update(b"turn")
        for each in turn:
            action = pb.OrchestratorAction()
            action.CopyFrom(each)
            if action.completeOrchestration.failureDetails.errorType.startswith("durabletask.aio."):
                action.completeOrchestration.failureDetails.ClearField("errorMessage")
            found.update(canonical([action])[0])
    return found.hexdigest()[:16]


def main() -> None:
    begin, end = map(int, sys.argv[1:3])
    for seed in range(begin, end):
        print(seed, digest(Program(seed, portable=True).run()))


if __name__ == "__main__":
    main()
