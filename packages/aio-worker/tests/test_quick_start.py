"""The specification's first program, byte for byte, on the worker class of `durabletask-azuremanaged`."""

from __future__ import annotations

import builtins
import json
import re
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from durabletask.client import TaskHubGrpcClient
from worker_support import QUIET, run

from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker.worker import AsyncOrchestratorMixin

SPECIFICATION = Path(__file__).resolve().parents[3] / "docs" / "spec" / "ENHANCED_ASYNC_FEATURES.md"

azuremanaged = pytest.importorskip(
    "durabletask.azuremanaged.worker", reason="durabletask-azuremanaged, whose worker this is about, is not installed"
)
pytest.importorskip("durabletask_aio.sandbox", reason="the program switches the sandbox on, which is not installed")


def quick_start() -> str:
    if not SPECIFICATION.exists():
        pytest.skip("the specification is not beside this copy of the tests")
    found = re.search(r"^## Quick Start\n\n```python\n(.*?)^```$", SPECIFICATION.read_text("utf-8"), re.M | re.S)
    assert found is not None
    return found[1]


def my_activity(ctx: Any, value: Any) -> str:
    return f"did {value}"


def task_of(number: int) -> Any:
    def task(ctx: Any, _: Any) -> int:
        return number

    task.__name__ = f"task_{number}"
    return task


@pytest.mark.parametrize("sessions", [0, 10])
def test_runs_on_the_worker_of_durabletask_azuremanaged(
    engine: LocalBackend, client: TaskHubGrpcClient, sessions: int
) -> None:
    pytest.importorskip("durabletask.aio", reason="the public import path is not installed, only the sources are here")
    outcomes: list[Any] = []
    workers: list[Any] = []

    class Worker(AsyncOrchestratorMixin, azuremanaged.DurableTaskSchedulerWorker):  # type: ignore[name-defined]
        """What the program calls `TaskHubGrpcWorker`, and what it leaves to the reader."""

        def __init__(self) -> None:
            super().__init__(
                host_address=engine.address,
                taskhub="default",
                token_credential=None,
                secure_channel=False,
                logger=QUIET,
                max_extended_sessions=sessions,
            )
            workers.append(self)
            self.add_activity(my_activity)
            for number in range(3):
                self.add_activity(task_of(number))

        def start(self) -> None:
            super().start()
            state = run(client, "enhanced_workflow", "the order")  # "... rest of your code"
            outcomes.append(json.loads(state.serialized_output or "null"))

    def with_that_worker(name: str, *arguments: Any) -> Any:
        module = builtins.__import__(name, *arguments)
        if name != "durabletask.worker":
            return module
        return type("Module", (), {"TaskHubGrpcWorker": Worker})

    names = {"__name__": "quick_start", "__builtins__": {**vars(builtins), "__import__": with_that_worker}}
    exec(compile(quick_start(), "quick_start.py", "exec"), names)

    (worker,) = workers
    (outcome,) = outcomes
    assert isinstance(worker, azuremanaged.DurableTaskSchedulerWorker)
    assert not worker._is_running
    assert (worker.extended_session_stats.hits > 0) is (sessions > 0)
    assert worker._registry.get_orchestrator("enhanced_workflow").__durabletask_aio__.sandbox_mode == "best_effort"
    assert outcome["result"] == "did the order"
    assert outcome["first_completed"] in (0, 1, 2)
    assert 0 <= outcome["random"] < 1
    assert datetime.fromisoformat(outcome["timestamp"]).tzinfo is not None
    assert uuid.UUID(outcome["id"])
