"""Through the core: modes as users choose them, with the worker, client and in-memory engine of durabletask."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from durabletask.aio import AsyncWorkflowContext, NonDeterminismWarning, SandboxViolationError, as_orchestrator
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.testing import create_test_backend
from durabletask.worker import TaskHubGrpcWorker

Run = Callable[..., Any]


def double(ctx: Any, value: int) -> int:
    return value * 2


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs a workflow to its end on an engine that this module shares; returns the final state."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    backend = create_test_backend(port=port)
    address = f"localhost:{port}"
    client = TaskHubGrpcClient(host_address=address)

    def run_workflow(function: Any, mode: str, instance_id: str | None = None) -> Any:
        orchestrator = as_orchestrator(function, sandbox_mode=mode)
        with TaskHubGrpcWorker(host_address=address) as worker:
            worker.add_orchestrator(orchestrator)
            worker.add_activity(double)
            worker.start()
            identifier = client.schedule_new_orchestration(orchestrator, instance_id=instance_id)
            return client.wait_for_orchestration_completion(identifier, timeout=60)

    try:
        yield run_workflow
    finally:
        client.close()
        backend.stop()


def test_best_effort_returns_the_same_values_on_replay(run: Run) -> None:
    seen: list[Any] = []

    async def workflow(ctx: AsyncWorkflowContext) -> Any:
        values = [random.random(), str(uuid.uuid4()), time.time(), datetime.now(timezone.utc).isoformat()]
        note(values)
        await ctx.call_activity(double, input=1)
        return [*values, random.random(), str(uuid.uuid4())]

    def note(values: list[Any]) -> None:
        keep(list(values))

    # Kept outside the workflow to compare turns; passed in, so that the workflow writes no module state.
    keep = seen.append

    with pytest.warns(NonDeterminismWarning):
        state = run(workflow, "best_effort")

    result = json.loads(state.serialized_output)
    assert state.runtime_status == OrchestrationStatus.COMPLETED
    assert len(seen) == 2
    assert seen[0] == seen[1] == result[:4]
    assert len({*result[:2], *result[4:]}) == 4


def test_strict_refuses_at_registration(run: Run) -> None:
    async def workflow(ctx: AsyncWorkflowContext) -> float:
        return time.time()

    with pytest.raises(SandboxViolationError, match=r"`time\.time\(\)` is not deterministic"):
        run(workflow, "strict")


@pytest.mark.filterwarnings("ignore::durabletask.aio.NonDeterminismWarning")
def test_strict_fails_the_instance_even_if_the_violation_is_swallowed(run: Run) -> None:
    async def workflow(ctx: AsyncWorkflowContext) -> str:
        await ctx.call_activity(double, input=1)
        with contextlib.suppress(Exception):
            getattr(time, "".join(["ti", "me"]))()
        return "went on"

    state = run(workflow, "strict")

    assert state.runtime_status == OrchestrationStatus.FAILED
    assert "SandboxViolationError" in state.failure_details.error_type
    assert "`time.time()` is not deterministic" in state.failure_details.message
    assert "reached by workflow()" in state.failure_details.message or "in workflow()" in state.failure_details.message


def test_strict_runs_deterministic_workflows_to_the_same_result(run: Run) -> None:
    async def workflow(ctx: AsyncWorkflowContext) -> Any:
        first = await ctx.call_activity(double, input=4)
        both = await ctx.when_all([ctx.call_activity(double, input=n) for n in (1, 2)])
        return [first, both, ctx.random().random(), str(ctx.uuid4()), ctx.now().tzinfo is not None]

    async def twin(ctx: AsyncWorkflowContext) -> Any:
        first = await ctx.call_activity(double, input=4)
        both = await ctx.when_all([ctx.call_activity(double, input=n) for n in (1, 2)])
        return [first, both, ctx.random().random(), str(ctx.uuid4()), ctx.now().tzinfo is not None]

    twin.__name__ = twin.__qualname__ = "workflow"
    strict, off = run(workflow, "strict", "same-id"), None
    assert strict.runtime_status == OrchestrationStatus.COMPLETED, strict.failure_details
    off = run(twin, "off", "other-id")
    head = json.loads(strict.serialized_output)[:2]
    assert head == json.loads(off.serialized_output)[:2] == [8, [2, 4]]


@pytest.mark.parametrize("mode", ["best_effort", "strict"])
def test_a_note_neither_warns_nor_fails(run: Run, mode: str) -> None:
    async def workflow(ctx: AsyncWorkflowContext) -> Any:
        return await asyncio.wait_for(ctx.call_activity(double, input=4), 60)

    # Warnings are errors in these tests.
    state = run(workflow, mode, f"noted-{mode}")

    assert (state.runtime_status, state.serialized_output) == (OrchestrationStatus.COMPLETED, "8")


PROGRAM = """
import sys
def hooks():  # those of others, as a measurement of coverage, are there before
    tools = [sys.monitoring.get_tool(number) for number in range(6)] if sys.version_info >= (3, 12) else []
    return [sys.getprofile(), sys.gettrace(), *tools]
before = hooks()
from durabletask.aio import AsyncWorkflowContext, as_orchestrator
async def workflow(ctx: AsyncWorkflowContext):
    import time
    return time.time()
as_orchestrator(workflow, sandbox_mode={mode!r})
imported = sorted(name for name in sys.modules if name.startswith("durabletask_aio.sandbox"))
print(bool(imported), hooks() != before)
"""


def in_a_new_process(mode: str, **variables: str) -> str:
    environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PROGRAM.format(mode=mode)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_off_imports_nothing_and_hooks_nothing() -> None:
    assert in_a_new_process("off") == "False False"


def test_disabled_detection_imports_no_more_than_off() -> None:
    assert in_a_new_process("off", DAPR_WF_DISABLE_DETECTION="true", DAPR_WF_DEBUG="true") == "False False"


def test_disabled_detection_hooks_nothing() -> None:
    assert in_a_new_process("strict", DAPR_WF_DISABLE_DETECTION="true").endswith("False")


def test_debug_warns_in_mode_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def workflow(ctx: AsyncWorkflowContext) -> float:
        return time.time()

    monkeypatch.setenv("DAPR_WF_DEBUG", "true")

    with pytest.warns(NonDeterminismWarning, match="DET101"):
        as_orchestrator(workflow)
