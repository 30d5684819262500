"""Nothing outside of workflows changes: other threads, overlapping workflows, the standard library."""

from __future__ import annotations

import builtins
import datetime as dt
import os
import random
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from durabletask_aio.core.errors import SandboxViolationError

SECONDS = float(os.environ.get("SANDBOX_THREADS_SECONDS", "5"))


def everything(folder: Path) -> tuple[Any, ...]:
    """What an activity does, and what workflows must not: shared by both."""
    (folder / "shared.txt").write_text("x")
    return time.time(), time.monotonic(), uuid.uuid4(), random.random(), dt.datetime.now(), os.getpid()


def busy(seconds: float) -> float:
    """Long enough to be preempted."""
    end = time.thread_time() + seconds  # determinism: allow[DET101] it only burns time
    while time.thread_time() < end:  # determinism: allow[DET101] it only burns time
        pass
    return end


def identities() -> list[object]:
    modules = (time, random, uuid, os)
    found: list[object] = [builtins.open, builtins.input, builtins.__import__, dt.datetime, dt.date]
    for module in modules:
        found.extend(value for _, value in sorted(vars(module).items()) if callable(value))
    return found


@pytest.mark.slow
def test_activities_beside_strict_workflows_see_true_values_and_no_errors(strict: Any, tmp_path: Path) -> None:
    before = identities()
    stop = threading.Event()
    problems: list[str] = []
    counts = {"activity": 0, "workflow": 0}
    ids: set[uuid.UUID] = set()
    lock = threading.Lock()

    def activity() -> None:
        while not stop.is_set():
            outer, outer_monotonic = time.time(), time.monotonic()
            try:
                now, monotonic, identifier, _, local, pid = everything(tmp_path)
            except Exception as error:
                problems.append(repr(error))
                continue
            with lock:
                counts["activity"] += 1
                if identifier in ids:
                    problems.append("a uuid came twice")
                ids.add(identifier)
            if not outer <= now <= time.time() or not outer_monotonic <= monotonic <= time.monotonic():
                problems.append("a wrong time")
            if abs(local.timestamp() - now) > 60 or pid != os.getpid():
                problems.append("a wrong date or process")

    async def workflow(ctx: Any) -> None:
        busy(0.02)
        everything(tmp_path)

    def workflows() -> None:
        while not stop.is_set():
            outcome = strict(workflow)
            if not isinstance(outcome.violation, SandboxViolationError):
                problems.append(f"a workflow went on: {outcome.result} {outcome.error!r}")
            with lock:
                counts["workflow"] += 1

    strict(workflow)
    threads = [threading.Thread(target=each) for each in (activity, activity, workflows, workflows)]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    stop.set()
    for thread in threads:
        thread.join()

    print(f"{SECONDS:.0f} s: {counts}, {len(problems)} problems")
    assert problems == []
    assert counts["activity"] > 10
    assert counts["workflow"] > 2
    after = identities()
    assert all(old is new for old, new in zip(before, after, strict=True))


def test_overlapping_workflows_leave_the_standard_library_as_it_was(strict: Any, best_effort: Any) -> None:
    before = identities()
    inside, done = threading.Event(), threading.Event()
    results: list[Any] = []

    async def first(ctx: Any) -> float:
        enter()
        return time.time()

    async def second(ctx: Any) -> float:
        return time.time()

    def enter() -> None:
        inside.set()
        done.wait(30)

    thread = threading.Thread(target=lambda: results.append(strict(first)))
    thread.start()
    inside.wait(30)
    replaced = best_effort(second).result
    done.set()
    thread.join()

    assert isinstance(results[0].violation, SandboxViolationError)
    assert replaced == 1704164645.678901
    assert abs(time.time() - dt.datetime.now().timestamp()) < 60
    assert all(old is new for old, new in zip(before, identities(), strict=True))
