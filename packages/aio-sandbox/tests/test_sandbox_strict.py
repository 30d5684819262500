"""Mode strict: violations at run time, and their messages."""

from __future__ import annotations

import contextlib
import random
import re
import time
import uuid
from datetime import datetime
from random import randint
from typing import Any

import pytest

from durabletask_aio.core import SandboxMode, SandboxViolationError
from durabletask_aio.sandbox.runtime.sandbox import SANDBOX


def price() -> float:
    return time.time()


class TestViolations:
    @pytest.mark.parametrize("call", [lambda: time.time(), lambda: datetime.now(), lambda: randint(1, 6)])
    def test_clock_and_random_calls_raise(self, strict: Any, call: Any) -> None:
        async def workflow(ctx: Any) -> Any:
            return call()

        outcome = strict(workflow)

        assert isinstance(outcome.error, SandboxViolationError)
        assert outcome.violation is outcome.error

    def test_a_violation_that_is_swallowed_still_fails_the_turn(self, strict: Any) -> None:
        async def workflow(ctx: Any) -> str:
            with contextlib.suppress(Exception):
                uuid.uuid4()
            return "done"

        outcome = strict(workflow)

        assert (outcome.result, outcome.error) == ("done", None)
        assert isinstance(outcome.violation, SandboxViolationError)

    def test_a_seeded_generator_is_fine(self, strict: Any) -> None:
        async def workflow(ctx: Any) -> float:
            return random.Random(7).random()

        outcome = strict(workflow)

        assert (random.Random(7).random(), None, None) == (outcome.result, outcome.error, outcome.violation)


class TestMessages:
    def test_a_message_has_the_call_the_place_the_path_and_the_alternative(self, strict: Any) -> None:
        async def workflow(ctx: Any) -> float:
            return price()

        message = strict(workflow).error.message

        first = price.__code__.co_firstlineno
        assert re.search(
            r"`time\.time\(\)` is not deterministic: the machine's clock is read \(DET101\)\.\n"
            rf"  at .*test_sandbox_strict\.py:{first + 1}:12 in price\(\)\n"
            r"  reached by .*workflow\(\) -> price\(\)\n"
            r"      return time\.time\(\)\n"
            r"  Use `ctx\.now\(\)`, or `await ctx\.run\(\.\.\.\)` for the machine's clock\.",
            message,
        )

    def test_a_message_names_workflow_and_instance(self, strict: Any) -> None:
        async def workflow(ctx: Any) -> float:
            return price()

        error = strict(workflow).error

        assert (error.workflow_name, error.instance_id) == ("workflow", "order-1")
        assert "workflow 'workflow', instance 'order-1'" in str(error)

    def test_a_mechanical_correction_is_shown_as_a_line(self, strict: Any) -> None:
        async def workflow(ctx: Any) -> float:
            started = time.time() - 1
            return started + 1

        assert "      started = ctx.now().timestamp() - 1" in str(strict(workflow).error)

    def test_only_the_call_itself_is_corrected(self, strict: Any) -> None:
        async def attribute_of_the_result(ctx: Any) -> str:
            return datetime.now().isoformat()

        async def computed_callee(ctx: Any) -> float:
            started: float = getattr(time, "ti" + "me")()
            return started

        assert "      return ctx.now().isoformat()" in str(strict(attribute_of_the_result).error)
        assert "ctx.now()" not in str(strict(computed_callee).error).split("Use")[1].partition("\n")[2]


class TestSwitch:
    def test_detection_can_be_disabled_when_an_execution_starts(
        self, monkeypatch: pytest.MonkeyPatch, make_execution: Any
    ) -> None:
        async def workflow(ctx: Any) -> None:
            return None

        guard = SANDBOX.guard(workflow, SandboxMode.BEST_EFFORT, workflow_name="workflow")
        assert guard is not None
        monkeypatch.setenv("DAPR_WF_DISABLE_DETECTION", "true")

        assert guard.begin(make_execution()) is None

    def test_detection_can_be_disabled_at_registration(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def workflow(ctx: Any) -> float:
            return time.time()

        monkeypatch.setenv("DAPR_WF_DISABLE_DETECTION", "true")
        code = workflow.__code__

        assert SANDBOX.guard(workflow, SandboxMode.STRICT, workflow_name="workflow") is None
        assert workflow.__code__ is code
