"""Relaxing the sandbox while workflows run: a line, a block, a function, the process."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from durabletask_aio.core import SandboxViolationError
from durabletask_aio.sandbox.rules.allowance import allow, configure


class TestWhileRunning:
    def test_a_pragma_allows_its_line_alone(self, strict: Any) -> None:
        async def workflow(ctx: Any) -> float:
            time.monotonic()  # determinism: allow[DET101] only logged
            return time.time()

        outcome = strict(workflow)

        assert "`time.time()`" in str(outcome.error)

    def test_a_block_allows_what_it_names(self, strict: Any) -> None:
        def read() -> float:
            return time.time()

        async def workflow(ctx: Any) -> Any:
            with allow("clock", reason="only logged"):
                inside = read()
            try:
                read()
            except SandboxViolationError:
                return inside, "then refused"

        outcome = strict(workflow)

        assert outcome.result[1] == "then refused"
        assert abs(outcome.result[0] - time.time()) < 600

    def test_a_block_gives_true_values_in_best_effort(self, best_effort: Any) -> None:
        async def workflow(ctx: Any) -> float:
            with allow("time.time"):
                return time.time()

        outcome = best_effort(workflow)

        assert abs(outcome.result - time.time()) < 600
        assert outcome.warnings == []

    def test_a_decorated_helper_is_allowed_and_its_caller_is_not(self, strict: Any) -> None:
        @allow("wall-clock")
        def logged() -> float:
            return time.time()

        async def helped(ctx: Any) -> float:
            return logged()

        async def direct(ctx: Any) -> float:
            return logged() + time.time()

        assert strict(helped).error is None
        assert isinstance(strict(direct).error, SandboxViolationError)

    def test_a_decorated_workflow_is_allowed_as_a_whole(self, strict: Any) -> None:
        @allow("clock")
        async def workflow(ctx: Any) -> float:
            return time.time()

        assert strict(workflow).error is None

    def test_the_process_can_allow(self, strict: Any) -> None:
        async def workflow(ctx: Any) -> float:
            return time.time()

        undo = configure(allow=["DET101"])
        try:
            assert strict(workflow).error is None
        finally:
            undo()
        assert strict(workflow).error is not None

    def test_a_block_belongs_to_its_task(self) -> None:
        from durabletask_aio.sandbox.rules import allowance

        seen: dict[str, tuple[str, ...]] = {}

        async def inside(turn: asyncio.Event, done: asyncio.Event) -> None:
            with allow("clock"):
                turn.set()
                await done.wait()
                seen["inside"] = allowance.in_block()

        async def beside(turn: asyncio.Event, done: asyncio.Event) -> None:
            await turn.wait()
            seen["beside"] = allowance.in_block()
            done.set()

        async def main() -> None:
            turn, done = asyncio.Event(), asyncio.Event()
            await asyncio.gather(inside(turn, done), beside(turn, done))

        asyncio.run(main())

        assert seen == {"inside": ("clock",), "beside": ()}


def test_one_call_site_warns_once(best_effort: Any) -> None:
    async def workflow(ctx: Any) -> None:
        for _ in range(3):
            time.time()
        time.time()

    assert len(best_effort(workflow).warnings) == 2


def test_there_are_no_warnings_while_replaying(best_effort: Any, make_execution: Any) -> None:
    async def workflow(ctx: Any) -> None:
        time.time()

    assert best_effort(workflow, execution=make_execution(is_replaying=True)).warnings == []


def test_an_allow_without_names_allows_everything(strict: Any) -> None:
    async def workflow(ctx: Any) -> float:
        with allow():
            return time.time()

    assert strict(workflow).error is None


@pytest.mark.parametrize("name", ["clock", "DET101", "wall-clock", "time.time", "time", "*"])
def test_every_kind_of_name_works(strict: Any, name: str) -> None:
    async def workflow(ctx: Any) -> float:
        with allow(name):
            return time.time()

    assert strict(workflow).error is None
