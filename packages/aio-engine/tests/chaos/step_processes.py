"""A workflow of steps, and a program that runs it and kills itself with SIGKILL at a named moment.

`python step_processes.py FOLDER MOMENT` has an engine of its own, on the file `engine.db` in FOLDER, and starts the
instance; `python step_processes.py FOLDER MOMENT ADDRESS` is a worker of the engine at ADDRESS.  Each run of a step
appends a line to the file `runs` in FOLDER.

A moment is a place and a step: `in second`.  The places, in their order:

- `start`: the record of the step before is committed, and the function of this one has not begun;
- `in`: the function runs; of two steps side by side both have begun;
- `after`: the line of the workflow after the step;
- `send`: the turn with the record has ended, and the worker has not sent it;
- `commit`: the engine has written the record, and its transaction is not committed;
- `committed`: it is, and the worker has not been told;
- `answered`: the worker has the engine's answer, and has not begun the next turn.

`commit` and `committed` are for the program with an engine of its own.  The two attempts of the step that fails first
are `flaky 1` and `flaky 2`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.core.retries import RetryPolicy
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.commands import Transaction
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.worker.foreign_engines import Answers
from durabletask_aio.worker.worker import TaskHubGrpcWorker

INSTANCE = "steps"
KILLED = "killed"
RESTARTED = "restarted"
SECONDS = 60.0
"""The longest wait of one concurrent step for the other."""

_RECORD = "$step."


class Pair:
    """Which of two concurrent steps have begun, and whether the end of the first has reached the workflow."""

    def __init__(self) -> None:
        self.begun = {"left": threading.Event(), "right": threading.Event()}
        self.first_has_ended = threading.Event()


class Process:
    """What differs between the process that is killed and the one that runs the instance to its end.

    Attributes:
        name: `KILLED` or `RESTARTED`; part of the result of each step.
        moment: when it kills itself.
        first_to_end: which of the two concurrent steps ends first here: `right`, which the workflow calls second, in
            the process that is killed.
    """

    def __init__(self) -> None:
        self.name = RESTARTED
        self.moment = ""
        self.first_to_end = "left"
        self.pairs: defaultdict[str, Pair] = defaultdict(Pair)

    def reach(self, moment: str) -> None:
        if moment == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


process = Process()


def note(folder: str, step: str) -> None:
    file = os.open(Path(folder, "runs"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{process.name} {step}\n".encode())
    os.close(file)


def read_runs(folder: Path) -> dict[str, Counter[str]]:
    """Return how often each step has run in each process."""
    runs: dict[str, Counter[str]] = {KILLED: Counter(), RESTARTED: Counter()}
    if (folder / "runs").exists():
        for line in (folder / "runs").read_text(encoding="utf-8").splitlines():
            name, step = line.split()
            runs[name][step] += 1
    return runs


def records(events: Iterable[pb.HistoryEvent]) -> list[str]:
    """Return the names of the steps whose ends a history has, one for each attempt."""
    sent = [event.eventSent for event in events if event.HasField("eventSent")]
    return [each.name[len(_RECORD) :] for each in sent if each.name.startswith(_RECORD) and _is_end(each.input.value)]


def _is_end(data: str) -> bool:
    return "end" in json.loads(data or "{}")


# -- the workflow -----------------------------------------------------------------------------------------------------


async def workflow(ctx: AsyncWorkflowContext, folder: str) -> dict[str, Any]:
    """A chain of three, of which the last is recorded at once; two side by side; one that fails first; a last one."""
    value = 0
    by: dict[str, str] = {}
    order: list[str] = []

    async def chained(name: str, recorded: Any = None) -> None:
        nonlocal value
        value, by[name] = await ctx.run(add_one, folder, name, value, name=name, recorded=recorded)
        process.reach(f"after {name}")

    async def concurrent(function: Any) -> None:
        name = function.__name__
        by[name] = await ctx.run(function, folder)
        order.append(name)
        process.reach(f"after {name}")
        process.pairs[folder].first_has_ended.set()

    process.reach("before first")
    await chained("first")
    await chained("second")
    await chained("third", "now")
    await asyncio.gather(concurrent(left), concurrent(right))
    policy = RetryPolicy(first_retry_interval=timedelta(milliseconds=10), max_number_of_attempts=3)
    by["flaky"] = await ctx.run(flaky, folder, retry_policy=policy)
    process.reach("after flaky 2")
    await chained("last")
    return {"value": value, "by": by, "order": order}


def add_one(folder: str, name: str, value: int) -> list[Any]:
    process.reach(f"start {name}")
    note(folder, name)
    process.reach(f"in {name}")
    return [value + 1, process.name]


def left(folder: str) -> str:
    return _run_beside(folder, "left", "right")


async def right(folder: str) -> str:
    return await asyncio.to_thread(_run_beside, folder, "right", "left")


def _run_beside(folder: str, name: str, other: str) -> str:
    note(folder, name)
    pair = process.pairs[folder]
    pair.begun[name].set()
    waits = [pair.begun[other]] if name == process.first_to_end else [pair.begun[other], pair.first_has_ended]
    for event in waits:
        if not event.wait(SECONDS):
            raise TimeoutError(f"{name} waits for {other}")
    process.reach(f"in {name}")
    return process.name


def flaky(folder: str) -> str:
    has_failed = Path(folder, "failed")
    attempt = 2 if has_failed.exists() else 1
    process.reach(f"start flaky {attempt}")
    note(folder, "flaky")
    process.reach(f"in flaky {attempt}")
    if attempt == 1:
        has_failed.touch()
        raise OSError("the first attempt fails")
    return process.name


# -- the program that kills itself ------------------------------------------------------------------------------------


def attempts_in(response: pb.OrchestratorResponse) -> list[str]:
    """Return the attempts whose ends a turn records, named as in moments."""
    found: list[str] = []
    for action in response.actions:
        name, data = action.sendEvent.name, action.sendEvent.data.value
        if action.HasField("sendEvent") and name.startswith(_RECORD) and _is_end(data):
            name = name[len(_RECORD) :]
            found.append(f"flaky {1 if 'failure' in json.loads(data) else 2}" if name == "flaky" else name)
    return found


def reach_all(place: str, steps: Iterable[str]) -> None:
    for step in steps:
        process.reach(f"{place} {step}")


def patch_sending() -> None:
    """Have the worker reach `send` and `answered`."""
    complete_turn: Callable[..., bool] = Answers.complete_turn

    def patched(self: Answers, stub: Any, response: pb.OrchestratorResponse, workflow_name: str) -> bool:
        steps = attempts_in(response)
        reach_all("send", steps)
        is_delivered = complete_turn(self, stub, response, workflow_name)
        reach_all("answered", steps)
        return is_delivered

    Answers.complete_turn = patched  # type: ignore[method-assign]


def patch_commits() -> None:
    """Have the engine reach `commit` and `committed`."""
    complete_turn: Callable[..., bool] = Transaction.complete_turn
    commit: Callable[..., None] = SqliteStore.commit
    written: list[str] = []

    def patched_turn(self: Transaction, token: Any, response: pb.OrchestratorResponse) -> bool:
        counted = complete_turn(self, token, response)
        if counted:
            written.extend(attempts_in(response))
        return counted

    def patched_commit(self: SqliteStore) -> None:
        reach_all("commit", written)
        commit(self)
        reach_all("committed", written)
        written.clear()

    Transaction.complete_turn = patched_turn  # type: ignore[method-assign]
    SqliteStore.commit = patched_commit  # type: ignore[method-assign]


def main() -> None:
    folder, process.moment, *address = sys.argv[1:]
    process.name = KILLED
    process.first_to_end = "right"
    patch_sending()
    if address:
        worker = TaskHubGrpcWorker(host_address=address[0])
    else:
        patch_commits()
        engine = Engine(Path(folder, "engine.db")).start()
        worker = engine.worker()
        engine.client().schedule_new_orchestration("workflow", input=folder, instance_id=INSTANCE)
    worker.add_orchestrator(workflow)
    worker.start()
    threading.Event().wait(SECONDS)
    sys.exit(f"the moment was not reached: {process.moment}")


if __name__ == "__main__":
    main()
