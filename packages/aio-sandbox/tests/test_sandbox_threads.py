"""Code outside workflows is not affected: other threads, overlapping workflows, the standard library."""

from __future__ import annotations

import ast
import builtins
import contextlib
import datetime as dt
import json
import logging
import os
import random
import threading
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import pytest
from scale import wait

from durabletask_aio.core import NonDeterminismWarning, SandboxViolationError
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.static.analysis import check

SECONDS = float(os.environ.get("SANDBOX_THREADS_SECONDS", "5"))


def everything(folder: Path) -> tuple[Any, ...]:
    """Calls that an activity may make and a workflow may not; both use this function."""
    (folder / "shared.txt").write_text("x")
    return time.time(), time.monotonic(), uuid.uuid4(), random.random(), dt.datetime.now(), os.getpid()


def busy(seconds: float) -> float:
    """Use the CPU long enough for the thread to be preempted."""
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


class Beside:
    """A real worker on a real engine: activities, correct and incorrect strict workflows, and best_effort ones.

    All of them use `everything`. Sessions are off, so that each turn replays the earlier ones.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.uuids: list[str] = []
        self.problems: list[str] = []
        self.counts = {"activity calls": 0, "strict": 0, "refused": 0, "best_effort": 0}

    def run(self, seconds: float) -> None:
        from durabletask.aio.testing import local_backend
        from durabletask.aio.worker import TaskHubGrpcWorker
        from durabletask.client import TaskHubGrpcClient

        with (
            local_backend() as engine,
            TaskHubGrpcWorker(host_address=engine.address, max_extended_sessions=0, logger=_quiet) as worker,
            TaskHubGrpcClient(host_address=engine.address, logger=_quiet) as client,
        ):
            worker.add_activity(measure)
            worker.add_orchestrator(behaves, sandbox_mode="strict")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NonDeterminismWarning)
                worker.add_orchestrator(misbehaves, sandbox_mode="strict")
                worker.add_orchestrator(replaced, sandbox_mode="best_effort")
            worker.start()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                started = [
                    (workflow.__name__, client.schedule_new_orchestration(workflow.__name__, input=self.folder))
                    for workflow in (behaves, misbehaves, replaced) * 2
                ]
                for name, instance_id in started:
                    state = client.wait_for_orchestration_completion(instance_id, timeout=60)
                    self._check_state(name, state)

    def _check_state(self, name: str, state: Any) -> None:
        status, failure = state.runtime_status.name, state.failure_details
        if name == "misbehaves":
            self.counts["refused"] += 1
            if failure is None or not failure.error_type.endswith("SandboxViolationError"):
                self.problems.append(f"a violation passed: {status} {failure}")
            return
        if status != "COMPLETED":
            self.problems.append(f"{name}: {failure}")
            return
        result = json.loads(state.serialized_output)
        if name == "replaced":
            self.counts["best_effort"] += 1
            if result["clock"] != result["now"] or result["again"] != result["clock"]:
                self.problems.append(f"a workflow's clock was not its own: {result}")
            self.uuids.append(result["uuid"])
            return
        self.counts["strict"] += 1
        for found in result:
            self.counts["activity calls"] += found["calls"]
            self.problems += found["problems"]
            self.uuids += found["uuids"]


_quiet = logging.getLogger("durabletask_aio.sandbox.tests.quiet")
_quiet.setLevel(logging.CRITICAL)


def measure(ctx: Any, folder: str) -> dict[str, Any]:
    """An activity: every call must return what it returns without a sandbox."""
    found: dict[str, Any] = {"calls": 0, "problems": [], "uuids": []}
    for _ in range(20):
        outer, outer_monotonic = time.time(), time.monotonic()
        now, monotonic, identifier, _, local, pid = everything(Path(folder))
        if not outer <= now <= time.time() or not outer_monotonic <= monotonic <= time.monotonic():
            found["problems"].append("a wrong time")
        if abs(local.timestamp() - now) > 60 or pid != os.getpid():
            found["problems"].append("a wrong date or process")
        found["calls"] += 1
        found["uuids"].append(str(identifier))
        busy(0.001)
    return found


async def behaves(ctx: Any, folder: str) -> list[Any]:
    found: list[Any] = []
    for _ in range(2):
        busy(0.01)
        found += await ctx.when_all([ctx.call_activity(measure, input=folder) for _ in range(2)])
    return found


async def misbehaves(ctx: Any, folder: str) -> Any:
    await ctx.call_activity(measure, input=folder)
    busy(0.01)
    with contextlib.suppress(Exception):
        # By a computed name, which the analysis cannot follow; otherwise strict would refuse the workflow.
        globals()["every" + "thing"](Path(folder))
    return "went on"


async def replaced(ctx: Any, folder: str) -> dict[str, Any]:
    clock, _, identifier, *_ = everything(Path(folder))
    busy(0.01)
    again, now = time.time(), ctx.now().timestamp()
    await ctx.call_activity(measure, input=folder)
    return {"clock": clock, "again": again, "now": now, "uuid": str(identifier)}


@pytest.mark.parametrize("seconds", [3, pytest.param(wait(short=20, long=60), marks=pytest.mark.slow)])
def test_a_worker_with_activities_and_watched_workflows_side_by_side(tmp_path: Path, seconds: float) -> None:
    pytest.importorskip("durabletask.aio.worker", reason="needs a worker that runs async workflows by itself")
    pytest.importorskip("durabletask.aio.testing", reason="needs an engine")
    before = identities()
    beside = Beside(tmp_path)

    with warnings.catch_warnings():
        # best_effort also warns at run time, in threads of the worker.
        warnings.simplefilter("ignore", NonDeterminismWarning)
        beside.run(seconds)

    print(f"{seconds:.0f} s: {beside.counts}, {len(beside.problems)} problems")
    assert beside.problems == []
    assert len(set(beside.uuids)) == len(beside.uuids)
    assert all(beside.counts.values()), beside.counts
    assert all(old is new for old, new in zip(before, identities(), strict=True))


def test_overlapping_workflows_leave_the_standard_library_as_it_was(strict: Any, best_effort: Any) -> None:
    before = identities()
    inside, done = threading.Event(), threading.Event()
    results: list[Any] = []
    overlapped: list[bool] = []

    async def first(ctx: Any) -> float:
        enter()
        return time.time()

    async def second(ctx: Any) -> float:
        return time.time()

    def enter() -> None:
        inside.set()
        # A violation would end this workflow before the other one starts.
        overlapped.append(done.wait(30))  # determinism: allow[DET804] the test waits

    thread = threading.Thread(target=lambda: results.append(strict(first)))
    thread.start()
    inside.wait(30)
    replaced = best_effort(second).result
    done.set()
    thread.join()

    assert overlapped == [True]
    assert "time.time()" in results[0].violation.message
    assert replaced == 1704164645.678901
    assert abs(time.time() - dt.datetime.now().timestamp()) < 60
    assert all(old is new for old, new in zip(before, identities(), strict=True))


def test_two_threads_that_register_workflows_do_not_parse_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On CPython 3.11, one of two threads that parse at once may get a SystemError.
    meeting = threading.Barrier(2, timeout=0.3)
    met: list[int] = []
    parse = ast.parse

    def parse_and_wait(*args: Any, **kwargs: Any) -> ast.AST:
        with contextlib.suppress(threading.BrokenBarrierError):
            met.append(meeting.wait())
        return parse(*args, **kwargs)

    def register(name: str) -> None:
        namespace: dict[str, Any] = {}
        file = tmp_path / f"{name}.py"
        file.write_text(f"async def {name}(ctx, order):\n    return await ctx.call_activity('charge', input=order)\n")
        exec(compile(file.read_text(), str(file), "exec"), namespace)
        checked.append(check(namespace[name]))

    checked: list[list[Finding]] = []
    monkeypatch.setattr(ast, "parse", parse_and_wait)
    threads = [threading.Thread(target=register, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert checked == [[], []]
    assert meeting.broken  # a thread has parsed, and no other has come
    assert met == []
