"""Random programs on Dapr's executor in this process, and a random sidecar that completes what they ask for.

The concurrent programs are those of the core's tests.  As a script it prints a digest of a range of them:

    python random_turns.py 0 20
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import json
import random as random_module
import sys
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

if __name__ == "__main__":
    from pathlib import Path

    support = Path(__file__).resolve().parent
    sys.path[:0] = [str(support), str(support.parents[2] / "aio-core" / "tests" / "support")]

from dapr.ext.workflow._durabletask.internal import helpers
from program_texts import EVENTS, program_text
from turns_in_process import Instance, serialized

CANCEL_EVENT = "durabletask-aio.cancel"
MAX_TURNS = 60
VALUES = [None, 0, 1, 2, "", "text", [1, 2], {"k": 1}]


class RandomSidecar:
    """Completes what an instance has asked for in a random order, in random batches, and lets some of it fail.

    Args:
        random: Makes all choices.
        events: The names of events that are raised, in this order.
    """

    def __init__(self, random: Random, events: Sequence[str] = ()) -> None:
        self._random = random
        self._events = list(events)
        self._failures = random.choice([0, 0.1, 0.3])
        self._max_batch = random.choice([1, 2, 5])

    def run(self, instance: Instance) -> Instance:
        """Take turns until the instance has ended, nothing is outstanding, or it has taken many of them."""
        outstanding: dict[int, Any] = {}
        self._note(outstanding, instance.actions[-1])
        while instance.end is None and len(instance.actions) < MAX_TURNS:
            batch = [self._event(outstanding) for _ in range(self._random.randint(1, self._max_batch))]
            batch = [event for event in batch if event is not None]
            if not batch:
                break
            self._note(outstanding, instance.turn(*batch))
        return instance

    @staticmethod
    def _note(outstanding: dict[int, Any], actions: Sequence[Any]) -> None:
        outstanding.update({action.id: action for action in actions if not action.HasField("completeWorkflow")})

    def _event(self, outstanding: dict[int, Any]) -> Any:
        random = self._random
        if self._events and (not outstanding or random.random() < 0.25):
            name, number = self._events.pop(0), random.randint(0, 99)
            payload = {"reason": f"request {number}"} if name == CANCEL_EVENT else number
            return helpers.new_event_raised_event(name, json.dumps(payload))
        if not outstanding:
            return None
        action = outstanding.pop(random.choice(list(outstanding)))
        if action.HasField("createTimer"):
            return helpers.new_timer_fired_event(action.id, action.createTimer.fireAt)
        fails, value = random.random() < self._failures, json.dumps(random.choice(VALUES))
        error = random.choice([ValueError, RuntimeError, KeyError])(f"broken {random.randint(0, 9)}")
        if action.HasField("createChildWorkflow"):
            if fails:
                return helpers.new_child_workflow_failed_event(action.id, error)
            return helpers.new_child_workflow_completed_event(action.id, value)
        if fails:
            return helpers.new_task_failed_event(action.id, error)
        return helpers.new_task_completed_event(action.id, value)


def concurrent_program(seed: int, *, cancelled: bool = False, portable: bool = False) -> Callable[..., Any]:
    """Return the program that the seed names; `cancelled` ones clean up."""
    names: dict[str, Any] = {"asyncio": asyncio, "contextvars": contextvars, "random": random_module}
    text = program_text(seed, portable=portable, cancelled=cancelled)
    exec(compile(text, f"<program {seed}>", "exec"), names)
    program: Callable[..., Any] = names["cancellable" if cancelled else "program"]
    return program


def run(seed: int, *, sessions: int, cancelled: bool = False, portable: bool = False) -> Instance:
    """Run the concurrent program that the seed names; the seed decides all that the sidecar does."""
    random = Random(f"run/{seed}")
    events = [random.choice(EVENTS) for _ in range(random.randint(0, 6))]
    if cancelled:
        for _ in range(random.randint(1, 3)):
            events.insert(random.randint(0, len(events)), CANCEL_EVENT)
    program = concurrent_program(seed, cancelled=cancelled, portable=portable)
    return RandomSidecar(random, events).run(Instance(program, 0, sessions=sessions))


def without_stack_traces(turns: Sequence[Sequence[Any]]) -> list[list[bytes]]:
    """Return the actions of turns as the sidecar gets them, without the stack traces of failures."""
    found = []
    for turn in turns:
        copies = [type(action).FromString(action.SerializeToString()) for action in turn]
        for action in copies:
            if action.HasField("completeWorkflow"):
                action.completeWorkflow.failureDetails.ClearField("stackTrace")
        found.append(serialized(copies))
    return found


def digest(instance: Instance) -> str:
    """Return a short name for all that the instance has asked for."""
    found = hashlib.sha256()
    for turn in without_stack_traces(instance.actions):
        found.update(b"turn")
        for action in turn:
            found.update(action)
    return found.hexdigest()[:16]


def main() -> None:
    for seed in range(*map(int, sys.argv[1:3])):
        print(seed, digest(run(seed, sessions=10)))


if __name__ == "__main__":
    main()
