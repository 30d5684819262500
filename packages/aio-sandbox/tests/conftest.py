"""A workflow that is driven by hand: the part of the core that tests of single layers need."""

from __future__ import annotations

import datetime as dt
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from durabletask_aio.core import NonDeterminismWarning, SandboxMode
from durabletask_aio.sandbox.runtime.sandbox import Layer, WorkflowSandbox

MOMENT = dt.datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=dt.timezone.utc)


class FakeExecution:
    """The facts of an execution that the core provides."""

    def __init__(self, instance_id: str = "order-1", *, is_replaying: bool = False) -> None:
        self.instance_id = instance_id
        self.workflow_name = "workflow"
        self.is_replaying = is_replaying

    def now(self) -> dt.datetime:
        return MOMENT

    def stream(self, purpose: str) -> random.Random:
        return random.Random(f"{self.instance_id}/{purpose}")


class Outcome:
    """The outcome of one turn: a result or an error, the warnings, and what `exit()` returned."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.violation: BaseException | None = None
        self.warnings: list[str] = []


class Driver:
    """Registers a coroutine function that never waits, and runs it under its guard."""

    def __init__(self, mode: str, *layers: Layer) -> None:
        self.mode = SandboxMode(mode)
        self.sandbox = WorkflowSandbox(frozenset(layers))

    def __call__(self, function: Callable[..., Any], *args: Any, execution: FakeExecution | None = None) -> Outcome:
        outcome = Outcome()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            guard = self.sandbox.guard(function, self.mode, workflow_name="workflow")
            assert guard is not None
            self.run(guard, outcome, *args, execution=execution)
        outcome.warnings = [str(each.message) for each in caught if issubclass(each.category, NonDeterminismWarning)]
        return outcome

    def run(self, guard: Any, outcome: Outcome, *args: Any, execution: FakeExecution | None = None) -> None:
        watch = guard.begin(execution or FakeExecution())
        coroutine = guard.function(None, *args)
        if watch is not None:
            watch.enter()
        try:
            coroutine.send(None)
        except StopIteration as stop:
            outcome.result = stop.value
        except Exception as error:
            outcome.error = error
        finally:
            coroutine.close()
            if watch is not None:
                outcome.violation = watch.exit()


@pytest.fixture
def best_effort() -> Driver:
    """Mode best_effort without the static analysis, whose warnings would come first."""
    return Driver("best_effort", Layer.REDIRECT)


@pytest.fixture
def strict() -> Driver:
    """Mode strict with all layers that work at run time."""
    return Driver("strict", Layer.REDIRECT, Layer.MONITORING, Layer.PROFILING)


@pytest.fixture
def watched() -> Driver:
    """Mode strict with only the layer that sees calls: `sys.monitoring`, or the profile hook."""
    return Driver("strict", Layer.MONITORING, Layer.PROFILING)


@pytest.fixture
def moment() -> dt.datetime:
    return MOMENT


@pytest.fixture
def make_execution() -> type[FakeExecution]:
    return FakeExecution


@pytest.fixture(autouse=True)
def _no_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAPR_WF_DISABLE_DETECTION", "DAPR_WF_DEBUG", "DT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
