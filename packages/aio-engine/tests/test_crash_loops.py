"""A workflow that ends its process is set aside after some restarts; everything else continues."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from durabletask.aio.engine import Engine
from durabletask.client import OrchestrationStatus

from durabletask_aio.engine._upstream import pb, pb_grpc
from durabletask_aio.engine.crash_loops import MAX_CRASHES

pytestmark = pytest.mark.slow

PROGRAM = """
import logging, os, sys
from durabletask.aio.engine import Engine

logging.disable(logging.CRITICAL)
path, mended, starts = sys.argv[1], "mended" in sys.argv, "start" in sys.argv


async def culprit(ctx, _):
    await ctx.call_activity("step", input=1)
    if not mended:
        os._exit(9)
    return "ran"


async def innocent(ctx, number):
    await ctx.call_activity("step", input=number)
    await ctx.wait_for_external_event("go")
    return number


def step(ctx, value):
    return value


with Engine(path, durability="os") as engine:
    worker, client = engine.worker(), engine.client()
    with worker:
        worker.add_orchestrator(culprit)
        worker.add_orchestrator(innocent)
        worker.add_activity(step)
        worker.start()
        if starts:
            for number in range(20):
                client.schedule_new_orchestration("innocent", input=number, instance_id=f"i{number}")
            client.schedule_new_orchestration("culprit", instance_id="culprit")
        for number in range(20):
            client.raise_orchestration_event(f"i{number}", "go")
        if mended:
            client.resume_orchestration("culprit")
            client.wait_for_orchestration_completion("culprit", timeout=60)
        for number in range(20):
            client.wait_for_orchestration_completion(f"i{number}", timeout=60)
        if not mended:
            import time
            time.sleep(1)  # for the culprit, if it may still run
        worker.stop()
print("ended in order")
"""


def run(path: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), *words], capture_output=True, text=True, check=False, timeout=120
    )
    return done.returncode, done.stdout


def test_an_instance_that_ends_the_process_is_suspended_and_can_be_resumed(tmp_path: Path) -> None:
    path = tmp_path / "engine.db"
    lives = 1
    code, _ = run(path, "start")
    while code == 9:
        assert lives <= MAX_CRASHES + 1, "the instance has not been set aside"
        code, output = run(path)
        lives += 1
    assert (code, output) == (0, "ended in order\n")

    with Engine(path) as engine:
        client = engine.client()
        state = client.get_orchestration_state("culprit")
        assert state is not None
        assert state.runtime_status is OrchestrationStatus.SUSPENDED
        history = client.get_orchestration_history("culprit")
        assert "has ended without warning" in str(history[-1])
        for number in range(20):
            other = client.get_orchestration_state(f"i{number}")
            assert other is not None
            assert other.runtime_status is OrchestrationStatus.COMPLETED

    assert run(path, "mended") == (0, "ended in order\n")
    with Engine(path) as engine:
        state = engine.client().get_orchestration_state("culprit")
        assert state is not None
        assert state.get_output() == "ran"


UNSERVED = """
import os, sys, threading
from durabletask.aio.engine import Engine

path, kills = sys.argv[1], "kill" in sys.argv
began = threading.Event()


async def served(ctx, _):
    began.set()
    if kills:
        threading.Event().wait()
    return "ran"


with Engine(path, durability="os") as engine:
    with engine.worker() as worker:
        worker.add_orchestrator(served)
        worker.use_work_item_filters()
        worker.start()
        if kills:
            began.wait()
            os._exit(9)
        state = engine.client().wait_for_orchestration_completion("served", timeout=30)
print(state.get_output())
"""


def test_a_suspect_that_no_worker_serves_does_not_hold_up_the_others(tmp_path: Path) -> None:
    path = tmp_path / "engine.db"
    with Engine(path) as engine:
        engine.client().schedule_new_orchestration("unserved", instance_id="unserved")
        engine.client().schedule_new_orchestration("served", instance_id="served")
    for words, expected in ((["kill"], (9, "")), (["kill"], (9, "")), ([], (0, "ran\n"))):
        done = subprocess.run(
            [sys.executable, "-c", UNSERVED, str(path), *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == expected, done.stderr


SERVER = """
import os, sys
from durabletask.aio.engine import Engine

engine = Engine(sys.argv[1], durability="os").start()
print(engine.listen().port, flush=True)
sys.stdin.readline()
os._exit(9)
"""


def test_kills_of_an_engine_whose_workers_are_elsewhere_set_nothing_aside(tmp_path: Path) -> None:
    """The worker is busy with the turn all the time, so the turn is out whenever the engine ends."""
    path = tmp_path / "engine.db"
    with Engine(path) as engine:
        engine.client().schedule_new_orchestration("workflow", instance_id="i")
    for _ in range(MAX_CRASHES + 2):
        with subprocess.Popen(
            [sys.executable, "-c", SERVER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            with grpc.insecure_channel(f"127.0.0.1:{process.stdout.readline().strip()}") as channel:
                items = pb_grpc.TaskHubSidecarServiceStub(channel).GetWorkItems(pb.GetWorkItemsRequest(), timeout=30)
                assert next(items).orchestratorRequest.instanceId == "i"
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.wait(30) == 9
    with Engine(path) as engine:
        state = engine.client().get_orchestration_state("i")
        assert state is not None
        assert state.runtime_status is OrchestrationStatus.PENDING


def test_kills_without_a_culprit_set_nothing_aside(tmp_path: Path) -> None:
    """A turn that has not been dispatched cannot have ended the process, however often that is killed."""
    program = "import os, sys\nfrom durabletask.aio.engine import Engine\nEngine(sys.argv[1]).start()\nos._exit(9)"
    path = tmp_path / "engine.db"
    with Engine(path) as engine:
        engine.client().schedule_new_orchestration("innocent", input=1, instance_id="i0")
    for _ in range(MAX_CRASHES + 3):
        assert subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60).returncode == 9
    with Engine(path) as engine:
        state = engine.client().get_orchestration_state("i0")
        assert state is not None
        assert state.runtime_status is OrchestrationStatus.PENDING
